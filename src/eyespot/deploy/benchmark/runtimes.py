"""The runtimes that can be timed: how each is made from a model, and in which precision it computes."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from eyespot.specs import lookup


@dataclass(frozen=True)
class Runtime:
    """A way to run a model.

    Attributes:
        name: as the user writes it.
        precision: in which it computes nearly all products, and with whose peak its speed is compared; None if unknown.
        format: export format whose file it runs; None for torch itself.
        int8: whether the export is quantised.
        options: of the session that opens the file.
        library: module that runs it, beside torch.
        tools: further modules that make the file.
    """

    name: str
    precision: str | None = "float32"
    format: str | None = None
    int8: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    library: str | None = None
    tools: tuple[str, ...] = ()

    @property
    def missing(self) -> str | None:
        """Why it cannot be used here, or None."""
        needs = ([self.library.partition(".")[0]] if self.library else []) + [*self.tools]
        lacking = [name for name in needs if importlib.util.find_spec(name) is None]
        if not lacking:
            return None
        return f"{' and '.join(lacking)} not installed: pip install 'eyespot[{self.format}]'"


def _of(format: str, library: str | None = None, tools: tuple[str, ...] = ()) -> Callable[..., Runtime]:
    return partial(Runtime, format=format, library=library, tools=tools)


_onnx = _of("onnx", "onnxruntime", ("onnx",))
_openvino = _of("openvino", "openvino")
_executorch = _of("executorch", "executorch.extension.pybindings.portable_lib")

_RUNTIMES = (
    Runtime("eager"),
    Runtime("eager-bf16", "bfloat16"),
    Runtime("compile"),
    Runtime("torch", format="torch"),
    _onnx("onnx"),
    _onnx("onnx-int8", "int8", int8=True),
    _openvino("openvino", options={"precision": "f32"}),
    _openvino("openvino-bf16", "bfloat16", options={"precision": "bf16"}),
    _openvino("openvino-int8", "int8", int8=True, options={"precision": "f32"}, tools=("nncf",)),
    _executorch("executorch"),
    _executorch("executorch-int8", "int8", int8=True, tools=("torchao",)),
    Runtime("litert", format="litert", library="ai_edge_litert.interpreter", tools=("litert_torch",)),
)
RUNTIMES = {runtime.name: runtime for runtime in _RUNTIMES}
"""By name, in the order of tables."""

BASELINE = "eager"
"""What ratios are taken to."""

LIBRARIES = ("onnxruntime", "openvino", "nncf", "executorch", "torchao", "ai-edge-litert")


def find_runtimes(names: Iterable[str]) -> list[Runtime]:
    """Runtimes by name, each once, in the order given.

    Raises:
        ValueError: an unknown name; says the nearest.
    """
    return [lookup(RUNTIMES, name, "runtime") for name in dict.fromkeys(names)]


def library_versions() -> dict[str, str]:
    """Versions of the runtimes' libraries that are installed."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
