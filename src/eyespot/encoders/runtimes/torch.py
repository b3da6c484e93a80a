"""`torch/FILE.pt2`: programs that `torch.export` saved, run by torch itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eyespot.encoders.runtimes.exported import FileEncoder, existing
from eyespot.encoders.runtimes.inputs import as_floats, read_input

_TYPES = (torch.float32, torch.float16, torch.float64, torch.bfloat16, torch.uint8)
NAMES_FILE, FACTS_FILE = "outputs", "facts"


class TorchSession:
    """A saved program; see `exported.Session`. Threads are those of torch, for the whole process."""

    def __init__(self, path: Path, compile: bool) -> None:
        extra = {NAMES_FILE: "", FACTS_FILE: ""}
        try:
            program = torch.export.load(path, extra_files=extra)
        except Exception as error:
            raise ValueError(f"{path} cannot be read as a program of torch.export: {error}") from error
        if not extra[NAMES_FILE]:
            raise ValueError(f"{path} was not written by eyespot: the names of its outputs are not in it")
        self.outputs: tuple[str, ...] = tuple(json.loads(extra[NAMES_FILE]))
        self.metadata: dict[str, str] = json.loads(extra[FACTS_FILE])
        inputs = [node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs]
        entry = inputs[0].meta["val"]
        dtype = str(entry.dtype).removeprefix("torch.")
        self.taken = read_input("torch", path, [node.name for node in inputs], tuple(entry.shape), dtype, _TYPES)
        self.files = [path]
        module = program.module()
        self._module: Any = torch.compile(module) if compile else module

    @torch.no_grad()
    def run(self, images: Tensor, names: Sequence[str]) -> list[Tensor]:
        """See `exported.Session`."""
        values = dict(zip(self.outputs, self._module(self.taken.of(images)), strict=True))
        return [as_floats(name, values[name]) for name in names]


def open_session(path: str | Path, threads: int | None = None, compile: bool = False) -> TorchSession:
    """Opens a .pt2 file.

    Args:
        path: the file.
        threads: how many torch computes with from now on, in the whole process; unchanged if None.
        compile: compile it, which takes a while in the first run of each shape.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged, or was not written by eyespot.
    """
    path = existing(path, "torch")
    if threads is not None:
        torch.set_num_threads(threads)
    return TorchSession(path, compile)


class TorchFileEncoder(FileEncoder):
    """A .pt2 file as (frozen) encoder; `options` are those of `exported.FileEncoder`."""

    def __init__(self, path: str | Path, *, threads: int | None = None, compile: bool = False, **options: Any) -> None:
        super().__init__("torch", path, open_session(path, threads, compile), **options)
