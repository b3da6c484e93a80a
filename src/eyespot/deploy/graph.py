"""Graph: an encoder as every export format takes it, traced, simplified and with its facts."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

import eyespot
from eyespot.deploy.exportable import Exportable
from eyespot.deploy.simplify import simplify
from eyespot.encoders import Encoder
from eyespot.encoders.forms.branches import MultiBranchConv
from eyespot.encoders.forms.fusing import merge_branches
from eyespot.encoders.identity import weights_hash

LAYERS = (torch.ops.aten.linear.default, torch.ops.aten.conv2d.default, torch.ops.aten.conv2d.padding)
"""The operators with weights, as their second argument, that may be rounded to 8 bits."""


@dataclass(frozen=True)
class Graph:
    """An encoder, ready for any export format.

    Attributes:
        program: one input `images` [B, 3, H, W], float32 RGB in [0, 1]; a flat tuple of outputs in the order of
            `names`. Normalisation is inside. What depends on weights and sizes alone is a constant.
        names: names of the outputs; see `Exportable`.
        batch: how many pictures it takes, None for any number.
        size: (height, width) in pixels that it takes, None for any multiple of `stride`.
        stride: pixels per patch.
        facts: what is written inside the file: `name`, `license`, `hash` of the weights, and `eyespot`, all of it as
            JSON.
    """

    program: ExportedProgram
    names: tuple[str, ...]
    batch: int | None
    size: tuple[int, int] | None
    stride: int
    facts: dict[str, str]

    def example(self) -> Tensor:
        """Noise that the graph takes; the same every time."""
        return _example(self.batch, self.size, self.stride)

    @property
    def layers(self) -> dict[str, str]:
        """Layers by the names of the nodes that use their weights: {"linear_1": "encoder.model.blocks.0.attn.qkv"}."""
        signature = self.program.graph_signature
        tensors = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        found = {}
        for node in self.program.graph.nodes:
            if node.target in LAYERS and node.args[1].name in tensors:
                found[node.name] = tensors[node.args[1].name].removesuffix(".weight")
        return found


def exportable(encoder: Encoder, layers: Sequence[int] = (), space: str | None = None, **zero_shot: Any) -> Exportable:
    """An encoder with all outputs that are wanted, in the form in which it runs best.

    Models that train with more branches than they run with (FastViT, MobileOne, RepVGG, GhostNetV3, all of
    `add_branches`) get their run-time form; multi-task models leave out the paths that are off. The encoder itself is
    not changed.

    Args:
        encoder: any encoder that computes in torch.
        layers: see `Exportable`.
        space: see `Exportable`.
        zero_shot: `text` and `text_space`, see `Exportable`.

    Raises:
        ValueError: a file of another runtime, which is exported already; see also `Exportable`.
    """
    encoder = encoder.export_form()
    if any(isinstance(part, MultiBranchConv) for part in encoder.modules()):
        encoder = merge_branches(encoder)
    return Exportable(encoder, layers, space, **zero_shot).float().cpu()


def trace(module: Exportable, *, batch: int | None = 1, size: tuple[int, int] | None = None) -> Graph:
    """Traces and simplifies.

    Args:
        module: see `exportable`.
        batch: how many pictures; None leaves it open.
        size: (height, width) in pixels; None leaves it open, if the encoder takes more than one.

    Raises:
        ValueError: a size that the encoder cannot take, or a model that cannot be traced; says why.
    """
    encoder = module.encoder
    size = size or encoder.native_size
    problem = encoder.size_error(*size) if size else None
    if problem:
        raise ValueError(f"{encoder.name} {problem}")
    images, dynamic = _example(batch, size, encoder.stride), _dynamic_shapes(batch, size)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The tensor attributes")  # caches of constants; torch puts them back
            program = torch.export.export(module, (images,), dynamic_shapes=dynamic, strict=False)
            program = torch.export.export(simplify(program), (images,), dynamic_shapes=dynamic and (dynamic["images"],))
    except Exception as error:  # torch.export fails in many ways, most of them RuntimeErrors of many lines
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        open_ = "" if size and batch else "; perhaps a fixed size and batch can be traced"
        raise ValueError(f"{encoder.name} cannot be traced by torch.export: {reason}{open_}") from error
    return Graph(program, module.names, batch, size, encoder.stride, _facts(module, program, batch, size))


def _example(batch: int | None, size: tuple[int, int] | None, stride: int) -> Tensor:
    height, width = size or (4 * stride, 4 * stride)
    return torch.rand(batch or 2, 3, height, width, generator=torch.Generator().manual_seed(0))


def _dynamic_shapes(batch: int | None, size: tuple[int, int] | None) -> dict[str, Any] | None:
    """Which sides are open. Not as multiples of the stride: torch would fix those when it rewrites the graph."""
    dims = {0: Dim.DYNAMIC} if batch is None else {}
    if size is None:
        dims |= {2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    return {"images": dims} if dims else None


def _facts(
    module: Exportable, program: ExportedProgram, batch: int | None, size: tuple[int, int] | None
) -> dict[str, str]:
    encoder = module.encoder
    nodes = next(node for node in program.graph.nodes if node.op == "output").args[0]
    shapes = [[side if isinstance(side, int) else None for side in node.meta["val"].shape] for node in nodes]
    everything: dict[str, Any] = {
        "eyespot": eyespot.__version__,
        "model": encoder.name,
        "built_from": encoder.origin,
        "architecture": encoder.architecture,
        "model_args": encoder.model_args,
        "hash": weights_hash(encoder),
        "license": encoder.license,
        "terms": encoder.terms.label,
        "teachers": encoder.lineage,
        "input": {
            "name": "images",
            "shape": [batch, 3, *(size or (None, None))],
            "meaning": "RGB in [0, 1], [batch, 3, height, width]; normalisation is inside",
            "mean": encoder.mean.flatten().tolist(),
            "std": encoder.std.flatten().tolist(),
            **(
                {} if encoder.channel_order == "rgb" else {"channel_order": f"turned to {encoder.channel_order} inside"}
            ),
        },
        "outputs": dict(zip(module.names, shapes, strict=True)),
        "stride": encoder.stride,
        "tasks": {name: asdict(task) for name, task in encoder.tasks.items()},
        "paths": encoder.setting().get("active"),
        "classes": module.classes,
        "class_names": encoder.class_names,
    }
    facts = {"name": encoder.name, "hash": str(everything["hash"]), "eyespot": json.dumps(everything)}
    return {**facts, "license": encoder.license} if encoder.license else facts
