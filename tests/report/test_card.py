import torch
import yaml
from huggingface_hub import ModelCard

from eyespot.encoders import load_encoder
from eyespot.encoders.base import Encoder
from eyespot.evaluate.results import Column, Metric, ResultTable
from eyespot.features import Features
from eyespot.report import describe, machine_info, model_card


class Pooling(Encoder):
    name, summary_dim, patch_dim, stride = "python/somewhere:Pooling", 3, 3, 8
    native_size, default_size, license = (32, 32), (32, 32), "mit"

    def _encode(self, images):
        patches = torch.nn.functional.avg_pool2d(images, 8)
        return Features(patches.mean((2, 3)), patches)


def teacher(name, licence):
    return {
        "name": name,
        "licence": licence,
        "summary_dim": 8,
        "patch_dim": 4,
        "stride": 16,
        "parameters": 1_200_000,
    }


def header_of(card):
    _, header, body = card.split("---\n", 2)
    return yaml.safe_load(header), body


def test_a_card_of_a_timm_student():
    student = load_encoder("timm/test_vit?pretrained=false")
    column = Column("k-NN", Metric("accuracy"))
    card = model_card(
        student,
        title="tiny",
        summary="Two experts in one.",
        teachers=[teacher("timm/a|b", "apache-2.0"), teacher("onnx/c.onnx", "cc-by-nc-4.0")],
        results=ResultTable([column], {"student": {column.key: 0.5}, "expert": {column.key: 0.75}}),
        data=["toybox:8192"],
        config_hash="abc123",
        machine=machine_info(),
    )
    header, body = header_of(card)
    assert header["license"] == "cc-by-nc-4.0"
    assert header["library_name"] == "timm"
    assert "knowledge-distillation" in header["tags"]
    assert "may not be used commercially" in body
    assert "| timm/a\\|b | apache-2.0 | commercial use | 1.2 M | 8 | 4 | 16 |" in body
    for place in ("hf-hub:USER/REPO", "local-dir:path/to/this/folder"):
        assert f'timm.create_model("{place}", pretrained=True)' in body
    for place in ("hf/USER/REPO", "run/path/to/this/folder"):
        assert f'eyespot.load_encoder("{place}")' in body
    for words in ("# tiny", "Two experts in one.", "**75.0**", "toybox:8192", "abc123", "torch 2"):
        assert words in body
    assert f"or any multiple of {student.stride} pixels" in body or "that size only" in body


def test_the_hub_reads_the_header():
    student = load_encoder("timm/test_vit?pretrained=false")
    teachers = [teacher("timm/a", "mit"), teacher("hf/b", "dinov3-license")]
    card = model_card(student, title="tiny", summary="Two: experts in one.", teachers=teachers)
    header, body = header_of(card)
    read = ModelCard(card)
    assert read.data.to_dict() == header and read.text.strip() == body.strip()
    assert (read.data.license, read.data.license_name) == ("other", "dinov3-license")
    assert read.data.license_link.startswith("https://")
    assert (read.data.library_name, read.data.pipeline_tag) == ("timm", "image-feature-extraction")
    # teachers are not what the weights were tuned from, and there is nothing for a widget to show
    assert not header.keys() & {"base_model", "widget"}


def test_a_card_of_another_student_says_nothing_of_timm():
    header, body = header_of(model_card(Pooling(), title="pooling", summary="Means.", teachers=[]))
    assert header == {
        "license": "unknown",
        "library_name": "eyespot",
        "pipeline_tag": "image-feature-extraction",
        "tags": ["eyespot", "knowledge-distillation", "vision-encoder"],
    }
    assert "timm" not in body
    assert "hf/USER/REPO" not in body and "built by code that is not in this folder" in body
    assert "32 x 32 pixels, that size only" in body
    for absent in ("Results", "Training pictures", "Teachers and their licences", "How it was made"):
        assert f"## {absent}" not in body


def test_describe_states_the_facts_of_an_encoder():
    student = load_encoder("timm/test_vit?pretrained=false")
    facts = describe(student)
    assert facts["parameters"] == sum(weight.numel() for weight in student.parameters())
    assert (facts["name"], facts["licence"], facts["stride"]) == (student.name, student.license, student.stride)
    assert describe(Pooling())["parameters"] == 0
