"""Which layers int8 hurts: measured once, in torch, for all formats; and what to keep in float because of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from eyespot.deploy.graph import LAYERS, Graph

LEVELS = 255  # steps between the smallest and the largest 8-bit activation
LARGEST = 127  # of a symmetric 8-bit weight

_Range = tuple[float, float]
_NodeValues = dict[fx.Node, Any]


@dataclass(frozen=True)
class Layer:
    """A linear layer or convolution, and what it costs to compute it, and nothing else, in int8.

    Attributes:
        name: its weight's name in the graph without ".weight", e.g. "encoder.model.blocks.0.attn.qkv"; what
            `keep_float` of a format's `write_int8` takes.
        damage_summary: 1 - mean cosine between the summaries in int8 and in float; 0 for no damage.
        damage_patches: the same for patches, over all positions.
    """

    name: str
    damage_summary: float
    damage_patches: float

    @property
    def damage(self) -> float:
        """The worse of the two."""
        return max(self.damage_summary, self.damage_patches)


@torch.no_grad()
def rank_layers(
    graph: Graph, pictures: Sequence[Tensor], progress: Callable[[int, int], None] | None = None
) -> list[Layer]:
    """Measures what each layer costs when it alone is computed in int8.

    Weights are rounded to symmetric int8 with one scale per output channel, the layer's input to 8 bits with one scale
    and zero point, from the smallest to the largest value seen in all pictures (and zero). Runtimes differ from this in
    detail: how they choose ranges, what else they round. So it ranks layers; it does not predict a file's error. The
    work is two passes in float and, for each layer, the part of a pass that comes after it.

    Args:
        graph: what will be exported.
        pictures: batches [b, 3, H, W] in [0, 1] that fit the graph; eight pictures tell the bad layers from the others.
        progress: called with (batches done, batches in all).

    Returns:
        All layers, the most hurtful first.

    Raises:
        ValueError: no pictures.
    """
    if not pictures:
        raise ValueError("there are no pictures to measure layers on")
    # Decomposing nothing still takes out in-place operations, which would reach from one branch into another.
    walk = _Walk(graph.program.run_decompositions({}).module(check_guards=False))
    at_summary, at_patches = graph.names.index("summary"), graph.names.index("patches")
    ranges: dict[fx.Node, _Range] = {}
    plain = [walk.plain(images, ranges) for images in pictures]
    found: dict[str, list[tuple[float, float]]] = {}
    for done, (images, expected) in enumerate(zip(pictures, plain, strict=True), start=1):
        for name, outputs in walk.branches(images, ranges):
            summary, patches = (_cosine(outputs[at], expected[at]) for at in (at_summary, at_patches))
            found.setdefault(name, []).append((summary, patches))
        if progress is not None:
            progress(done, len(pictures))
    return sorted((_layer(*entry) for entry in found.items()), key=lambda layer: layer.damage, reverse=True)


def fallback(
    quantise: Callable[[Collection[str]], float], ranking: Sequence[Layer], target: float, most: int
) -> list[str]:
    """Keeps as few layers in float as it takes: none, then the 1, 2, 4, 8 ... most hurtful ones, `most` at last.

    Doubling finds a sufficient number in a few conversions and is at most twice too generous.

    Args:
        quantise: converts with these layers in float and returns how near the result is to the original, the larger
            the nearer; a mean cosine, say.
        ranking: of `rank_layers`.
        target: what is near enough.
        most: layers to keep in float at most; 0 allows no fallback.

    Returns:
        The layers that are in float in the last conversion. If no number of layers reaches the target, that is a
        repetition of the nearest one: layers that buy nothing stay in int8.
    """
    order = [layer.name for layer in sorted(ranking, key=lambda layer: layer.damage, reverse=True)]
    counts = [0]
    while counts[-1] < min(most, len(order)):
        counts.append(min(max(1, 2 * counts[-1]), most, len(order)))
    reached: dict[int, float] = {}
    for count in counts:
        reached[count] = quantise(order[:count])
        if reached[count] >= target:
            return order[:count]
    best = max(counts, key=lambda count: reached[count])
    if best != counts[-1]:
        quantise(order[:best])
    return order[:best]


class _Walk:
    """Runs a graph node by node, so that it can branch off at each layer."""

    def __init__(self, module: fx.GraphModule) -> None:
        self.interpreter = fx.Interpreter(module)
        self.nodes = list(module.graph.nodes)
        self.layers = {node: name for node in self.nodes if (name := _layer_name(node)) is not None}

    def plain(self, images: Tensor, ranges: dict[fx.Node, _Range]) -> Sequence[Tensor]:
        """The outputs in float. `ranges` grows to hold what went into each layer."""
        values: _NodeValues = {}
        for node in self.nodes:
            if node in self.layers:
                low, high = (float(value) for value in values[_input(node)].aminmax())
                before = ranges.get(node, (0.0, 0.0))
                ranges[node] = (min(low, before[0]), max(high, before[1]))
            self._step(values, node, images)
        return _outputs(values)

    def branches(self, images: Tensor, ranges: dict[fx.Node, _Range]) -> Iterator[tuple[str, Sequence[Tensor]]]:
        """For each layer its name and the outputs with it in int8."""
        values: _NodeValues = {}
        met: set[str] = set()
        for number, node in enumerate(self.nodes):
            name = self.layers.get(node)
            if name is not None and name not in met:
                met.add(name)
                branch = dict(values)
                for further in self.nodes[number:]:
                    in_int8 = self.layers.get(further) == name  # a weight may serve in several places
                    self._step(branch, further, images, ranges[further] if in_int8 else None)
                yield name, _outputs(branch)
            self._step(values, node, images)

    def _step(self, values: _NodeValues, node: fx.Node, images: Tensor, int8: _Range | None = None) -> None:
        """Computes one node, and forgets what no later node needs."""
        self.interpreter.env = values
        if node.op == "placeholder":
            values[node] = images
        elif int8 is None:
            values[node] = self.interpreter.run_node(node)
        else:
            args, kwargs = self.interpreter.fetch_args_kwargs_from_env(node)
            rounded = (_rounded_input(args[0], int8), _rounded_weight(args[1]), *args[2:])
            values[node] = self.interpreter.call_function(node.target, rounded, kwargs)
        for spent in self.interpreter.user_to_last_uses.get(node, ()):
            values.pop(spent, None)


def _outputs(values: _NodeValues) -> Sequence[Tensor]:
    outputs: Sequence[Tensor] = next(value for node, value in values.items() if node.op == "output")
    return outputs


def _input(node: fx.Node) -> fx.Node:
    source = node.args[0]
    assert isinstance(source, fx.Node)
    return source


def _layer_name(node: fx.Node) -> str | None:
    """The name of the layer that this node computes; None for other nodes, and weights that formats do not name."""
    if node.target not in LAYERS:
        return None
    weight = node.args[1]
    if not isinstance(weight, fx.Node) or weight.op != "get_attr" or not str(weight.target).endswith(".weight"):
        return None
    return str(weight.target).removesuffix(".weight")


def _rounded_weight(weight: Tensor) -> Tensor:
    """Symmetric int8 with a scale per output channel (the first axis), back in float."""
    largest = weight.abs().amax(tuple(range(1, weight.ndim)), keepdim=True)
    scale = (largest / LARGEST).clamp_min(torch.finfo(weight.dtype).tiny)
    return (weight / scale).round() * scale


def _rounded_input(values: Tensor, span: _Range) -> Tensor:
    """8 bits with one scale and zero point for the whole tensor, back in float."""
    low, high = span
    scale = max((high - low) / LEVELS, torch.finfo(torch.float32).tiny)
    return torch.fake_quantize_per_tensor_affine(values, scale, round(-low / scale), 0, LEVELS)


def _cosine(first: Tensor, second: Tensor) -> float:
    """Mean cosine over pictures and positions; channels are the second axis."""
    return float(F.cosine_similarity(first.double(), second.double(), dim=1).mean())


def _layer(name: str, cosines: Sequence[tuple[float, float]]) -> Layer:
    summary, patches = (max(0.0, 1 - sum(values) / len(values)) for values in zip(*cosines, strict=True))
    return Layer(name, summary, patches)
