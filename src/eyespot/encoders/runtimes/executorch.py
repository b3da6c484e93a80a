"""`executorch/FILE`: a .pte file, run by ExecuTorch on the CPU."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from eyespot.encoders.runtimes.exported import FileEncoder, existing
from eyespot.encoders.runtimes.inputs import as_floats, read_input

_TYPES = {0: "uint8", 5: "float16", 6: "float32", 7: "float64", 15: "bfloat16"}  # torch's numbers of its types
_TORCH_TYPES = (torch.uint8, torch.float16, torch.float64, torch.bfloat16)
METADATA_METHOD = "metadata"
"""Name of the method, beside `forward`, that gives `{"outputs": [names], "facts": {name: text}}` as JSON."""


class ThreadPool:
    """The threads of XNNPACK, which all programs of a process share.

    ExecuTorch frees the old pool when it makes one of another size, and programs that were loaded before wait for it
    for ever. So each session remembers which pool it was loaded for, and loads anew when that pool is gone.
    """

    generation = 0

    @classmethod
    def claim(cls, runtime: ModuleType, threads: int) -> int:
        """Makes the pool have that many threads; returns its generation."""
        if runtime._threadpool_get_thread_count() != threads:
            runtime._unsafe_reset_threadpool(threads)
            cls.generation += 1
        return cls.generation


class ExecutorchSession:
    """A .pte file in ExecuTorch; see `exported.Session`."""

    def __init__(self, runtime: ModuleType, path: Path, threads: int) -> None:
        self._runtime, self._path, self._threads = runtime, path, threads
        self._load()
        taken = self._program.method_meta("forward")
        names = [f"input {index}" for index in range(taken.num_inputs())]
        entry = taken.input_tensor_meta(0)
        dtype = _TYPES.get(entry.dtype(), f"number {entry.dtype()} of ExecuTorch")
        self.taken = read_input("executorch", path, names, entry.sizes(), dtype, (torch.float32, *_TORCH_TYPES))
        self.files = [path]
        known = self._metadata()
        self.metadata: dict[str, str] = known.get("facts", {})
        count = taken.num_outputs()
        self.outputs = tuple(known.get("outputs") or (f"output_{index}" for index in range(count)))

    def _load(self) -> None:
        self._generation = ThreadPool.claim(self._runtime, self._threads)
        self._program = self._runtime._load_program(str(self._path))
        self._forward = self._program.load_method("forward")

    def _metadata(self) -> dict[str, Any]:
        names = [self._program.get_method_name(index) for index in range(self._program.num_methods())]
        if METADATA_METHOD not in names:
            return {}
        known: dict[str, Any] = json.loads(self._program.load_method(METADATA_METHOD)([])[0])
        return known

    def run(self, images: Tensor, names: Sequence[str]) -> list[Tensor]:
        """See `exported.Session`."""
        if ThreadPool.claim(self._runtime, self._threads) != self._generation:
            self._load()
        found = dict(zip(self.outputs, self._forward([self.taken.of(images)]), strict=True))
        return [as_floats(name, found[name]) for name in names]


def open_session(path: str | Path, threads: int | None = None) -> ExecutorchSession:
    """Opens a .pte file.

    Args:
        path: the file. It must fit the ExecuTorch at hand: files do not outlive every version.
        threads: how many it computes with; as many as torch has now if None. Sessions with different numbers of
            threads cost each other a new load whenever they take turns, see `ThreadPool`.

    Raises:
        ImportError: ExecuTorch is missing.
        FileNotFoundError: no such file.
        ValueError: the file is damaged, or takes no pictures.
    """
    runtime = _runtime()
    path = existing(path, "executorch")
    try:
        return ExecutorchSession(runtime, path, threads or torch.get_num_threads())
    except RuntimeError as error:
        raise ValueError(f"{path} cannot be read as an ExecuTorch program: {error}") from error


def _runtime() -> ModuleType:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its interface is experimental, it says at every import
            from executorch.extension.pybindings import portable_lib
    except ImportError as error:
        raise ImportError("executorch/ encoders need ExecuTorch: pip install 'eyespot[executorch]'") from error
    module: ModuleType = portable_lib
    return module


class ExecutorchEncoder(FileEncoder):
    """A .pte file as (frozen) encoder; `options` are those of `exported.FileEncoder`."""

    def __init__(self, path: str | Path, *, threads: int | None = None, **options: Any) -> None:
        super().__init__("executorch", path, open_session(path, threads), **options)
