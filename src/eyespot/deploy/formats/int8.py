"""What the int8 writers of several formats share: which layers are there, and which are better left in float."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from eyespot.deploy.graph import LAYERS, Graph

_TRANSFORMER_LIKE = (
    torch.ops.aten.layer_norm.default,
    torch.ops.aten.scaled_dot_product_attention.default,
    torch.ops.aten.softmax.int,
)


class Int8Writer(Protocol):
    """What `write_int8` of a format is; each says for itself what it rounds how, and what stays in float and why."""

    def __call__(
        self,
        graph: Graph,
        file: Path,
        calibration: Sequence[Tensor],
        keep_float: Collection[str] = (),
        weights_only: bool = False,
    ) -> None:
        """Writes an int8 file.

        Args:
            graph: the encoder.
            file: what to write.
            calibration: batches [b, 3, H, W] in [0, 1] that fit the graph; 32 to 64 pictures like those of use will do.
            keep_float: further layers to leave in float32, by name, e.g. "encoder.model.blocks.0.attn.qkv".
            weights_only: store weights in int8, which needs no pictures, and compute in float.

        Raises:
            ImportError: a library is missing.
            ValueError: no calibration pictures, a layer that is not there, or what the format cannot do.
        """


def is_transformer(graph: Graph) -> bool:
    """Whether it has layer norms or attention (ConvNeXt too), whose sums must not be rounded to 8 bits."""
    return any(node.target in _TRANSFORMER_LIKE for node in graph.program.graph.nodes)


def first_layers(graph: Graph) -> set[str]:
    """Layers that read the picture itself, by name: patch embeddings, stems."""
    names = graph.layers
    found: set[str] = set()
    reached = {node for node in graph.program.graph.nodes if node.name in graph.program.graph_signature.user_inputs}
    for node in graph.program.graph.nodes:
        if any(source in reached for source in node.all_input_nodes):
            if node.target not in LAYERS:
                reached.add(node)
            elif node.name in names:
                found.add(names[node.name])
    return found


def check_pictures(calibration: Sequence[Tensor]) -> None:
    """Refuses to round activations whose ranges nobody can know.

    Raises:
        ValueError: there are no calibration pictures.
    """
    if not calibration:
        raise ValueError("int8 needs calibration pictures, unless only weights are rounded (weights_only)")


def check_layers(keep_float: Collection[str], known: Iterable[str]) -> None:
    """Refuses layers that are not there.

    Raises:
        ValueError: names them, and those that are there.
    """
    unknown = sorted(set(keep_float) - set(known))
    if unknown:
        raise ValueError(f"no layers {', '.join(unknown)} to keep in float; there are {', '.join(sorted(known))}")
