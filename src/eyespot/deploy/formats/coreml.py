"""Core ML, through coremltools: an ML Program for Apple's devices."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from eyespot.deploy.formats.nearest import REWRITES
from eyespot.deploy.graph import Graph


def write(graph: Graph, file: Path, precision: Literal["float32", "float16"] = "float32") -> None:
    """Writes an .mlpackage: an ML Program with input `images` and the graph's outputs by name, all float32.

    It runs from iOS 16 and macOS 13 on. The facts are its user-defined metadata. In names of outputs, characters other
    than letters, digits and underscores become underscores.

    Args:
        graph: the graph.
        file: the package, a folder; its name must end in .mlpackage.
        precision: what it computes in. Only float16 runs on Apple's Neural Engine; that features equal those of the
            model is looked at in float32 only.

    Raises:
        ImportError: coremltools is missing.
        ValueError: it cannot convert the graph; says which versions were tried.
    """
    with _quiet():
        coremltools = _library()
        try:
            model = coremltools.convert(
                graph.program.run_decompositions(REWRITES),  # coremltools takes programs only after this step
                outputs=[coremltools.TensorType(name=name, dtype=np.float32) for name in graph.names],
                convert_to="mlprogram",
                compute_precision=getattr(coremltools.precision, precision.upper()),
                minimum_deployment_target=coremltools.target.iOS16,
                skip_model_load=True,
            )
        except Exception as error:
            versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("coremltools", "torch"))
            raise ValueError(f"{graph.facts['name']} cannot be converted by {versions}: {error}") from error
    model.short_description = f"{graph.facts['name']}, exported by eyespot"
    model.license = graph.facts.get("license", "unknown")
    model.user_defined_metadata.update(graph.facts)
    model.save(str(file))
    (file / "executorch_debug_handle_mapping.json").unlink(missing_ok=True)  # for debuggers, not for devices


def _library() -> Any:
    try:
        import coremltools
    except ImportError as error:
        raise ImportError("Core ML export needs coremltools: pip install 'eyespot[coreml]'") from error
    return coremltools


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without progress bars, and without warnings that torch is newer than coremltools' tests and that this is no Mac.

    The first holds for each of its releases; whether conversions are right all the same, our own tests look at.
    """
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
