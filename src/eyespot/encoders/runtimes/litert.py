"""`litert/FILE`: a LiteRT (TensorFlow Lite) file, run by LiteRT's interpreter on the CPU."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eyespot.encoders.runtimes.exported import FileEncoder, existing, open_size

FACTS_MEMBER = "eyespot.json"
"""Where our facts lie: LiteRT's files may carry others behind the model, as a ZIP archive that the runtime ignores."""


class LitertSession:
    """A .tflite file in LiteRT's interpreter, with its XNNPACK kernels; see `exported.Session`."""

    def __init__(self, interpreter: Any, path: Path) -> None:
        signatures = interpreter.get_signature_list()
        if not signatures:
            raise ValueError(f"litert/{path}: the file has no signature, so that its outputs have no names")
        self._run = interpreter.get_signature_runner(next(iter(signatures)))
        (self._input, entry), *others = self._run.get_input_details().items()
        if others:
            raise ValueError(f"litert/{path}: the file takes {1 + len(others)} inputs, not only pictures")
        shape = [int(side) if side > 0 else None for side in entry["shape_signature"]]
        self.batch, self.size = open_size("litert", shape, path)
        self.outputs = tuple(self._run.get_output_details())
        self.metadata = _facts(path)

    def run(self, images: Tensor, names: Sequence[str]) -> list[Tensor]:
        """See `exported.Session`."""
        found = self._run(**{self._input: images.numpy()})
        return [torch.from_numpy(found[name]).float() for name in names]


def open_session(path: str | Path, threads: int | None = None) -> LitertSession:
    """Opens a .tflite file.

    Args:
        path: the file; its first signature names the outputs.
        threads: how many it computes with; as many as torch has now if None.

    Raises:
        ImportError: ai-edge-litert is missing.
        FileNotFoundError: no such file.
        ValueError: the file is damaged, has no signature, or takes something else than pictures [batch, 3, H, W].
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise ImportError("litert/ encoders need LiteRT's runtime: pip install 'eyespot[litert]'") from error
    path = existing(path, "litert")
    try:
        interpreter = Interpreter(model_path=str(path), num_threads=threads or torch.get_num_threads())
        interpreter.allocate_tensors()
    except Exception as error:
        raise ValueError(f"{path} cannot be read as a LiteRT file: {error}") from error
    return LitertSession(interpreter, path)


def _facts(path: Path) -> dict[str, str]:
    if not zipfile.is_zipfile(path):
        return {}
    with zipfile.ZipFile(path) as archive:
        if FACTS_MEMBER not in archive.namelist():
            return {}
        facts: dict[str, str] = json.loads(archive.read(FACTS_MEMBER))
    return facts


class LitertEncoder(FileEncoder):
    """A .tflite file as (frozen) encoder; `options` are those of `exported.FileEncoder`."""

    def __init__(self, path: str | Path, *, threads: int | None = None, **options: Any) -> None:
        super().__init__("litert", path, open_session(path, threads), **options)
