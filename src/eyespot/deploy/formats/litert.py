"""LiteRT (TensorFlow Lite), through litert-torch: Android, and whatever else runs .tflite files."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import json
import zipfile
from pathlib import Path

from torch import Tensor, nn

from eyespot.deploy.formats.nearest import REWRITES
from eyespot.deploy.graph import Graph
from eyespot.encoders.runtimes.litert import FACTS_MEMBER


def write(graph: Graph, file: Path) -> None:
    """Writes a .tflite file: float32, one signature with input `images` and the graph's outputs by name.

    The input stays [B, 3, H, W], as in all our formats. The facts are the entry `eyespot.json` of a ZIP archive behind
    the model, where LiteRT's files keep what the runtime need not read.

    Raises:
        ImportError: litert-torch is missing.
        ValueError: it cannot convert the graph; says which versions were tried.
    """
    try:
        import litert_torch
    except ImportError as error:
        raise ImportError(
            "LiteRT export needs litert-torch: in a fresh environment, pip install litert-torch, then "
            "pip install 'eyespot[litert]'; see docs/deploy/litert.md for why in this order"
        ) from error
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it tells each step
            model = litert_torch.convert(_Named(graph), sample_kwargs={"images": graph.example()})
            model.export(str(file))
    except Exception as error:
        versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("litert-torch", "torch"))
        raise ValueError(f"{graph.facts['name']} cannot be converted by {versions}: {error}") from error
    _append_facts(file, graph.facts)


class _Named(nn.Module):
    """The graph with its outputs in a dictionary, which is where litert-torch takes their names from."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.program = graph.program.run_decompositions(REWRITES).module()
        self.names = graph.names
        self.training = False  # not eval(), which programs of torch.export refuse

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return dict(zip(self.names, self.program(images), strict=True))


def _append_facts(file: Path, facts: dict[str, str]) -> None:
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(zipfile.ZipInfo(FACTS_MEMBER), json.dumps(facts))
