"""`litert/FILE`: a LiteRT (TensorFlow Lite) file, run by LiteRT's interpreter on the CPU."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eyespot.encoders.runtimes.exported import FileEncoder, existing
from eyespot.encoders.runtimes.inputs import as_floats, read_input

_TYPES = (torch.float32, torch.float16, torch.float64, torch.uint8)
FACTS_MEMBER = "eyespot.json"
"""Where our facts lie: LiteRT's files may carry others behind the model, as a ZIP archive that the runtime ignores."""


class LitertSession:
    """A .tflite file in LiteRT's interpreter, with its XNNPACK kernels; see `exported.Session`."""

    def __init__(self, interpreter: Any, path: Path) -> None:
        signatures = interpreter.get_signature_list()
        if not signatures:
            raise ValueError(f"litert/{path}: the file has no signature, so that its outputs have no names")
        self._run = interpreter.get_signature_runner(next(iter(signatures)))
        inputs = self._run.get_input_details()
        self._input, entry = next(iter(inputs.items()))
        shape = [int(side) if side > 0 else None for side in entry["shape_signature"]]
        scale, zero = entry["quantization"]
        if scale and not (entry["dtype"] == np.uint8 and zero == 0 and abs(255 * scale - 1) < 1e-2):
            raise ValueError(
                f"litert/{path}: its input is rounded to {np.dtype(entry['dtype']).name} in steps of {scale:.3g} from "
                f"{zero}; convert it with float32 inputs and outputs (weights may stay int8)"
            )
        dtype = np.dtype(entry["dtype"]).name
        self.taken = read_input("litert", path, list(inputs), shape, dtype, _TYPES)
        self.files = [path]
        given = self._run.get_output_details()
        self.outputs = tuple(given)
        self._steps = {name: about["quantization"] for name, about in given.items()}
        self.metadata = _facts(path)

    def run(self, images: Tensor, names: Sequence[str]) -> list[Tensor]:
        """See `exported.Session`."""
        found = self._run(**{self._input: self.taken.of(images).numpy()})
        return [as_floats(name, self._unrounded(name, found[name])) for name in names]

    def _unrounded(self, name: str, value: np.ndarray) -> np.ndarray:
        """What an output of whole numbers stands for, where the file says in which steps it is rounded."""
        scale, zero = self._steps[name]
        return (value.astype(np.float32) - zero) * scale if scale and value.dtype.kind in "iu" else value


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
