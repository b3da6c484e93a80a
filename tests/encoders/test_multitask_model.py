import math

import pytest
import torch

from eyespot.dense_tasks import dense_task
from eyespot.encoders import load_encoder
from eyespot.encoders.multitask import make_multitask_encoder
from multitask_tiny import PATHS, STEM, TASKS, pictures, tiny


@torch.no_grad()
def test_one_look_gives_every_level_and_every_answer():
    model, images = tiny(), pictures()
    levels = model.look(images)
    assert model.levels == (0, 1, 2, 3) and model.path_names == PATHS == model.active
    assert [level.shape for level in levels.stem] == [(2, 32, 4, 6)] * 4
    assert {name: [level.shape for level in maps] for name, maps in levels.paths.items()} == {
        name: [(2, 32, 4, 6)] * 4 for name in PATHS
    }
    answers = model.answer(levels, (64, 96))
    assert {name: answer.shape for name, answer in answers.items()} == {
        "segmentation": (2, 5, 64, 96),
        "normals": (2, 3, 64, 96),
        "depth": (2, 1, 64, 96),
    }
    again = model.predict(images)
    assert all(torch.equal(again[name], answer) for name, answer in answers.items())


@torch.no_grad()
def test_states_follow_the_recursion_with_the_class_token_until_the_taps():
    model, images = tiny(), pictures()
    vit, path = model.stem.model, model.paths["sam"]
    tokens = vit._pos_embed(vit.patch_embed((images - model.mean) / model.std))
    assert tokens.shape[1] == 1 + 4 * 6
    state = path.adapters[0](tokens)
    levels = model.look(images)
    for number, block in enumerate(vit.blocks):
        tokens = block(tokens)
        state = path.adapters[number + 1](state + tokens)
        stem, teacher = levels.stem[number], levels.paths["sam"][number]
        torch.testing.assert_close(stem.flatten(2).transpose(1, 2), tokens[:, 1:])
        torch.testing.assert_close(teacher.flatten(2).transpose(1, 2), path.norms[number](state[:, 1:]))
    torch.testing.assert_close(levels.summary, tokens[:, 0])


@torch.no_grad()
def test_adapters_see_the_class_token_and_only_chosen_blocks_are_tapped():
    model = tiny(spec=STEM.replace("depth=4", "depth=6"), levels=(0, 2, 3, 5))
    seen = []
    for adapter in model.paths["clip"].adapters:
        adapter.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape[1]))
    levels = model.look(pictures())
    assert seen == [1 + 4 * 6] * 7
    expected = model.stem.intermediates(pictures(), [0, 2, 3, 5])
    for found, level in zip(levels.stem, expected, strict=True):
        torch.testing.assert_close(found, level)


@torch.no_grad()
def test_as_an_encoder_it_shows_the_stem():
    model, images = tiny(), pictures()
    features, levels = model(images), model.look(images)
    torch.testing.assert_close(features.summary, levels.summary)
    torch.testing.assert_close(features.patches, levels.stem[-1])
    assert (model.summary_dim, model.patch_dim, model.stride) == (32, 32, 16)
    torch.testing.assert_close(model.stem(images).patches, features.patches)  # no final norm there either


@torch.no_grad()
def test_position_embeddings_follow_the_picture():
    model = tiny()
    for size in ((64, 64), (32, 112), (128, 48)):
        assert model.predict(pictures(1, size))["depth"].shape == (1, 1, *size)
    with pytest.raises(ValueError, match="multiples of 16"):
        model.predict(pictures(1, (60, 64)))
    with pytest.raises(ValueError, match="divide by 255"):
        model.look(255 * pictures())


@torch.no_grad()
def test_answers_are_settled_in_eval_mode_and_noisy_while_training():
    model, images = tiny(), pictures()
    assert torch.equal(model.predict(images)["depth"], model.predict(images)["depth"])
    levels = model.look(images)
    model.train()
    one, other = model.mixed(levels, "depth"), model.mixed(levels, "depth")
    assert not any(torch.equal(first, second) for first, second in zip(one, other, strict=True))


@torch.no_grad()
def test_every_task_and_level_has_its_own_router():
    model, images = tiny(), pictures()
    levels = model.look(images)
    assert {name: len(routers) for name, routers in model.routers.items()} == dict.fromkeys(TASKS, 4)
    weights = {task: model.weights(levels, task) for task in TASKS}
    assert not torch.allclose(weights["depth"][0], weights["normals"][0])
    for level, (found, share) in enumerate(zip(model.mixed(levels, "depth"), weights["depth"], strict=True)):
        experts = [levels.stem[level], *(levels.paths[name][level] for name in PATHS)]
        expected = sum(share[:, number, None, None, None] * expert for number, expert in enumerate(experts))
        torch.testing.assert_close(found, expected)
        assert share.shape == (2, 3)


