"""Graph passes for attention: the form that runtimes compute fastest. Both are exact.

Written for the graph that `simplify` makes. A vision transformer splits queries, keys and values by a five-dimensional
transpose, and turns the patch tokens but not the prefix tokens (class, registers), for which it takes the sequence
apart and puts it together again. Neither is arithmetic, and both hide the pattern that a runtime has a kernel for.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx

aten = torch.ops.aten
_HEADS_FIRST = [2, 0, 3, 1, 4]  # [B, N, 3, H, D] -> [3, B, H, N, D]
_TO_THE_END = 2**63 - 1


def split_heads(graph: fx.GraphModule) -> None:
    """Takes queries, keys and values out of their joint projection one by one: slice, reshape, transpose.

    Instead of one transpose of five dimensions, which no runtime fuses with what comes next.
    """
    nodes: list[Any] = list(graph.graph.nodes)
    for permute in nodes:
        if permute.target is not aten.permute.default or list(permute.args[1]) != _HEADS_FIRST:
            continue
        joint, shape = permute.args[0], _shape(permute.args[0])
        if joint.target is not aten.reshape.default or len(joint.users) > 1 or len(_shape(joint.args[0])) != 3:
            continue
        for index, part in _parts(permute):
            with graph.graph.inserting_before(part):
                part.replace_all_uses_with(_one_of_three(graph, joint, index, shape))
    tidy(graph)


def _parts(permute: Any) -> list[tuple[int, Any]]:
    """(index, node) of what is taken out along the first dimension; empty if something else happens to the whole."""
    parts: list[tuple[int, Any]] = []
    for user in permute.users:
        if user.target is aten.unbind.int and len(user.args) == 1:
            parts += [(int(item.args[1]), item) for item in user.users]
        elif user.target is aten.select.int and user.args[1] == 0:
            parts.append((int(user.args[2]), user))
        else:
            return []
    return parts


def _one_of_three(graph: fx.GraphModule, joint: Any, index: int, shape: list[Any]) -> Any:
    """Queries, keys or values [B, H, N, D] from the projection, which `joint` reshapes to `shape`, [B, N, 3, H, D]."""
    source: Any = joint.args[0]
    heads, width = shape[3:]
    start, stop = index * heads * width, (index + 1) * heads * width
    value = source.meta["val"][..., start:stop]
    piece = _call(graph, aten.slice.Tensor, (source, 2, start, stop), value)
    value = value.reshape(*shape[:2], heads, width)
    batch_and_count: list[Any] = list(joint.args[1][:2])  # numbers, or nodes if open
    piece = _call(graph, aten.reshape.default, (piece, [*batch_and_count, heads, width]), value)
    return _call(graph, aten.transpose.int, (piece, 1, 2), value.transpose(1, 2))


def rotate_all_tokens(graph: fx.GraphModule) -> None:
    """Lets the rotary embedding turn the prefix tokens too, by an angle of nothing, so that the sequence stays whole.

    cat([prefix, patches * cos + rotate_half(patches) * sin]) becomes x * cos' + rotate_half(x) * sin' with ones and
    zeros put before the tables. Only where the tables are constants, i.e. the size of the pictures is fixed, and where
    halves of a head are turned against each other (DINOv3, EUPE), not neighbours (EVA-02, PE).
    """
    nodes: list[Any] = list(graph.graph.nodes)
    tables: dict[bytes, Any] = {}  # all blocks rotate alike, so one pair of tables will do
    for cat in nodes:
        found = _rotation(graph, cat)
        if found is None:
            continue
        x, prefix, cos, sin = found
        with graph.graph.inserting_before(cat):
            pair = [_table(graph, tables, _padded(*entry)) for entry in ((cos, prefix, 1.0), (sin, prefix, 0.0))]
            cat.replace_all_uses_with(_rotated(graph, x, *pair))
    tidy(graph)


def _rotation(graph: fx.GraphModule, cat: Any) -> tuple[Any, int, Tensor, Tensor] | None:
    """(tokens [B, H, N, D], number of prefix tokens, cos, sin) if this node is a rotation of all tokens but those."""
    if cat.target is not aten.cat.default or len(cat.args) < 2 or len(cat.args[0]) != 2:
        return None
    prefix, total = cat.args[0]
    if prefix.target is not aten.slice.Tensor or total.target is not aten.add.Tensor:
        return None
    straight, crossed = total.args[:2]
    if any(getattr(node, "target", None) is not aten.mul.Tensor for node in (straight, crossed)):
        return None
    (patches, cos), (turned, sin) = straight.args, crossed.args
    if not all(isinstance(node, fx.Node) for node in (patches, cos, turned, sin)):
        return None
    x, dim, start, count = prefix.args[:4]
    rest = (x, dim, count, _TO_THE_END)
    fits = (
        (start, dim) == (0, 2)
        and cat.args[1] in (2, -2)
        and patches.target is aten.slice.Tensor
        and (*patches.args, _TO_THE_END)[:4] == rest
        and cos.op == sin.op == "get_attr"
        and _is_rotate_half(turned, patches)
    )
    return (x, count, attribute(graph, str(cos.target)), attribute(graph, str(sin.target))) if fits else None


def _is_rotate_half(node: Any, x: Any) -> bool:
    """Whether it is cat([-second half, first half]) along the last dimension of `x` [B, H, N, D]."""
    if node.target is not aten.cat.default or node.args[1] not in (-1, 3):
        return False
    minus, first = node.args[0]
    return minus.target is aten.neg.default and _half(first, x) == 0 and _half(minus.args[0], x) == 1


def _half(node: Any, x: Any) -> int | None:
    """0 or 1 if it is the first or second half of `x` along its last dimension."""
    width = _shape(x)[-1]
    if node.target is operator.getitem:
        pieces, index = node.args
        even = pieces.target in (aten.split.Tensor, aten.chunk.default, aten.split_with_sizes.default)
        if even and pieces.args[0] is x and pieces.args[-1] in (-1, 3) and _shape(node)[-1] * 2 == width:
            return int(index)
    elif node.target is aten.slice.Tensor and node.args[0] is x and node.args[1] in (-1, 3):
        start, stop = (*node.args[2:], _TO_THE_END)[:2]
        return {(0, width // 2): 0, (width // 2, min(stop, width)): 1}.get((start, min(stop, width)))
    return None


def _padded(table: Tensor, prefix: int, fill: float) -> Tensor:
    """[1 or B, 1, prefix + N, D]: a table [..., N, D] after rows of `fill`."""
    rows = table.reshape(-1, 1, *table.shape[-2:])
    return torch.cat([rows.new_full((len(rows), 1, prefix, rows.shape[-1]), fill), rows], 2).contiguous()


def _table(graph: fx.GraphModule, known: dict[bytes, Any], value: Tensor) -> Any:
    """A node that gives this constant."""
    key = value.numpy(force=True).tobytes()
    if key not in known:
        name = f"rotary_{len(known)}"
        graph.register_buffer(name, value)
        known[key] = graph.graph.get_attr(name)
        known[key].meta["val"] = value
    return known[key]


def _rotated(graph: fx.GraphModule, x: Any, cos: Any, sin: Any) -> Any:
    """The rotation of `x`, with its halves as slices: the one form that OpenVINO has a kernel for."""
    half = _shape(x)[-1] // 2
    value = x.meta["val"]
    first = _call(graph, aten.slice.Tensor, (x, 3, 0, half), value[..., :half])
    second = _call(graph, aten.slice.Tensor, (x, 3, half, _TO_THE_END), value[..., half:])
    minus = _call(graph, aten.neg.default, (second,), second.meta["val"])
    turned = _call(graph, aten.cat.default, ([minus, first], -1), value)
    products = [_call(graph, aten.mul.Tensor, pair, value) for pair in ((x, cos), (turned, sin))]
    return _call(graph, aten.add.Tensor, tuple(products), value)


def _call(graph: fx.GraphModule, target: Any, args: tuple[Any, ...], value: Tensor) -> Any:
    node = graph.graph.call_function(target, args)
    node.meta["val"] = value
    return node


def _shape(node: Any) -> list[Any]:
    return list(node.meta["val"].shape)


def attribute(graph: fx.GraphModule, name: str) -> Any:
    """A weight or buffer of the graph by its dotted name."""
    owner, _, last = name.rpartition(".")
    return getattr(graph.get_submodule(owner), last)


def tidy(graph: fx.GraphModule) -> None:
    """Removes what nothing uses any more, and makes the graph runnable again."""
    graph.graph.eliminate_dead_code()
    graph.delete_all_unused_submodules()
    graph.recompile()
