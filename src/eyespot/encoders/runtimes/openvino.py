"""`openvino/FILE.xml`: networks in OpenVINO's format, run by OpenVINO on the CPU."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from eyespot.encoders.runtimes.exported import FileEncoder, existing, open_size

FACTS = "eyespot"  # the section of the file's own notes (`rt_info`) that our facts are in
Precision = Literal["f32", "bf16"]


class OpenvinoSession:
    """A network in OpenVINO; see `exported.Session`."""

    def __init__(self, network: Any, compiled: Any, path: Path) -> None:
        shape = [side.get_length() if side.is_static else None for side in network.inputs[0].partial_shape]
        self.batch, self.size = open_size("openvino", shape, path)
        self.outputs = tuple(output.any_name for output in network.outputs)
        self.metadata = _facts(network)
        self._places = {name: place for place, name in enumerate(self.outputs)}
        self._request = compiled.create_infer_request()

    def run(self, images: Tensor, names: Sequence[str]) -> list[Tensor]:
        """See `exported.Session`."""
        self._request.infer([images.numpy()], share_inputs=True)
        tensors = [self._request.get_output_tensor(self._places[name]) for name in names]
        return [torch.from_numpy(tensor.data.copy()) for tensor in tensors]


def open_session(path: str | Path, threads: int | None = None, precision: Precision = "f32") -> OpenvinoSession:
    """Opens a network in OpenVINO's format, for quick single answers.

    Args:
        path: the .xml file; its weights lie beside it in the .bin file.
        threads: how many it computes with; as many as torch has now if None.
        precision: what is not int8 is computed in this: "f32" exactly so, or "bf16" (8 bits of mantissa), which is
            faster on processors that have it and refused on others.

    Raises:
        ImportError: openvino is missing.
        FileNotFoundError: no such file, or its weights are not beside it.
        ValueError: the file is damaged or takes no pictures, or the processor does not have this precision.
    """
    openvino = import_openvino()
    path = existing(path, "openvino")
    if precision not in ("f32", "bf16"):
        raise ValueError(f"precision is f32 or bf16, got {precision!r}")
    if path.suffix == ".xml":
        existing(path.with_suffix(".bin"), "openvino")
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