@torch.no_grad()
def test_without_routers_everything_is_summed_alike_for_all_tasks():
    model, images = tiny(router="sum"), pictures()
    levels = model.look(images)
    assert not len(model.routers)
    for level, (one, other) in enumerate(
        zip(model.mixed(levels, "depth"), model.mixed(levels, "normals"), strict=True)
    ):
        assert torch.equal(one, other)
        torch.testing.assert_close(one, levels.stem[level] + sum(levels.paths[name][level] for name in PATHS))
    with pytest.raises(ValueError, match="no routers for 'depth'"):
        model.weights(levels, "depth")


@torch.no_grad()
@pytest.mark.parametrize("router", ["mor", "sum"])
def test_without_paths_heads_get_the_stem(router):
    model = tiny(paths=(), router=router)
    levels = model.look(pictures())
    assert not len(model.routers) and levels.paths == {}
    assert all(found is level for found, level in zip(model.mixed(levels, "depth"), levels.stem, strict=True))


def test_gradients_of_paths_reach_the_stem_and_no_other_path():
    model = tiny()
    levels = model.look(pictures())
    (levels.paths["clip"][1] * torch.randn(2, 32, 4, 6)).sum().backward()
    touched = {name.rsplit(".", 1)[0] for name, weight in model.named_parameters() if weight.grad is not None}
    assert {"stem.model.patch_embed.proj", "stem.model.blocks.0.attn.qkv", "stem.model.blocks.1.mlp.fc1"} <= touched
    assert {"paths.clip.adapters.0.down", "paths.clip.adapters.2.up", "paths.clip.norms.1"} <= touched
    assert not any(name.startswith(("paths.sam", "routers", "heads", "stem.model.blocks.2")) for name in touched)
    assert model.stem.model.blocks[0].attn.qkv.weight.grad.abs().sum() > 0


@torch.no_grad()
@pytest.mark.parametrize("router", ["mor", "sum"])
def test_paths_that_are_off_are_not_computed(router):
    model, images = tiny(router=router), pictures()
    before = model.predict(images)
    runs = []
    for name, path in model.paths.items():
        path.adapters[0].register_forward_hook(lambda module, inputs, output, name=name: runs.append(name))
    model.active = ["sam"]
    levels = model.look(images)
    off = model.answer(levels, (64, 96))
    assert runs == ["sam"] and list(levels.paths) == ["sam"] and model.active == ("sam",)
    part = model.trimmed()
    assert part.path_names == ("sam",) and model.path_names == PATHS
    trimmed = part.predict(images)
    for task, answer in off.items():
        assert not torch.allclose(answer, before[task])
        torch.testing.assert_close(trimmed[task], answer)
    model.active = ()
    stem_only = tiny(paths=(), router=router)
    stem_only.load_state_dict(
        {name: value for name, value in model.state_dict().items() if name[:5] in ("stem.", "heads")}
    )
    torch.testing.assert_close(model.predict(images), stem_only.predict(images))
    model.active = PATHS
    torch.testing.assert_close(model.predict(images), before)


@torch.no_grad()
def test_routers_share_out_the_weight_of_what_is_off():
    model, images = tiny(), pictures()
    all_on = model.weights(model.look(images), "depth")[2]
    model.active = ["sam"]
    some = model.weights(model.look(images), "depth")[2]
    kept = all_on[:, [0, 2]]
    torch.testing.assert_close(some, kept / kept.sum(1, keepdim=True))


@torch.no_grad()
def test_a_trimmed_model_is_a_copy_and_smaller():
    model = tiny()
    part = model.trimmed(["clip"], ["depth"])
    assert set(part.tasks) == {"depth"} == set(part.heads) == set(part.routers) and set(part.paths) == {"clip"}
    assert part.routers["depth"][0].experts == 2
    part.stem.model.cls_token.zero_()
    assert model.stem.model.cls_token.any()
    assert not len(model.trimmed((), ["depth"]).routers)
    with pytest.raises(ValueError, match="no task edges"):
        model.trimmed(tasks=["edges"])


