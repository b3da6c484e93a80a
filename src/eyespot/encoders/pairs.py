"""Pairs of a convolution and the batch norm behind it, found by watching a network at work."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from timm.layers import BatchNormAct2d, Conv2dSame
from timm.layers.norm_act import SyncBatchNormAct
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Exact types: a subclass may standardise its weight (BiT, NFNet) or normalise otherwise.
CONVOLUTIONS = (nn.Conv2d, Conv2dSame)
NORMS = (nn.BatchNorm2d, BatchNormAct2d, nn.SyncBatchNorm, SyncBatchNormAct)


@dataclass(frozen=True)
class Pair:
    """A convolution whose output goes into one batch norm and nowhere else.

    Attributes:
        conv_name: dotted name of the convolution in its model.
        norm_name: dotted name of the norm.
        conv: the convolution.
        norm: the norm; those of timm may apply an activation as well.
    """

    conv_name: str
    norm_name: str
    conv: nn.Conv2d
    norm: nn.BatchNorm2d


def conv_norm_pairs(model: nn.Module, size: tuple[int, int]) -> list[Pair]:
    """All pairs, in the order in which they compute.

    The model runs once in eval mode, on shapes without numbers. A convolution or a norm that is used twice, under two
    names, or whose output goes anywhere else as well makes no pair; nor does a norm without running statistics.

    Args:
        model: takes [B, 3, H, W].
        size: (height, width) in pixels of a picture that it takes.

    Raises:
        ValueError: the model does not run at that size.
    """
    twin = on_meta(model)
    names: dict[nn.Module, list[str]] = {}
    for name, module in twin.named_modules(remove_duplicate=False):
        names.setdefault(module, []).append(name)
    watch = _Watch()
    for module in names:
        if type(module) in CONVOLUTIONS:
            module.register_forward_hook(watch.after_convolution)
        elif type(module) in NORMS and module.running_mean is not None:
            module.register_forward_pre_hook(watch.before_norm)
    try:
        with torch.no_grad(), watch:
            result = twin(torch.zeros(1, 3, *size, device="meta"))
    except Exception as error:  # models refuse a size in many ways
        raise ValueError(
            f"{type(model).__name__} does not run on a {size[0]}x{size[1]} picture "
            f"({type(error).__name__}: {error}); name a size that it takes"
        ) from error
    watch.count_uses(result)
    found = [pair for pair in watch.pairs() if all(len(names[module]) == 1 for module in pair)]
    parts = dict(model.named_modules())
    return [_pair(parts, names[conv][0], names[norm][0]) for conv, norm in found]


def _pair(parts: Mapping[str, Any], conv_name: str, norm_name: str) -> Pair:
    return Pair(conv_name, norm_name, parts[conv_name], parts[norm_name])


def behind_norm(norm: nn.Module) -> nn.Module:
    """What a norm does beside norming, to take its place: the activation of timm's norms, else nothing."""
    extras = [getattr(norm, name, None) for name in ("drop", "act")]
    kept = [extra for extra in extras if extra is not None and not isinstance(extra, nn.Identity)]
    if len(kept) == 1:
        return kept[0]
    return nn.Sequential(*kept) if kept else nn.Identity()


def replace_module(model: nn.Module, name: str, new: nn.Module) -> None:
    """Puts `new` where the submodule `name` is."""
    owner, _, last = name.rpartition(".")
    setattr(model.get_submodule(owner), last, new)


def on_meta(model: nn.Module) -> Any:
    """A copy with shapes but no numbers, in eval mode: it runs in next to no time, whatever the size of the model."""
    tensors = (*model.parameters(), *model.buffers())
    return copy.deepcopy(model, {id(tensor): tensor.detach().to("meta") for tensor in tensors}).eval()


@dataclass
class _Output:
    """What came out of a convolution, kept alive so that its id stays its own."""

    tensor: Tensor
    conv: nn.Module
    norm: nn.Module | None = None
    uses: int = 0


@dataclass
class _Watch(TorchDispatchMode):
    """Sees every operation and notes which of them take the output of a convolution."""

    outputs: dict[int, _Output] = field(default_factory=dict)
    calls: Counter[nn.Module] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        super().__init__()

    def after_convolution(self, module: nn.Module, args: Any, output: Tensor) -> None:
        """A hook."""
        self.calls[module] += 1
        self.outputs[id(output)] = _Output(output, module)

    def before_norm(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """A hook."""
        self.calls[module] += 1
        if id(args[0]) in self.outputs:
            self.outputs[id(args[0])].norm = module

    def count_uses(self, values: Any) -> None:
        """Counts one use of every output among the values."""
        for key in {id(leaf) for leaf in tree_leaves(values) if isinstance(leaf, Tensor)} & self.outputs.keys():
            self.outputs[key].uses += 1

    def pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """(convolution, norm), each used once."""
        alone = [entry for entry in self.outputs.values() if entry.norm is not None and entry.uses == 1]
        return [
            (entry.conv, entry.norm)
            for entry in alone
            if entry.norm is not None and self.calls[entry.conv] == self.calls[entry.norm] == 1
        ]

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Runs the operation and looks at what went in."""
        self.count_uses((args, kwargs or {}))
        return func(*args, **(kwargs or {}))
