"""`openvino/FILE.xml`: networks in OpenVINO's format, run by OpenVINO on the CPU."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from eyespot.encoders.runtimes.exported import FileEncoder, existing
from eyespot.encoders.runtimes.inputs import as_floats, read_input
from eyespot.encoders.runtimes.onnx import external_files

FACTS = "eyespot"  # the section of the file's own notes (`rt_info`) that our facts are in
_TYPES = (torch.float32, torch.float16, torch.float64, torch.uint8)
Precision = Literal["f32", "bf16"]


class OpenvinoSession:
    """A network in OpenVINO; see `exported.Session`."""

    def __init__(self, network: Any, compiled: Any, path: Path) -> None:
        entry = network.inputs[0]
        shape = [side.get_length() if side.is_static else None for side in entry.partial_shape]
        names = [one.any_name if one.names else str(place) for place, one in enumerate(network.inputs)]
        dtype = entry.element_type.get_type_name()
        self.taken = read_input("openvino", path, names, shape, dtype, _TYPES)
        self.files = _files_of(path)
        self.outputs = tuple(output.any_name for output in network.outputs)
        self.metadata = _facts(network)
        self._places = {name: place for place, name in enumerate(self.outputs)}
        self._request = compiled.create_infer_request()

    def run(self, images: Tensor, names: Sequence[str]) -> list[Tensor]:
        """See `exported.Session`."""
        pictures = self.taken.of(images).numpy()
        self._request.infer([pictures], share_inputs=True)
        tensors = [self._request.get_output_tensor(self._places[name]) for name in names]
        return [as_floats(name, tensor.data.copy()) for name, tensor in zip(names, tensors, strict=True)]


def open_session(path: str | Path, threads: int | None = None, precision: Precision = "f32") -> OpenvinoSession:
    """Opens a network in OpenVINO's format, for quick single answers.

    Args:
        path: the .xml file; its weights lie beside it in the .bin file. OpenVINO reads .onnx and .tflite as well.
        threads: how many it computes with; as many as torch has now if None.
        precision: what is not int8 is computed in this: "f32" exactly so, or "bf16" (8 bits of mantissa), which is
            faster on processors that have it and refused on others.

    Raises:
        ImportError: openvino is missing.
        FileNotFoundError: no such file, or its weights are not beside it.
        ValueError: the file is damaged, of another format or takes no pictures, or the processor does not have this
            precision.
    """
    openvino = import_openvino()
    path = existing(path, "openvino")
    if precision not in ("f32", "bf16"):
        raise ValueError(f"precision is f32 or bf16, got {precision!r}")
    for file in _files_of(path):
        existing(file, "openvino")
    core = openvino.Core()
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise ValueError("this processor does not compute in bf16; take precision=f32")
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads or torch.get_num_threads(),
        "ENABLE_CPU_PINNING": False,  # pinned threads of several processes would all sit on the first cores
    }
    try:
        network = core.read_model(path)
        compiled = core.compile_model(network, "CPU", settings)
    except RuntimeError as error:
        raise ValueError(f"{path} cannot be read as an OpenVINO network: {error}") from error
    return OpenvinoSession(network, compiled, path)


def _files_of(path: Path) -> list[Path]:
    """The file and those that hold its weights.

    Raises:
        ValueError: a format of which it is not known where its weights lie.
    """
    if path.suffix == ".xml":
        return [path, path.with_suffix(".bin")]
    if path.suffix == ".onnx":
        return [path, *external_files(path)]
    if path.suffix == ".tflite":
        return [path]
    raise ValueError(f"openvino/{path}: an OpenVINO model is an .xml file; convert this one with OpenVINO's ovc first")


def import_openvino(module: str = "openvino") -> Any:
    """OpenVINO, or a library that stands on it, without the usage reports that it sends from its import on.

    The reports are left out for the whole process, whoever imports OpenVINO next.

    Raises:
        ImportError: it is missing.
    """
    if sys.modules.get("openvino_telemetry") is None:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # to import it is an error, which they expect
    else:  # somebody has imported OpenVINO already
        sender = importlib.import_module("openvino_telemetry.utils.sender").TelemetrySender
        sender.send = lambda self, backend, message: None
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"this needs {module}: pip install 'eyespot[openvino]'") from error


def _facts(network: Any) -> dict[str, str]:
    if not network.has_rt_info([FACTS]):
        return {}
    return {name: value.value if hasattr(value, "value") else value for name, value in network.rt_info[FACTS].items()}


class OpenvinoEncoder(FileEncoder):
    """An OpenVINO network as (frozen) encoder; see `open_session`; `options` are those of `exported.FileEncoder`."""

    def __init__(
        self, path: str | Path, *, threads: int | None = None, precision: Precision = "f32", **options: Any
    ) -> None:
        super().__init__("openvino", path, open_session(path, threads, precision), **options)
