"""Writes docs/tested-encoders.md: every model that the shared test case of the encoders runs over. No network needed.

python benchmarks/tested_encoders.py
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import torch
from timm.models import get_pretrained_cfg

from eyespot.encoders import Encoder, load_encoder
from eyespot.encoders.licenses import timm_license
from eyespot.files import atomic_write_text

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "encoders"))

from zoo import ENTRIES  # noqa: E402
from zoo_timm import GIANTS, TINY  # noqa: E402

TABLE = ROOT / "docs" / "tested-encoders.md"
HEAD = """# Tested encoders

Written by `benchmarks/tested_encoders.py`; a test fails when it is out of date.

`tests/encoders/test_encoder_properties.py` asks the same of each of these models: widths, stride and grid are as
announced at several sizes; wrong pictures and sizes are refused; mean and std are applied once; class and register
tokens stay out of the patches; results are equal alone and in a batch, from run to run, after saving and loading and
after `torch.export`, and close in bfloat16; inner layers are maps. Weights are random: what is tested is the code that
reads a model, not what others trained.

*Width* is that of the summary, then of the patches where it differs. *Stride* is pixels per patch. *Size* is what the
model was made for; it takes any multiple of its stride unless it says *only*. *Licence* is what the source states for
the weights of that name, – where it states none.
"""
TIMM = """
## timm

Numbers are those of the full model. Families were tested in a small configuration, if the last column names one.

| spec | parameters | width | stride | size | licence | tested as |
|---|---|---|---|---|---|---|
"""
LARGE = """
## Giants

Built without memory for their weights; only the shapes were checked.

| spec | parameters | width | stride | size | licence |
|---|---|---|---|---|---|
"""
OTHERS = """
## Other sources

Architectures and file layouts are real, the models themselves were made up for the test: numbers are those of the small
model, and a licence is shown only where the name is that of released weights.

| spec | model | parameters | width | stride | size | licence |
|---|---|---|---|---|---|---|
"""


def table() -> str:
    """The text of the whole page."""
    lines = [HEAD, TIMM, *map(timm_row, TINY), LARGE, *map(giant_row, GIANTS), OTHERS]
    return "".join([*lines, *(other_row(label) for label in ENTRIES if label not in TINY)])


def timm_row(architecture: str) -> str:
    tested = TINY[architecture].replace("&", " ") or "full"
    return _row(*_timm_cells(architecture), tested)


def giant_row(architecture: str) -> str:
    return _row(*_timm_cells(architecture))


def other_row(label: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        spec = ENTRIES[label](Path(folder))
        encoder = load_encoder(spec)
    written = spec.replace(f"/{folder}", "/FOLDER").replace(folder, "FOLDER")
    licence = encoder.license if spec.startswith("eupe/") else None  # the others' are as made up as the models
    return _row(f"`{written}`", label, *_sizes(encoder), licence or "–")


def _timm_cells(architecture: str) -> list[str]:
    with torch.device("meta"):
        encoder = load_encoder(f"timm/{architecture}", pretrained=False)
    cfg = get_pretrained_cfg(architecture)
    name = f"{architecture}.{cfg.tag}" if cfg.tag and cfg.has_weights else architecture
    return [f"`timm/{name}`", *_sizes(encoder), (cfg.has_weights and timm_license(cfg.to_dict())) or "–"]


def _sizes(encoder: Encoder) -> list[str]:
    parameters = sum(weight.numel() for weight in encoder.parameters())
    widths = dict.fromkeys((encoder.summary_dim, encoder.patch_dim))
    size = "x".join(map(str, encoder.default_size))
    return [
        _short(parameters),
        " / ".join(map(str, widths)),
        str(encoder.stride),
        size if encoder.native_size is None else f"{size} only",
    ]


def _short(count: int) -> str:
    for unit, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= unit:
            return f"{count / unit:.3g}{letter}"
    return str(count or "–")


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=TABLE, help="default: docs/tested-encoders.md")
    atomic_write_text(parser.parse_args().output, table())


if __name__ == "__main__":
    main()
