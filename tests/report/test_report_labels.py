import pytest

from eyespot.report.exhibits.labels import short_labels


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("onnx//data/a/depth.onnx?license=mit", "depth"),
        ("timm/vit_tiny_patch16_224.augreg", "vit_tiny_patch16_224.augreg"),
        ("run/runs/x/student", "x"),
        ("run//data/runs/x", "x"),
        ("run/student", "student"),
        ("run/x/stage-1-proxy/model", "stage-1-proxy"),
        ("python/teachers.py:what", "what"),
        ("hf/facebook/dinov2-small", "dinov2-small"),
        ("student, direct", "student, direct"),
        ("a/b", "a/b"),
        ("run/", "run/"),
    ],
)
def test_specs_become_short_and_other_names_stay(name, label):
    assert short_labels([name]) == {name: label}


def test_names_that_would_clash_stay_as_they_are():
    names = ["onnx/a/depth.onnx", "onnx/b/depth.onnx", "timm/x"]
    assert short_labels(names) == {names[0]: names[0], names[1]: names[1], "timm/x": "x"}
