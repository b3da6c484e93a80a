"""`onnx/FILE`: any ONNX graph that turns pictures into features, run by ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eyespot.encoders.runtimes.exported import FileEncoder, existing, open_size

ROUNDED = "rounded"
"""Metadata entry of files with int8 weights: "weights" if all else is float."""


class OnnxSession:
    """An ONNX file in ONNX Runtime; see `exported.Session`."""

    def __init__(self, session: Any, path: Path) -> None:
        self._session, self._path = session, path
        entry = session.get_inputs()[0]
        self._input = entry.name
        self.batch, self.size = open_size("onnx", entry.shape, path)
        self.outputs = tuple(output.name for output in session.get_outputs())
        self.metadata: dict[str, str] = dict(session.get_modelmeta().custom_metadata_map)

    def run(self, images: Tensor, names: Sequence[str]) -> list[Tensor]:
        """See `exported.Session`."""
        try:
            values = self._session.run(list(names), {self._input: images.numpy()})
        except Exception as error:  # the runtime has classes of its own
            reason = str(error).partition("\n")[0]
            raise ValueError(f"onnx/{self._path} cannot be run on pictures {list(images.shape)} ({reason})") from error
        return [torch.from_numpy(value) for value in values]


def open_session(path: str | Path, threads: int | None = None) -> OnnxSession:
    """Opens an ONNX file.

    Args:
        path: the file.
        threads: how many it computes with; as many as torch has now if None.

    Raises:
        ImportError: onnxruntime is missing.
        FileNotFoundError: no such file.
        ValueError: the file is damaged, or takes no pictures.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError("onnx/ encoders need ONNX Runtime: pip install 'eyespot[onnx]'") from error
    path = existing(path, "onnx")
    session = OnnxSession(_session(onnxruntime, path, threads), path)
    if session.metadata.get(ROUNDED) == "weights":
        # Left alone it would search for int8 arithmetic that is not there, and convert weights in every run.
        session = OnnxSession(_session(onnxruntime, path, threads, {"session.disable_quant_qdq": "1"}), path)
    return session


def _session(onnxruntime: Any, path: Path, threads: int | None, settings: Mapping[str, str] | None = None) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.log_severity_level = 3
    for name, value in (settings or {}).items():
        options.add_session_config_entry(name, value)
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ValueError(f"{path} cannot be read as an ONNX graph: {error}") from error


class OnnxEncoder(FileEncoder):
    """An ONNX file as (frozen) encoder; `options` are those of `exported.FileEncoder`."""

    def __init__(self, path: str | Path, *, threads: int | None = None, **options: Any) -> None:
        super().__init__("onnx", path, open_session(path, threads), **options)
