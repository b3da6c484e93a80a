"""Entries of the sources that are files of the user's own: ONNX graphs, Python code, saved runs."""

from pathlib import Path

import torch

from eyespot.encoders import load_encoder, save_encoder
from eyespot.randomness import torch_generator

_OWN_CODE = """
import torch
from eyespot import Encoder, Features


class Eyes(Encoder):
    def __init__(self, width):
        super().__init__(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
        self.summary_dim = self.patch_dim = width
        self.stride, self.default_size = 16, (224, 224)
        self.license = "apache-2.0"
        self.embed = torch.nn.Conv2d(3, width, 16, 16)

    def _encode(self, images):
        patches = self.embed(images)
        return Features(patches.mean((2, 3)), patches)

    def intermediates(self, images, taps):
        self.check(images)
        return [self.embed((images - self.mean) / self.std) for _ in taps]


def make(width=32):
    return Eyes(width)
"""


def _python(folder: Path) -> str:
    (folder / "eyes.py").write_text(_OWN_CODE)
    return f"python/{folder}/eyes.py:make?width=24"


def _onnx(tokens: bool) -> Path:
    def write(folder: Path) -> str:
        """A convolution of stride 8 and its maxima; as a map by our contract, or as tokens with one before them."""
        import numpy as np
        import onnx
        from onnx import TensorProto, helper, numpy_helper

        kernel = torch.randn(12, 3, 8, 8, generator=torch_generator("kernel", tokens)).numpy()
        nodes = [
            helper.make_node("Conv", ["images", "kernel"], ["patches"], strides=[8, 8]),
            helper.make_node("ReduceMax", ["patches", "axes"], ["summary"], keepdims=0),
            helper.make_node("Reshape", ["patches", "flat"], ["flattened"]),
            helper.make_node("Transpose", ["flattened"], ["sequence"], perm=[0, 2, 1]),
            helper.make_node("Pad", ["sequence", "pads"], ["tokens"]),
        ]
        constants = {"kernel": kernel, "axes": [2, 3], "flat": [0, 12, -1], "pads": [0, 1, 0, 0, 0, 0]}
        size = [32, 48] if tokens else ["height", "width"]
        outputs = ("tokens",) if tokens else ("summary", "patches")
        graph = helper.make_graph(
            nodes,
            "one convolution",
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, *size])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        onnx.save(model, folder / "model.onnx")
        options = "?patches=tokens&summary=mean&prefix=1&mean=0.5,0.4,0.3&std=0.2,0.2,0.3" if tokens else ""
        return f"onnx/{folder}/model.onnx{options}"

    return write


def _run(folder: Path) -> str:
    spec = "timm/vit_tiny_patch16_dinov3_qkvb?depth=2&embed_dim=48&num_heads=3"
    save_encoder(load_encoder(spec, pretrained=False), folder / "student")
    return f"run/{folder}"


ENTRIES = {
    "onnx, a map": _onnx(tokens=False),
    "onnx, tokens of one size": _onnx(tokens=True),
    "python, a file": _python,
    "run, a student": _run,
}
