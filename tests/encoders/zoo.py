"""The zoo: every source's entries for the shared test case, and for the table in docs/tested-encoders.md.

An entry is a label and a function that writes what the model needs into an empty folder and returns the spec for
`load_encoder`. Each source keeps its own in zoo_SOURCE.py.
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

SOURCES = ("timm", "files", "hf", "open_clip", "torchhub", "eupe")


def _entries(source: str) -> dict[str, Callable[[Path], str]]:
    try:
        return import_module(f"zoo_{source}").ENTRIES
    except ModuleNotFoundError as error:
        if (error.name or "").startswith(("eyespot", "zoo")):
            raise
        missing = error  # the optional library that this source writes its models with

        def write(folder: Path) -> str:
            raise missing

        return {source: write}


ENTRIES = {label: entry for source in SOURCES for label, entry in _entries(source).items()}
