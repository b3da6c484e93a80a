"""What runtimes need on disk, made once and kept beside the results."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import torch

import eyespot
from eyespot.deploy.benchmark.loading import COMPILE, Target, open_target, seeded_encoder
from eyespot.deploy.benchmark.runtimes import Runtime, library_versions
from eyespot.deploy.benchmark.table import Group
from eyespot.deploy.export import Int8, export
from eyespot.deploy.formats import FORMATS

COMPLETE = "complete"
CALIBRATION_PICTURES = 16
"""Of the toybox: enough for ranges that compute at the usual speed, which does not depend on them."""


def export_folder(root: Path, weights: str, runtime: Runtime, group: Group, threads: int) -> Path | None:
    """Where the export of a model for a runtime is kept; None for a runtime that needs none.

    The name tells weights, format, size, batch, versions of the libraries and the code that exports, so that what is
    there is up to date.
    """
    if runtime.format is None and runtime.name != COMPILE:
        return None
    kind = f"{runtime.format}{'-int8' if runtime.int8 else ''}" if runtime.format else f"{COMPILE}-{threads}threads"
    versions = {"eyespot": eyespot.__version__, "torch": str(torch.__version__), **library_versions()}
    key = json.dumps([group.model, weights, kind, group.size, group.batch, versions, _code(runtime.format)])
    name = re.sub(r"[^\w.]+", "-", group.model.partition("?")[0]).strip("-")[-60:]
    height, width = group.size
    digest = hashlib.sha256(key.encode()).hexdigest()[:10]
    return root / f"{name}-{height}x{width}-batch{group.batch}-{kind}-{digest}"


def _code(format: str | None) -> str:
    """Hash of the modules that export to a format."""
    deploy = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for file in [*sorted(deploy.glob("*.py")), *sorted((deploy / "formats").glob(f"{format}*.py"))]:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def prepare(group: Group, runtime: Runtime, folder: Path) -> Path:
    """Makes the export of a model for a runtime, if it is not there; for `compile`, torch's cache of compiled code.

    An int8 export rounds every layer that its format can round, and is checked numerically only: what int8 costs a
    model's tasks is for `export` to tell.

    Returns:
        The file (for `compile`, the folder) that a `Target` names.
    """
    if runtime.format is None:
        if not (folder / COMPLETE).exists():
            folder.mkdir(parents=True, exist_ok=True)
            open_target(Target(group.model, runtime, group.batch, group.size, folder))[0]()
            (folder / COMPLETE).touch()
        return folder
    if not folder.is_dir():
        int8 = Int8(count=CALIBRATION_PICTURES, keep_float=(), data=None) if runtime.int8 else None
        encoder = seeded_encoder(group.model)
        export(encoder, runtime.format, folder, image_size=group.size, batch=group.batch, int8=int8)
    return folder / FORMATS[runtime.format].file
