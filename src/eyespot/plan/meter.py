"""Meter: what goes on while code runs, in operations and in bytes of tensors that are alive."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from eyespot.flops import flop_counter


class WorkCounter(TorchDispatchMode):
    """Counts operations, and the storages that they make from the moment they appear until nobody holds them any more.

    Operations are counted by the formulas of torch's counter (`eyespot.flops`): matrix products, convolutions and
    attention, two per multiply-accumulate. (The counter itself follows modules by hooks that keep tensors alive, and so
    would disturb the bytes.)

    Bytes are what an allocator without gaps would hand out: memory that is shared by views counts once, tensors that
    were there before do not count. Scratch space inside a kernel is not seen. Works on fake tensors and on real ones.

    Attributes:
        flops: operations so far.
        live: bytes alive now.
        peak: most bytes that were alive at a time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0
        self.live = 0
        self.peak = 0
        self._known: set[int] = set()
        self._formulas = flop_counter().flop_registry

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Runs the operation and looks at what came out."""
        kwargs = kwargs or {}
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, Tensor):
                self._meet(leaf, counted=False)
        result = func(*args, **kwargs)
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._meet(leaf, counted=True)
        self.peak = max(self.peak, self.live)
        count = self._formulas.get(func._overloadpacket)
        if count is not None:
            self.flops += count(*args, **kwargs, out_val=result)
        return result

    def _meet(self, tensor: Tensor, counted: bool) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        self._known.add(key)
        size = storage.nbytes() if counted else 0
        self.live += size
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size
