"""`onnx/FILE`: any ONNX graph that turns pictures into features, run by ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eyespot.encoders.runtimes.exported import FileEncoder, existing
from eyespot.encoders.runtimes.inputs import as_floats, read_input

_TYPES = (torch.float32, torch.float16, torch.float64, torch.uint8)  # what NumPy has
ROUNDED = "rounded"
"""Metadata entry of files with int8 weights: "weights" if all else is float."""


class OnnxSession:
    """An ONNX file in ONNX Runtime; see `exported.Session`."""

    def __init__(self, session: Any, path: Path) -> None:
        self._session, self._path = session, path
        entry, *others = session.get_inputs()
        self._input = entry.name
        names = [entry.name, *(other.name for other in others)]
        dtype = entry.type.removeprefix("tensor(").removesuffix(")")
        self.taken = read_input("onnx", path, names, entry.shape, dtype, _TYPES)
        self.files = [path, *external_files(path)]
        self.outputs = tuple(output.name for output in session.get_outputs())
        self.metadata: dict[str, str] = dict(session.get_modelmeta().custom_metadata_map)

    def run(self, images: Tensor, names: Sequence[str]) -> list[Tensor]:
        """See `exported.Session`."""
        try:
            values = self._session.run(list(names), {self._input: self.taken.of(images).numpy()})
        except Exception as error:  # the runtime has classes of its own
            reason = str(error).partition("\n")[0]
            raise RuntimeError(
                f"onnx/{self._path} cannot be run on pictures {list(images.shape)} ({reason})"
            ) from error
        return [as_floats(name, value) for name, value in zip(names, values, strict=True)]


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
    options.log_severity_level = 4  # errors are raised
    for name, value in (settings or {}).items():
        options.add_session_config_entry(name, value)
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ValueError(f"{path} cannot be read as an ONNX graph: {error}") from error


def external_files(path: Path) -> list[Path]:
    """The files that hold tensors of an ONNX graph outside of it, wherever the graph says that they lie; sorted.

    Raises:
        ImportError: the onnx package is missing.
    """
    try:
        import onnx
        from onnx.external_data_helper import ExternalDataInfo, uses_external_data
    except ImportError as error:
        raise ImportError("onnx/ encoders need the package onnx: pip install 'eyespot[onnx]'") from error
    model = onnx.load(str(path), load_external_data=False)
    places = {ExternalDataInfo(tensor).location for tensor in _tensors(model) if uses_external_data(tensor)}
    return [path.parent / place for place in sorted(places)]


def _tensors(message: Any) -> Iterator[Any]:
    """All tensors in a message of onnx: of the graph, of graphs inside it, of functions, sparse ones, in attributes."""
    if message.DESCRIPTOR.name == "TensorProto":
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in [value] if hasattr(value, "ListFields") else value:
                yield from _tensors(part)


class OnnxEncoder(FileEncoder):
    """An ONNX file as (frozen) encoder; `options` are those of `exported.FileEncoder`."""

    def __init__(self, path: str | Path, *, threads: int | None = None, **options: Any) -> None:
        super().__init__("onnx", path, open_session(path, threads), **options)
