"""torch's own format, .pt2: for servers and workstations with torch, and for compiling on the spot."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from eyespot.deploy.graph import Graph
from eyespot.encoders.runtimes.torch import FACTS_FILE, NAMES_FILE


def write(graph: Graph, file: Path) -> None:
    """Writes the program with the names of its outputs and its facts beside it in the archive."""
    extra = {NAMES_FILE: json.dumps(graph.names), FACTS_FILE: json.dumps(graph.facts)}
    torch.export.save(graph.program, file, extra_files=extra)
