"""Operations of ONNX graphs: by hand, and against the same model in torch."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from eyespot.flops import flop_counter
from eyespot.plan.onnx_flops import onnx_forward_flops, onnx_parameters


def small_cnn() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, stride=2), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=4))


HAND_COUNT = 2 * (16 * 16 * 8 * 3 * 9 + 16 * 16 * 8 * 2 * 9)
"""Pictures of 32 pixels, 16 x 16 places: 8 outputs of 3 x 9 inputs each, then 8 outputs of 2 x 9."""


def test_a_small_cnn_by_hand_in_torch() -> None:
    with flop_counter() as counter, torch.no_grad():
        small_cnn()(torch.randn(1, 3, 32, 32))
    assert counter.get_total_flops() == HAND_COUNT


def test_a_small_cnn_by_hand_in_onnx(tmp_path: Path) -> None:
    file = export(small_cnn(), tmp_path / "cnn.onnx", 32)
    assert onnx_forward_flops(file, (32, 32)) == HAND_COUNT
    assert onnx_parameters(file) == 3 * 8 * 9 + 8 + 2 * 8 * 9 + 8


def test_a_file_that_is_written_anew_is_counted_anew(tmp_path: Path) -> None:
    file = export(small_cnn(), tmp_path / "cnn.onnx", 32)
    before = onnx_forward_flops(file, (32, 32))
    export(nn.Sequential(small_cnn(), nn.Identity(), nn.Conv2d(8, 8, 1, bias=False)), file, 32)
    assert onnx_forward_flops(file, (32, 32)) > before


# ONNX graphs against their twins in torch


class TransposedAndGemm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(3, 6, 2, stride=2, groups=3)
        self.head = nn.Linear(6, 11)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.up(images).mean((2, 3)))


@pytest.mark.parametrize("model", [TransposedAndGemm(), small_cnn()], ids=["transposed", "cnn"])
def test_onnx_count_equals_torch(tmp_path: Path, model: nn.Module) -> None:
    with flop_counter() as counter, torch.no_grad():
        model(torch.randn(1, 3, 32, 32))
    assert onnx_forward_flops(export(model, tmp_path / "model.onnx", 32), (32, 32)) == counter.get_total_flops()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "test_convnext", "test_efficientnet"])
def test_onnx_count_of_models_equals_torch(tmp_path: Path, name: str) -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model(name, num_classes=0).eval()
    side = model.pretrained_cfg["input_size"][1]
    with flop_counter() as counter, torch.no_grad():
        model(torch.randn(1, 3, side, side))
    assert onnx_forward_flops(export(model, tmp_path / "model.onnx", side), (side, side)) == counter.get_total_flops()


def test_onnx_count_grows_with_an_open_size(tmp_path: Path) -> None:
    file = export(small_cnn(), tmp_path / "open.onnx", 32, dynamic=True)
    assert onnx_forward_flops(file, (64, 32)) == 2 * onnx_forward_flops(file, (32, 32)) == 2 * HAND_COUNT


def test_onnx_count_refuses_shapes_it_cannot_tell(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    graph = helper.make_graph(
        [
            helper.make_node("NonZero", ["images"], ["where"]),
            helper.make_node("Cast", ["where"], ["floats"], to=onnx.TensorProto.FLOAT),
            helper.make_node("Transpose", ["floats"], ["rows"], perm=[1, 0]),
            helper.make_node("MatMul", ["floats", "rows"], ["summary"]),
        ],
        "g",
        [helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("summary", onnx.TensorProto.FLOAT, None)],
    )
    file = tmp_path / "unknown.onnx"
    onnx.save(helper.make_model(graph), file)
    with pytest.raises(ValueError, match=r"cannot be told.*fixed picture size"):
        onnx_forward_flops(file, (8, 8))


def export(model: nn.Module, file: Path, side: int, dynamic: bool = False) -> Path:
    pytest.importorskip("onnxscript")
    options: dict[str, Any] = {}
    if dynamic:
        height, width = torch.export.Dim("height", min=2, max=4096), torch.export.Dim("width", min=2, max=4096)
        options = {"dynamic_shapes": ({2: height, 3: width},)}
    torch.onnx.export(model.eval(), (torch.randn(1, 3, side, side),), file, dynamo=True, verbose=False, **options)
    return file
