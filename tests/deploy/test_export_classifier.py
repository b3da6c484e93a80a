"""Encoders with a class head, exported and loaded again."""

import json

import pytest
import torch
from safetensors.torch import load_file

from eyespot.deploy import export
from eyespot.encoders import load_classifier, load_encoder

NAMES = ["ant", "bee", "cat", "dog"]
LIBRARY = {"onnx": "onnxruntime", "openvino": "openvino", "torch": "torch"}


def quiet(text):
    del text


@torch.no_grad()
@pytest.mark.parametrize("format", LIBRARY)
def test_a_classifier_goes_out_with_its_logits_and_comes_back(tmp_path, format):
    pytest.importorskip(LIBRARY[format], reason=f"{format} is not installed")
    encoder = load_classifier("timm/test_vit?pretrained=false", 4, NAMES)
    done = export(encoder, format, tmp_path / "out", image_size=64, batch=2, say=quiet)
    assert {entry.output for entry in done.check.agreements} == {"summary", "patches", "logits"} and done.check.passed
    images = torch.rand(3, 3, 64, 64)
    loaded = load_classifier(done.spec)
    assert (loaded.num_classes, loaded.class_names) == (4, NAMES)
    torch.testing.assert_close(loaded(images).logits, encoder(images).logits, rtol=1e-3, atol=1e-4)
    assert load_encoder(done.spec)(images).logits is None
    facts = json.loads((done.folder / "export.json").read_text())
    assert facts["class_names"] == NAMES and facts["outputs"]["logits"] == [2, 4] and facts["classes"] is None
    assert load_file(done.folder / "reference.safetensors")["logits"].shape == (2, 4)


def test_without_head_there_is_no_such_output(tmp_path):
    done = export("timm/test_vit?pretrained=false", "torch", tmp_path / "out", image_size=64, say=quiet)
    assert {entry.output for entry in done.check.agreements} == {"summary", "patches"}
    with pytest.raises(
        ValueError, match="no output logits or log_probs, so it is no classifier; it has summary, patch"
    ):
        load_classifier(done.spec)
