"""Pairs of a convolution and the batch norm behind it, found by watching a network at work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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

    The model encodes one black picture, in eval mode, and is left as it was. A convolution or a norm that is used
    twice, under two names, or whose output goes anywhere else as well makes no pair; nor does a norm without running
    statistics.

    Args:
        model: takes [B, 3, H, W].
        size: (height, width) in pixels of a picture that it takes.

    Raises:
        ValueError: the model does not run at that size.
    """
    names: dict[nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        names.setdefault(module, []).append(name)
    first = next(model.parameters(), torch.empty(0))
    picture = torch.zeros(1, 3, *size, dtype=first.dtype, device=first.device)
    watch = _Watch()
    try:
        with _in_eval_mode(model), watch.hooked(names), torch.no_grad(), watch:
            result = model(picture)
    except Exception as error:  # models refuse a size in many ways
        raise ValueError(
            f"{type(model).__name__} does not run on a {size[0]}x{size[1]} picture "
            f"({type(error).__name__}: {error}); name a size that it takes"
        ) from error
    watch.count_uses(result)
    found = [pair for pair in watch.pairs() if all(len(names[module]) == 1 for module in pair)]
    return [Pair(names[conv][0], names[norm][0], conv, norm) for conv, norm in found]


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


@contextmanager
def _in_eval_mode(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@dataclass
class _Output:
    """What came out of a convolution, kept alive so that its id stays its own."""

    tensor: Tensor
    conv: nn.Conv2d
    norm: nn.BatchNorm2d | None = None
    uses: int = 0


@dataclass
class _Watch(TorchDispatchMode):
    """Sees every operation and notes which of them take the output of a convolution."""

    outputs: dict[int, _Output] = field(default_factory=dict)
    calls: Counter[nn.Module] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        super().__init__()

    @contextmanager
    def hooked(self, modules: Iterable[nn.Module]) -> Iterator[None]:
        """Sees what convolutions give and norms take, while within."""
        handles = []
        for module in modules:
            if type(module) in CONVOLUTIONS:
                handles.append(module.register_forward_hook(self._after_convolution))
            elif type(module) in NORMS and module.running_mean is not None:
                handles.append(module.register_forward_pre_hook(self._before_norm))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _after_convolution(self, module: Any, args: Any, output: Tensor) -> None:
        self.calls[module] += 1
        self.outputs[id(output)] = _Output(output, module)

    def _before_norm(self, module: Any, args: tuple[Any, ...]) -> None:
        self.calls[module] += 1
        if id(args[0]) in self.outputs:
            self.outputs[id(args[0])].norm = module

    def count_uses(self, values: Any) -> None:
        """Counts one use of every output among the values."""
        for key in {id(leaf) for leaf in tree_leaves(values) if isinstance(leaf, Tensor)} & self.outputs.keys():
            self.outputs[key].uses += 1

    def pairs(self) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
        """(convolution, norm), each used once."""
        return [
            (entry.conv, entry.norm)
            for entry in self.outputs.values()
            if entry.norm is not None and entry.uses == self.calls[entry.conv] == self.calls[entry.norm] == 1
        ]

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Runs the operation and looks at what went in."""
        self.count_uses((args, kwargs or {}))
        return func(*args, **(kwargs or {}))
