"""What the int8 writers of several formats share: which layers are there, and which are better left in float."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import torch

from eyespot.deploy.graph import LAYERS, Graph

_TRANSFORMER_LIKE = (
    torch.ops.aten.layer_norm.default,
    torch.ops.aten.scaled_dot_product_attention.default,
    torch.ops.aten.softmax.int,
)


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


def check_layers(keep_float: Collection[str], known: Iterable[str]) -> None:
    """Refuses layers that are not there.

    Raises:
        ValueError: names them, and those that are there.
    """
    unknown = sorted(set(keep_float) - set(known))
    if unknown:
        raise ValueError(f"no layers {', '.join(unknown)} to keep in float; there are {', '.join(sorted(known))}")