@torch.no_grad()
def test_a_teacher_can_join_a_trained_model():
    model, images = tiny(), pictures()
    before, state = model.predict(images), {name: value.clone() for name, value in model.state_dict().items()}
    model.add_paths(["dinov2"])
    assert model.path_names == (*PATHS, "dinov2") == model.active
    for name, value in model.state_dict().items():
        if not name.startswith("paths.dinov2") and ".logits." not in name:
            assert torch.equal(value, state[name]), name
    for task, routers in model.routers.items():
        for level, router in enumerate(routers):
            old = state[f"routers.{task}.{level}.logits.weight"]
            assert torch.equal(router.logits.weight[:3], old[:3])
            assert torch.equal(router.logits.weight[4:7], old[3:])
    after, levels = model.predict(images), model.look(images)
    for task, answer in before.items():
        assert all((weights[:, 3] < math.exp(-4) / 3).all() for weights in model.weights(levels, task))
        assert 0 < (after[task] - answer).norm() < 0.05 * answer.norm()
    model.active = PATHS
    torch.testing.assert_close(model.predict(images), before)


@torch.no_grad()
def test_a_first_teacher_can_join_a_model_without_paths():
    model, images = tiny(paths=()), pictures()
    before = model.predict(images)
    model.add_paths(PATHS)
    assert all(len(routers) == 4 for routers in model.routers.values()) and not model.routers["depth"].training
    assert all((weights[:, 1:] < math.exp(-4)).all() for weights in model.weights(model.look(images), "depth"))
    model.active = ()
    torch.testing.assert_close(model.predict(images), before)


def test_tasks_can_be_added_after_a_stage_without_labels():
    model = tiny(tasks={})
    assert model.predict(pictures()) == {}
    state = {name: value.clone() for name, value in model.state_dict().items()}
    model.add_tasks({"boundary": dense_task("boundary")})
    assert model.predict(pictures())["boundary"].shape == (2, 1, 64, 96)
    assert len(model.routers["boundary"]) == 4
    assert all(torch.equal(model.state_dict()[name], value) for name, value in state.items())
    with pytest.raises(ValueError, match="two tasks called 'boundary'"):
        model.add_tasks({"boundary": dense_task("boundary")})


def test_weight_decay_leaves_out_what_the_stem_leaves_out():
    model = tiny()
    names = dict(model.named_parameters()).keys()
    assert model.no_weight_decay() & names == {"stem.model.pos_embed", "stem.model.cls_token"}


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("timm/resnet18", "no plain vision transformer"),
        ("timm/vit_tiny_patch16_dinov3_qkvb", "no plain vision transformer"),
        ("timm/vit_base_patch16_siglip_224?depth=4", "no class token"),
        ("timm/vit_tiny_patch16_224?depth=4&patch_drop_rate=0.5", "drops patches"),
        ("timm/vit_tiny_patch16_224?depth=3", "at least 4 blocks"),
    ],
)
def test_stems_that_are_none_are_refused(spec, reason):
    with torch.device("meta"):
        stem = load_encoder(spec, pretrained=False)
        with pytest.raises(ValueError, match=reason):
            make_multitask_encoder(stem, (), {})


def test_a_stem_loses_its_class_head():
    stem = load_encoder("timm/test_vit?pretrained=false&num_classes=7&depth=4")
    model = make_multitask_encoder(stem, (), {})
    assert model.num_classes == model.stem.num_classes == 0
    assert not any(name.startswith(("stem.model.head", "stem.model.norm.")) for name in model.state_dict())


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"paths": ("a", "a")}, "two paths called 'a'"),
        ({"paths": ("timm/vit.x",)}, "without dots"),
        ({"paths": ("stem",)}, "other than 'stem'"),
        ({"paths": ("keys",)}, "cannot be the name of a path"),
        ({"router": "top1"}, "'mor' or 'sum'"),
        ({"levels": (0, 1, 3)}, "4 numbers of blocks"),
        ({"levels": (0, 2, 1, 3)}, "ascending"),
        ({"levels": (0, 1, 2, 4)}, "the last block \\(3\\) last"),
    ],
)
def test_wrong_settings_say_what_would_be_right(options, reason):
    with pytest.raises(ValueError, match=reason):
        tiny(**options)


def test_unknown_paths_say_which_there_are():
    model = tiny()
    with pytest.raises(ValueError, match="no path dino; it has clip, sam"):
        model.active = ["dino"]
    with pytest.raises(ValueError, match="a list of names"):
        model.active = "clip"
