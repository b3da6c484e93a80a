"""Graph passes: what a device need not compute is computed, or left out, before export.

They work on the graph that `torch.export` gives, in ATen operators, so they serve every model family alike: the RoPE
tables of a ViT, its resampled position embedding, window masks and concatenated biases become constants because they
depend on weights and sizes alone, not because somebody knew the model.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.fx.passes.dialect.common.cse_pass import CSEPass

from eyespot.deploy.attention import attribute, rotate_all_tokens, split_heads, tidy

aten = torch.ops.aten
Node = Any  # fx.Node: its arguments have types that say nothing

_PASS_THROUGH = {
    aten.dropout.default,
    aten.detach.default,
    aten.alias.default,
    aten.lift_fresh_copy.default,
}
_BATCH_NORM = aten._native_batch_norm_legit_no_training.default  # (x, gain, shift, mean, variance, momentum, eps)
_CASTS = {aten.to.dtype, aten.to.dtype_layout, aten.to.device, aten.type_as.default, aten._to_copy.default}
_COPIES = {aten.contiguous.default, aten.clone.default}
_VIEWS = {aten.view.default, aten._unsafe_view.default}


def simplify(program: ExportedProgram) -> fx.GraphModule:
    """The program as a graph without side effects, with all passes applied.

    What comes out computes the same: the folded values are computed by the operators that would have computed them.
    """
    graph: fx.GraphModule = program.run_decompositions({}).module()  # no operator taken apart, but none in place either
    drop_no_ops(graph)
    graph = merge_repeated(graph)
    fold_constants(graph)
    fold_batch_norms(graph)
    split_heads(graph)
    rotate_all_tokens(graph)
    return graph


def drop_no_ops(graph: fx.GraphModule) -> None:
    """Removes what does nothing at inference: dropout, assertions on types, casts to the same type, copies.

    Copies go because some of them ask for channels-last memory, which is the business of each runtime; views that
    relied on them become reshapes.
    """
    for node in list(graph.graph.nodes):
        if node.op == "call_module" and "_guards" in str(node.target):
            graph.graph.erase_node(node)
        elif node.op != "call_function":
            continue
        elif node.target is aten._assert_tensor_metadata.default:
            graph.graph.erase_node(node)
        elif node.target in _VIEWS:
            node.target = aten.reshape.default
        elif node.target in _PASS_THROUGH | _COPIES or (node.target in _CASTS and _same_type(node)):
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
    tidy(graph)


@torch.no_grad()
def fold_constants(graph: fx.GraphModule) -> None:
    """Computes everything that depends on weights and sizes alone, and keeps the results as buffers.

    What is computed from a single layer's weight (a standardised one, say) keeps that weight's name.
    """
    values: dict[Node, Any] = {}
    weights: dict[Node, set[Node]] = {}
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            values[node] = attribute(graph, str(node.target))
            weights[node] = {node} if str(node.target).endswith(".weight") else set()
        elif node.op == "call_function" and _is_pure(node) and all(source in values for source in node.all_input_nodes):
            args, kwargs = fx.map_arg((node.args, node.kwargs), values.__getitem__)
            values[node] = node.target(*args, **kwargs)
            weights[node] = set().union(*(weights[source] for source in node.all_input_nodes))
    frontier = [
        node
        for node, value in values.items()
        if node.op == "call_function" and isinstance(value, Tensor) and any(user not in values for user in node.users)
    ]
    for number, node in enumerate(frontier):
        own = [weight for weight in weights[node] if all(user in values for user in weight.users)]
        shared = sum(bool(weights[other] & weights[node]) for other in frontier) > 1
        name = str(own[0].target) if len(weights[node]) == len(own) == 1 and not shared else f"folded_{number}"
        with graph.graph.inserting_before(node):
            constant = _constant(graph, name, values[node])
        node.replace_all_uses_with(constant)
    tidy(graph)


def fold_batch_norms(graph: fx.GraphModule) -> None:
    """Folds batch norms into the convolutions before them.

    w' = w g / sqrt(v + eps), b' = b + (c - m) g / sqrt(v + eps), with c the convolution's own bias. Only where the
    convolution feeds nothing else. Every layer keeps its weight's name.
    """
    for norm in list(graph.graph.nodes):
        if norm.target is not _BATCH_NORM:
            continue
        conv = norm.args[0]
        if conv.target not in (aten.conv2d.default, aten.conv2d.padding) or len(conv.users) > 1:
            continue
        if all(node is None or node.op == "get_attr" for node in (*conv.args[1:3], *norm.args[1:5])):
            _fold_into(graph, conv, norm)
    tidy(graph)


def _fold_into(graph: fx.GraphModule, conv: Node, norm: Node) -> None:
    weight_node = conv.args[1]
    weight, bias = (_value(graph, node) for node in (weight_node, conv.args[2] if len(conv.args) > 2 else None))
    gain, shift, mean, variance = (_value(graph, node) for node in norm.args[1:5])
    scale = (variance + norm.args[6]).rsqrt()
    scale = scale if gain is None else scale * gain
    offset = -mean if bias is None else bias - mean
    offset = offset * scale if shift is None else offset * scale + shift
    name = str(weight_node.target)
    if len(weight_node.users) > 1:  # a weight that serves in several places gets a copy for each
        name = f"{name.removesuffix('.weight')}.weight_of_{conv.name}"
    with graph.graph.inserting_before(conv):
        new_weight = _constant(graph, name, weight * scale.view(-1, 1, 1, 1))
        new_bias = _constant(graph, f"{name}_bias", offset)
    conv.args = (conv.args[0], new_weight, new_bias, *conv.args[3:])
    for output in norm.users:  # one of three, of which inference uses the first
        output.replace_all_uses_with(conv)


def merge_repeated(graph: fx.GraphModule) -> fx.GraphModule:
    """Computes once what the graph says twice, e.g. the blocks before an inner layer that is an output of its own."""
    result = CSEPass()(graph)
    assert result is not None
    return result.graph_module


def _is_pure(node: Node) -> bool:
    """Whether a node gives the same every time and changes nothing."""
    if node.target is operator.getitem:
        return True
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    return not node.target._schema.is_mutable and torch.Tag.nondeterministic_seeded not in node.target.tags


def _same_type(node: Node) -> bool:
    source = node.args[0]
    before, after = source.meta.get("val"), node.meta.get("val")
    return isinstance(before, Tensor) and isinstance(after, Tensor) and before.dtype == after.dtype


def _value(graph: fx.GraphModule, node: Node) -> Any:
    return None if node is None else attribute(graph, str(node.target)).detach()


def _constant(graph: fx.GraphModule, name: str, value: Tensor) -> Node:
    """A node that gives `value`, kept under `name`, which may exist already."""
    owner, _, last = name.rpartition(".")
    module = graph.get_submodule(owner)
    if hasattr(module, last):
        delattr(module, last)
    module.register_buffer(last, value.detach().contiguous())
    node = graph.graph.get_attr(name)
    node.meta["val"] = value
    return node
