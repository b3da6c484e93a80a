"""ONNX files: what eyespot makes of a random graph is what ONNX Runtime says of the same pictures; damaged files, other
types and shapes are refused by name."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from fuzzing import Case, Wrong, damage
from onnx import TensorProto, helper, numpy_helper

from eyespot.encoders import load_encoder
from eyespot.features import Features

TYPES = {"float": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "uint8": TensorProto.UINT8}


def draw(rng: random.Random, folder: Path) -> Case:
    path = folder / "model.onnx"
    side = rng.choice((8, 16, 32))
    shape: list[Any] = [rng.choice(("batch", 1, 2)), 3, *rng.choice((("h", "w"), (64, 64), (64, "w"), (32, 64)))]
    if rng.random() < 0.15:
        shape = rng.choice(([1, 1, 32, 32], [1, 4, 32, 32], [3, 32, 32], [1, 32, 32, 3], ["n", "c", "h", "w"], []))
    kind = rng.choice(("float", "float", "float", "float", "float16", "uint8"))
    onnx.save(_graph(rng, shape, kind, side), path)
    harm = damage(path, rng) if rng.random() < 0.5 else ""
    options = rng.choice(
        ("", "", "?size=70", "?size=64", "?summary=mean", "?patches=nope", "?logits=true", "?prefix=1")
    )
    spec = f"onnx/{path}{options}"
    sound = not harm and kind == "float" and shape[1:2] == [3] and options in ("", "?size=64", "?summary=mean")

    def act() -> tuple[torch.Tensor, Features]:
        encoder = load_encoder(spec)
        images = torch.rand(2, 3, *encoder.default_size, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            return images, encoder(images)

    def judge(found: tuple[torch.Tensor, Features], warned: list[str]) -> None:
        images, features = found
        if not harm and kind == "float" and options in ("", "?size=64", "?summary=mean"):
            patches = _other_opinion(path, images)
            if features.patches.shape != patches.shape or not np.allclose(features.patches, patches, atol=1e-5):
                raise Wrong("other patches")

    words = f"{shape} {kind} stride {side} {options} {harm}"
    return Case(words, act, [str(path)], judge, may_refuse=not sound or "w" in shape)


def _graph(rng: random.Random, shape: list[Any], kind: str, stride: int) -> onnx.ModelProto:
    """A convolution of some stride, perhaps with more behind it, and its mean."""
    weights = np.random.default_rng(rng.randrange(2**32)).normal(size=(5, 3, stride, stride)).astype(np.float32)
    nodes, name = [], "images"
    if kind != "float":
        nodes, name = [helper.make_node("Cast", ["images"], ["cast"], to=TensorProto.FLOAT)], "cast"
    nodes.append(helper.make_node("Conv", [name, "weights"], ["convolved"], strides=[stride, stride]))
    behind = rng.choice(("Identity", "Relu", "Tanh", "Sigmoid"))
    nodes += [
        helper.make_node(behind, ["convolved"], ["patches"]),
        helper.make_node("ReduceMean", ["patches", "axes"], ["summary"], keepdims=0),
    ]
    constants = {"weights": weights, "axes": np.array([2, 3])}
    graph = helper.make_graph(
        nodes,
        "fuzz",
        [helper.make_tensor_value_info("images", TYPES[kind], shape)],
        [helper.make_tensor_value_info(each, TensorProto.FLOAT, None) for each in ("summary", "patches")],
        [numpy_helper.from_array(value, each) for each, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def _other_opinion(path: Path, images: torch.Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    batch = session.get_inputs()[0].shape[0]
    count = batch if isinstance(batch, int) else len(images)
    parts = [session.run(["patches"], {"images": part.numpy()})[0] for part in images.split(count)]
    return np.concatenate(parts)
