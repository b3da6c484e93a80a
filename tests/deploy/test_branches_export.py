"""What trains in branches leaves the house as one convolution each, fused beforehand or not."""

import pytest
import torch
from torch import nn

from eyespot.deploy.export import export
from eyespot.deploy.graph import exportable, trace
from eyespot.encoders import load_encoder
from eyespot.encoders.forms.branches import MultiBranchConv
from eyespot.randomness import torch_generator

SPECS = (
    "timm/ghostnetv3_050?pretrained=false",
    "timm/mobilenetv2_035?pretrained=false&branches=2",
    "python/eyespot.encoders.shufflenet:shufflenet_v2?width=0.5&branches=2",
)


def student(spec):
    """Batch norms as after training: statistics of what they saw, gains and shifts of their own."""
    encoder = load_encoder(spec).train()
    generator = torch_generator("norms")
    for norm in encoder.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 1.0
            nn.init.uniform_(norm.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(norm.bias, std=0.1, generator=generator)
    with torch.no_grad():
        encoder(torch.rand(4, 3, 64, 64, generator=generator))
    return encoder.eval()


def near(here, there):
    torch.testing.assert_close(here, there, rtol=0, atol=1e-4 * float(there.abs().max()))


@pytest.mark.parametrize("spec", SPECS[1:])
def test_the_graph_has_neither_branches_nor_norms(spec):
    encoder = student(spec)
    graph = trace(exportable(encoder), size=(64, 96))
    names = [str(node.target) for node in graph.program.graph.nodes if node.op == "call_function"]
    assert not [name for name in names if "batch_norm" in name]
    convolutions = sum(isinstance(part, nn.Conv2d) for part in encoder.run_time_form().modules())
    assert sum("conv2d" in name for name in names) == convolutions
    assert convolutions < sum(isinstance(part, nn.Conv2d) for part in encoder.modules())
    assert [part for part in encoder.modules() if isinstance(part, MultiBranchConv)]  # it stays as it was
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        summary, patches = graph.program.module()(images)
        there = encoder(images)
    near(summary, there.summary)
    near(patches, there.patches)


@pytest.mark.formats
def test_a_fused_student_is_exported_to_onnx_and_checked(tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    encoder = student(SPECS[0])
    exported = export(encoder.run_time_form(), "onnx", tmp_path / "onnx", image_size=64, say=lambda line: None)
    operators = [node.op_type for node in onnx.load(exported.file).graph.node]
    assert "BatchNormalization" not in operators and exported.check is not None
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        there, here = encoder(images), load_encoder(exported.spec)(images)
    near(here.summary, there.summary)
    near(here.patches, there.patches)
