"""Nothing that teaches, is measured or is exported has weights that were made up at its start."""

import warnings

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from eyespot.deploy import export
from eyespot.deploy.benchmark.loading import seeded_encoder
from eyespot.distill.committee import load_committee
from eyespot.distill.warm_start import new_encoder
from eyespot.encoders import HeadedEncoder, load_classifier, load_encoder, save_encoder
from eyespot.encoders.frozen import load_frozen, load_teacher_model
from eyespot.evaluate import evaluate
from eyespot.report.pages.sheet import visualize_files

HUBCONF = """
import torch
from eyespot import Encoder, Features

class Eyes(Encoder):
    def __init__(self):
        super().__init__()
        self.summary_dim, self.patch_dim, self.stride, self.default_size = 4, 4, 8, (16, 16)
        self.first, self.last = torch.nn.Conv2d(3, 4, 8, 8), torch.nn.Conv2d(4, 4, 1)

    def _encode(self, images):
        maps = self.last(self.first(images))
        return Features(maps.mean((2, 3)), maps)

def eyes(whole):
    model = Eyes()
    state = Eyes().state_dict()
    if not whole:
        state = {key: value for key, value in state.items() if not key.startswith("last.w")}
    model.load_state_dict(state, strict=False)
    return model
"""


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """timm's own file of a classifier of 1000 classes."""
    file = tmp_path_factory.mktemp("released") / "model.safetensors"
    state = timm.create_model("test_vit", num_classes=1000).state_dict()
    save_file({key: value.contiguous() for key, value in state.items()}, file)
    return file


HEAD = r"come without a class head of 2 outputs, which would be random.*run/FOLDER"


def verbs(spec, folder):
    Image.new("RGB", (32, 32)).save(folder / "a.png")
    return {
        "committees": lambda: load_committee([spec]),
        "evaluate": lambda: evaluate([spec], ["knn"], "toybox:8@32"),
        "export": lambda: export(spec, "torch", folder / "export"),
        "benchmark": lambda: seeded_encoder(spec),
        "classifiers": lambda: load_teacher_model(spec, load_classifier),
        "visualize": lambda: visualize_files([spec], [folder / "a.png"], folder / "sheet.png"),
    }


@pytest.mark.parametrize("verb", ["committees", "evaluate", "export", "benchmark", "classifiers", "visualize"])
def test_a_head_that_the_weights_do_not_have_is_refused(released, verb, tmp_path):
    with pytest.raises(ValueError, match=HEAD):
        verbs(f"timm/test_vit?weights={released}&num_classes=2", tmp_path)[verb]()


def test_the_head_that_the_weights_have_is_taken(released):
    for option in ("", "&num_classes=1000"):
        model = load_frozen(f"timm/test_vit?weights={released}{option}", load_classifier)
        assert model.num_classes == 1000 and model.made_up == ()
    assert load_frozen(f"timm/test_vit?weights={released}").num_classes == 0


def test_a_linear_head_on_a_file_is_refused_too(tmp_path):
    save_encoder(load_encoder("timm/test_vit?pretrained=false"), tmp_path / "saved")
    with pytest.raises(ValueError, match=HEAD):
        load_frozen(f"run/{tmp_path}/saved?num_classes=2", load_classifier)


def test_once_trained_and_saved_a_head_is_as_good_as_any(released, tmp_path):
    student = new_encoder(f"timm/test_vit?weights={released}", 0, "student", lambda spec: load_classifier(spec, 2))
    assert student.made_up == ("a class head of 2 outputs",)
    headed = HeadedEncoder(load_encoder(f"timm/test_vit?weights={released}"), 2)
    for place, model in (("own", student), ("linear", headed)):
        save_encoder(model, tmp_path / place)
        assert load_frozen(f"run/{tmp_path / place}").num_classes == 2


def test_weights_that_a_repository_forgave_are_named(tmp_path):
    (tmp_path / "hubconf.py").write_text(HUBCONF)
    assert load_frozen(f"torchhub/{tmp_path}:eyes?whole=true").made_up == ()
    spec = f"torchhub/{tmp_path}:eyes?whole=false"
    assert load_encoder(spec).made_up == ("last.weight",)
    with pytest.raises(ValueError, match=r"come without last\.weight, which would be random"):
        load_frozen(spec)
    file = tmp_path / "all.safetensors"
    save_file(load_encoder(spec).state_dict(), file)
    assert load_frozen(f"{spec}&weights={file}").made_up == ()


def test_watching_leaves_torch_as_it_was():
    before = nn.Module.load_state_dict
    with pytest.raises(ValueError, match="timm has no model"):
        load_encoder("timm/nothing_of_that_name")
    assert nn.Module.load_state_dict is before


def test_random_weights_by_the_specs_own_word_are_told_of_and_taken():
    with pytest.warns(UserWarning, match=r"teacher timm/test_vit\?pretrained=false has random weights"):
        load_committee(["timm/test_vit?pretrained=false"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_frozen("timm/test_vit?pretrained=false&num_classes=3", load_classifier)


def test_two_starts_would_have_been_two_teachers(released):
    """What is refused, and why."""
    first, second = (load_encoder(f"timm/test_vit?weights={released}&num_classes=2") for _ in range(2))
    with torch.no_grad():
        images = torch.rand(1, 3, *first.default_size)
        assert not torch.equal(first(images).logits, second(images).logits)
