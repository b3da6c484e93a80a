import pytest

import eyespot
from eyespot.encoders import SOURCES, load_encoder


def test_it_is_at_the_front_of_the_package():
    assert eyespot.load_encoder is load_encoder


@pytest.mark.parametrize("spec", ["resnet18", "", "timm", "timm/", "/timm/x", "xyz/abc", "?pretrained=false"])
def test_a_spec_without_a_known_source_lists_the_sources(spec):
    with pytest.raises(ValueError, match="names no model") as refusal:
        load_encoder(spec)
    assert all(prefix in str(refusal.value) for prefix in SOURCES)


@pytest.mark.parametrize(("spec", "near"), [("tim/x", "timm"), ("onx/a.onnx", "onnx"), ("pyton/a:b", "python")])
def test_a_misspelt_source_gets_the_nearest(spec, near):
    with pytest.raises(ValueError, match=f"did you mean {near}/"):
        load_encoder(spec)


@pytest.mark.parametrize("spec", ["onnx/a.onnx", "python/a:b"])
def test_weights_go_with_models_that_have_a_separate_file(spec):
    with pytest.raises(ValueError, match="weights="):
        load_encoder(spec, weights="w.pt")


OWN = """
from eyespot import Encoder
class Own(Encoder):
    summary_dim = patch_dim = stride = 1
    default_size = (1, 1)
    def _encode(self, images): ...
def make(**options):
    encoder = Own()
    encoder.options = options
    return encoder
"""


@pytest.mark.parametrize(
    ("query", "options"),
    [
        ("a=true&b=False", {"a": True, "b": False}),
        ("a=3&b=-0.5&c=1e-3", {"a": 3, "b": -0.5, "c": 1e-3}),
        ("a=1,2,3&b=0.5,x", {"a": (1, 2, 3), "b": (0.5, "x")}),
        ("a=apache-2.0&b=a/b:c", {"a": "apache-2.0", "b": "a/b:c"}),
        ("a=", {"a": ""}),
    ],
)
def test_options_have_types_and_stay_in_the_name(tmp_path, query, options):
    (tmp_path / "own.py").write_text(OWN)
    spec = f"python/{tmp_path / 'own.py'}:make"
    encoder = load_encoder(f"{spec}?{query}")
    assert encoder.options == options
    assert load_encoder(encoder.name).options == options  # the name says everything that is needed to build it again
    assert load_encoder(spec, **options).name == encoder.name
    assert load_encoder(spec).name == spec


def test_a_keyword_wins_over_the_spec(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    encoder = load_encoder(f"python/{tmp_path / 'own.py'}:make?a=1&b=2", b=3)
    assert encoder.options == {"a": 1, "b": 3}


def test_encoders_come_in_eval_mode():
    assert not load_encoder("timm/test_vit", pretrained=False).training
