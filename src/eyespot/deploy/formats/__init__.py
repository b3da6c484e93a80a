"""Export formats: one module per target, each with `write(graph, file)` and, where int8 is possible, `write_int8`."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eyespot.specs import lookup

if TYPE_CHECKING:
    from eyespot.deploy.formats.int8 import Int8Writer


@dataclass(frozen=True)
class Format:
    """A file format that encoders can be exported to.

    Attributes:
        name: as users write it; also the name of the extra that brings its libraries.
        about: where it runs, for people.
        file: name of the file in the export's folder.
        runs_here: whether `load_encoder("NAME/FILE")` can run it on any machine (Core ML runs on Apple's only).
        open_sizes: whether batch and picture size may be left open.
        int8: module and function that write int8, None if the format has none.
        beside: names of further files that belong to `file`.
    """

    name: str
    about: str
    file: str
    runs_here: bool = True
    open_sizes: bool = False
    int8: str | None = None
    beside: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        """Names of all that the format consists of."""
        return (self.file, *self.beside)

    @property
    def write(self) -> Callable[..., None]:
        """(graph, file): writes a float32 file."""
        return _function(f"{self.name}.write")

    @property
    def write_int8(self) -> Int8Writer:
        """Writes an int8 file.

        Raises:
            ValueError: the format has none.
        """
        if self.int8 is None:
            able = ", ".join(known.name for known in FORMATS.values() if known.int8)
            raise ValueError(f"there is no int8 for {self.name}; there is for {able}")
        found: Int8Writer = _function(self.int8)
        return found


_FORMATS = (
    Format(
        "onnx",
        "ONNX Runtime, on servers, phones and in browsers",
        "model.onnx",
        True,
        True,
        "onnx_int8.write_int8",
        ("model.onnx.data",),
    ),
    Format(
        "openvino", "Intel and other x86 processors", "model.xml", True, True, "openvino.write_int8", ("model.bin",)
    ),
    Format("executorch", "phones and microcontrollers", "model.pte", True, False, "executorch.write_int8"),
    Format("coreml", "Apple's devices", "model.mlpackage", runs_here=False),
    Format("litert", "Android", "model.tflite"),
    Format("torch", "wherever torch runs", "model.pt2", open_sizes=True),
)
FORMATS = {known.name: known for known in _FORMATS}


def find_format(name: str) -> Format:
    """A format by name.

    Raises:
        ValueError: there is no such format; names the nearest.
    """
    return lookup(FORMATS, name, "format")


def _function(place: str) -> Any:
    module, _, function = place.partition(".")
    return getattr(importlib.import_module(f"{__name__}.{module}"), function)
