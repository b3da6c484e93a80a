"""What frozen teachers show at their four levels, and what they are shown."""

import copy
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn

from eyespot import Encoder, Features, load_encoder
from eyespot.dense_tasks import dense_task
from eyespot.encoders.multitask import PathEncoder, make_multitask_encoder
from eyespot.encoders.sources.timm import create_timm_encoder
from eyespot.encoders.taps import Taps
from eyespot.pictures import resize_pictures
from eyespot.recipes.sak.level_teachers import LevelTeachers, depths_of, letterboxed, level_modules
from toy_encoders import ToyEncoder

NARROW = {"embed_dim": 16, "num_heads": 2}
LAST = 3


@cache  # building one takes longer than all that is done with it here
def made_once(depth, name):
    torch.manual_seed(depth)
    return create_timm_encoder(name, pretrained=False, img_size=32, patch_size=8, depth=depth, **NARROW)


def vit(depth=8, name="vit_tiny_patch16_224"):
    return copy.deepcopy(made_once(depth, name))


def pictures(height=32, width=48, count=2):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(height))


class Spy(Encoder):
    """Its map is the mean colour of each cell, of pictures as they reach the network."""

    def __init__(self, native_size=None, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4)):
        super().__init__(mean, std)
        self.name, self.summary_dim, self.patch_dim, self.stride = "spy", 3, 3, 8
        self.native_size, self.default_size = native_size, native_size or (32, 32)
        self.seen = []

    def _encode(self, images):
        self.seen.append(images)
        patches = F.avg_pool2d(images, self.stride)
        return Features(patches.mean((2, 3)), patches)


def normalised(images, mean=IMAGENET_DEFAULT_MEAN, std=IMAGENET_DEFAULT_STD):
    return (images - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_small_patch14_reg4_dinov2", "vit_base_patch16_clip_224"])
def test_levels_of_a_vit_are_its_blocks_at_the_quarters(name):
    """Without final norm and prefix tokens, from the same pass that `forward` makes."""
    teacher = vit(name=name)
    shown = LevelTeachers({"t": teacher})(pictures())["t"]
    wanted = teacher.intermediates(pictures(), [1, 3, 5, 7])
    assert list(shown) == [0, 1, 2, 3]
    for level, values in enumerate(wanted):
        assert shown[level].shape == (2, 16, 4, 6)
        torch.testing.assert_close(shown[level], values)


@pytest.mark.parametrize(
    ("depth", "blocks"),
    [(12, (2, 5, 8, 11)), (24, (5, 11, 17, 23)), (6, (1, 2, 4, 5)), (2, (0, 0, 1, 1)), (1, (0, 0, 0, 0))],
)
def test_which_blocks_end_the_levels(depth, blocks):
    names = level_modules(vit(depth), (0.25, 0.5, 0.75, 1.0))
    assert names == tuple(f"model.blocks.{block}" for block in blocks)


def test_depths_of_a_student():
    assert depths_of((2, 5, 8, 11)) == (0.25, 0.5, 0.75, 1.0)
    assert level_modules(vit(24), depths_of((0, 5, 8, 11)))[0] == "model.blocks.1"


def test_a_shallow_teacher_shows_a_block_twice():
    shown = LevelTeachers({"t": vit(2)})(pictures())["t"]
    assert torch.equal(shown[0], shown[1]) and torch.equal(shown[2], shown[3])
    assert not torch.equal(shown[1], shown[2])


def test_stages_of_a_cnn():
    teacher = create_timm_encoder("resnet18", pretrained=False)
    teachers = LevelTeachers({"t": teacher})
    shown = teachers(pictures(64, 64))["t"]
    assert teachers.widths["t"] == {0: 64, 1: 128, 2: 256, 3: 512}
    for level, values in enumerate(teacher.intermediates(pictures(64, 64), [1, 2, 3, 4])):
        torch.testing.assert_close(shown[level], values)


def test_stages_of_swin_keep_their_grids():
    """Swin's taps come as tokens, which have to become maps of four sizes again."""
    torch.manual_seed(0)
    args = {"img_size": 64, "window_size": 2, "embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)}
    teacher = create_timm_encoder("swin_tiny_patch4_window7_224", pretrained=False, **args)
    images = pictures(*teacher.default_size)
    shown = LevelTeachers({"t": teacher})(images)["t"]
    taps = Taps(teacher)
    for level, tokens in enumerate(taps(images)[1]):
        rows = shown[level].shape[2]
        assert shown[level].shape == (2, 8 * 2**level, rows, rows) and rows == teacher.default_size[0] // 2 ** (
            level + 2
        )
        torch.testing.assert_close(shown[level].flatten(2).mT, tokens)


def test_sam_shows_its_blocks_not_its_neck():
    torch.manual_seed(0)
    args = {"img_size": 64, "depth": 4, "global_attn_indexes": (1, 3), "window_size": 2, **NARROW}
    teacher = create_timm_encoder("samvit_base_patch16", pretrained=False, **args)
    teachers = LevelTeachers({"sam": teacher})
    images = pictures(64, 64)
    shown = teachers(images)["sam"]
    assert teachers.widths["sam"] == dict.fromkeys(range(4), 16) and teacher.patch_dim == 256
    for level, values in enumerate(teacher.intermediates(images, [0, 1, 2, 3])):
        torch.testing.assert_close(shown[level], values)


def test_an_encoder_without_inner_layers_teaches_the_last_level_in_one_look():
    teacher = ToyEncoder("file")
    teachers = LevelTeachers({"file": teacher})
    assert teachers.widths == {"file": {LAST: 5}} and teacher.calls == 0
    shown = teachers(pictures())
    assert shown.keys() == {"file"} and shown["file"].keys() == {LAST} and teacher.calls == 2
    torch.testing.assert_close(shown["file"][LAST], teacher(pictures()).patches)


def test_a_path_of_a_multi_task_model_shows_its_own_levels():
    model = make_multitask_encoder(vit(8), ["a", "b"], {"depth": dense_task("depth")}).eval()
    teachers = LevelTeachers({"a": PathEncoder(model, "a"), "stem": PathEncoder(model, "stem")})
    shown, levels = teachers(pictures()), model.look(pictures())
    for level in range(4):
        torch.testing.assert_close(shown["a"][level], levels.paths["a"][level])
        torch.testing.assert_close(shown["stem"][level], levels.stem[level])


def test_teachers_stay_frozen_and_in_eval_mode():
    teachers = LevelTeachers({"t": vit(4), "file": ToyEncoder("file")})
    teachers.train()
    assert not any(module.training for module in teachers.modules())
    assert not any(weight.requires_grad for weight in teachers.parameters())
    shown = teachers(pictures().requires_grad_())
    assert not any(values.requires_grad for maps in shown.values() for values in maps.values())


def test_own_inputs_cover_the_whole_picture():
    """Each with its own statistics, at the pictures' size rounded to its stride, or its native one."""
    free, fixed = Spy(), Spy(native_size=(16, 16))
    teachers = LevelTeachers({"free": free, "fixed": fixed})
    images = pictures(34, 47)
    teachers(images)
    for spy, size in ((free, (32, 48)), (fixed, (16, 16))):
        torch.testing.assert_close(
            spy.seen[-1], normalised(resize_pictures(images, size), (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
        )
    teachers(images, size=64)
    assert free.seen[-1].shape[2:] == (64, 64) and fixed.seen[-1].shape[2:] == (16, 16)
    assert [teachers.input_size(name, 34, 47) for name in ("free", "fixed")] == [(32, 48), (16, 16)]


def test_published_inputs():
    """ImageNet's statistics for all; whole patches from the top left, or scaled, with zeros below (paper notes, b)."""
    free, fixed = Spy(), Spy(native_size=(64, 64))
    teachers = LevelTeachers({"free": free, "fixed": fixed}, inputs="as_published")
    images = pictures(36, 48)
    shown = teachers(images)
    torch.testing.assert_close(free.seen[-1], normalised(images)[:, :, :32, :48])
    assert teachers.input_size("free", 36, 48) == (32, 48) and teachers.input_size("fixed", 36, 48) == (64, 64)
    padded = fixed.seen[-1]
    larger = F.interpolate(images, size=(48, 64), mode="bicubic", align_corners=False).clamp(0, 1)
    torch.testing.assert_close(padded[:, :, :48], normalised(larger), rtol=1e-5, atol=1e-5)
    assert padded[:, :, 48:].abs().max() < 1e-6
    assert shown["fixed"][LAST].shape[2:] == (8, 8)  # padding is not cut from the map
    torch.testing.assert_close(free.mean.flatten(), torch.tensor([0.4, 0.5, 0.6]))


def test_teachers_that_normalise_inside_keep_doing_so():
    spy = Spy(mean=(0, 0, 0), std=(1, 1, 1))
    LevelTeachers({"file": spy}, inputs="as_published")(pictures(32, 32))
    torch.testing.assert_close(spy.seen[-1], pictures(32, 32))


def test_published_statistics_reach_the_levels_of_a_vit():
    teacher = vit(4)
    shown = LevelTeachers({"t": teacher}, inputs="as_published")(pictures(33, 49))["t"]
    by_hand = copy.deepcopy(teacher)
    by_hand.mean, by_hand.std = (
        torch.tensor(x).view(1, 3, 1, 1) for x in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    )
    assert not torch.equal(by_hand.mean, teacher.mean)
    for level, values in enumerate(by_hand.intermediates(pictures(33, 49)[:, :, :32, :48], [0, 1, 2, 3])):
        torch.testing.assert_close(shown[level], values)


def test_letterbox_of_an_upright_picture_leaves_room_beside_it():
    colour = torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1)
    boxed = letterboxed(pictures(8, 4), (16, 16), colour)
    assert boxed.shape == (2, 3, 16, 16) and (boxed[:, :, :, 8:] == colour).all()
    assert letterboxed(pictures(8, 4), (8, 4), colour).equal(pictures(8, 4))


def test_large_maps_are_averaged_down():
    teacher = vit(4)
    full, limited = (LevelTeachers({"t": teacher}, max_grid=limit)(pictures())["t"] for limit in (None, 4))
    torch.testing.assert_close(limited[1], F.adaptive_avg_pool2d(full[1], (4, 4)))


def test_the_copy_of_teachers_looks_through_its_own_weights():
    teachers = LevelTeachers({"t": vit(4)})
    other = copy.deepcopy(teachers)
    with torch.no_grad():
        for weight in other.parameters():
            weight.zero_()
    assert not other(pictures())["t"][LAST].any() and teachers(pictures())["t"][LAST].any()


def test_half_precision_around_gives_float32():
    with torch.autocast("cpu", torch.bfloat16):
        shown = LevelTeachers({"t": vit(4)})(pictures())["t"]
    assert all(values.dtype == torch.float32 for values in shown.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"teachers": {}}, "at least one"),
        ({"depths": (0.5, 1.0)}, "4 ascending shares"),
        ({"depths": (0.5, 0.25, 0.75, 1.0)}, "4 ascending shares"),
        ({"inputs": "imagenet"}, "own or as_published"),
    ],
)
def test_impossible_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        LevelTeachers(**{"teachers": {"t": ToyEncoder()}, **change})


def test_tokens_that_are_no_grid_are_refused_by_name():
    class Odd(ToyEncoder):
        def __init__(self):
            super().__init__()
            block = nn.Sequential(nn.Linear(5, 5))
            self.model = nn.Sequential(block, copy.deepcopy(block))

        def _encode(self, images):
            features = super()._encode(images)
            self.model(features.tokens[:, :-1])
            return features

    with pytest.raises(ValueError, match="teacher 'odd' does not show its levels"):
        LevelTeachers({"odd": Odd()})


def test_a_real_file_teaches_its_last_level(shared):
    file = shared / "teachers" / "semantic_mobilenetv2_in1k.onnx"
    if not file.is_file():
        pytest.skip(f"no such teacher: {file}")
    pytest.importorskip("onnxruntime")
    teacher = load_encoder(f"onnx/{file}")
    shown = LevelTeachers({"file": teacher})(pictures(64, 64, count=1))["file"]
    assert shown.keys() == {LAST} and shown[LAST].shape[1] == teacher.patch_dim
