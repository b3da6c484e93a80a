"""What of a run is finished, and whether it is still there later."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eyespot.engine.metrics import read_lines

CLOCK = ("seconds", "pictures_per_second")
"""Metrics that tell time and so differ between equal runs."""

Lines = list[dict[str, Any]]


@dataclass(frozen=True)
class State:
    """What a kill, a full disk or anything else must not take away.

    Attributes:
        models: digest by file of every finished stage and of the finished student.
        checkpoints: by stage, digest by name of every finished checkpoint.
        metrics: by stage, the lines that its newest checkpoint, or its finished model, stands behind.
        shards: digest by file of every finished shard of the teacher cache.
    """

    models: dict[str, str]
    checkpoints: dict[str, dict[str, str]]
    metrics: dict[str, Lines]
    shards: dict[str, str]


def look(run: Path, cache: Path) -> State:
    """The state of a run that nothing is writing at this moment."""
    models = {str(file.relative_to(run)): digest(file) for file in _model_files(run)}
    checkpoints = {
        stage.name: {path.name: digest(path) for path in finished_checkpoints(stage)} for stage in stages(run)
    }
    lines = read_lines(run / "metrics.jsonl")
    metrics = {
        stage.name: [
            _without_clock(line)
            for line in lines
            if line["stage"] == stage.name and (is_finished(stage) or line["step"] <= newest_step(stage))
        ]
        for stage in stages(run)
    }
    return State(models, checkpoints, metrics, {str(file.relative_to(cache)): digest(file) for file in shards(cache)})


def lost(before: State, after: State, keep: int, forgiven: Iterable[str] = ()) -> list[str]:
    """Everything of `before` that is gone or changed in `after`, in words.

    Args:
        before: an earlier state.
        after: a later one.
        keep: how many of the newest checkpoints a run keeps; older ones may go when newer ones are there.
        forgiven: shards that were damaged on purpose.
    """
    words = [f"{file} changed or gone" for file, sign in before.models.items() if after.models.get(file) != sign]
    for stage, known in before.checkpoints.items():
        now = after.checkpoints.get(stage, {})
        for name, sign in known.items():
            superseded = name not in now and sum(other > name for other in now) >= keep
            if now.get(name) != sign and not superseded:
                words.append(f"{stage}/{name} changed or gone")
    for stage, lines in before.metrics.items():
        if after.metrics.get(stage, [])[: len(lines)] != lines:
            words.append(f"metrics of {stage} changed or gone")
    for file, sign in before.shards.items():
        if after.shards.get(file) != sign and file not in forgiven:
            words.append(f"cache shard {file} changed or gone")
    return words


def differences(run: State, other: State) -> list[str]:
    """In what two finished runs differ: files of models, and metrics line by line."""
    names = sorted({*run.models, *other.models})
    words = [name for name in names if run.models.get(name) != other.models.get(name)]
    for stage in sorted({*run.metrics, *other.metrics}):
        ours, theirs = run.metrics.get(stage, []), other.metrics.get(stage, [])
        first = next((a["step"] for a, b in zip(ours, theirs, strict=False) if a != b), None)
        if first is not None:
            words.append(f"metrics of {stage} from step {first} on")
        elif len(ours) != len(theirs):
            words.append(f"metrics of {stage}: {len(ours)} lines against {len(theirs)}")
    return words


def stages(run: Path) -> list[Path]:
    """Folders of the stages that have begun, in order."""
    return sorted(run.glob("stage-*"))


def is_finished(stage: Path) -> bool:
    """Whether a stage has its result."""
    return (stage / "model" / "config.json").is_file()


def under_way(run: Path) -> Path | None:
    """The stage that is being trained."""
    return next((stage for stage in stages(run) if not is_finished(stage)), None)


def finished_checkpoints(stage: Path) -> list[Path]:
    """Files or folders of whole checkpoints, oldest first."""
    return sorted(path for path in stage.glob("checkpoints/step-*.ckpt") if re.fullmatch(r"step-\d+\.ckpt", path.name))


def newest_step(stage: Path) -> int:
    """Steps done at the newest checkpoint, 0 without one."""
    return max((int(path.stem.rpartition("-")[2]) for path in finished_checkpoints(stage)), default=0)


def shards(cache: Path) -> list[Path]:
    """Finished shards of the teacher cache."""
    return sorted(path for path in cache.rglob("rows-*.safetensors") if not path.name.startswith("."))


def temporaries(*folders: Path) -> list[Path]:
    """Files and folders under temporary names."""
    return sorted(path for folder in folders for path in folder.rglob("*") if path.name.endswith(".tmp"))


def progress(run: Path) -> str:
    """Stage and step of the newest line of metrics."""
    lines = read_lines(run / "metrics.jsonl")
    return f"{lines[-1]['stage']} {lines[-1]['step']}" if lines else "start"


def digest(path: Path) -> str:
    """Hash of a file, or of all files of a folder and their names."""
    sign = hashlib.blake2b(digest_size=16)
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            sign.update(str(file.relative_to(path)).encode())
            with open(file, "rb") as content:
                sign.update(hashlib.file_digest(content, "blake2b").digest())
    return sign.hexdigest()


def _model_files(run: Path) -> list[Path]:
    """Weights of what is finished; model cards and reports tell dates, so they are left out."""
    folders = [stage / "model" for stage in stages(run) if is_finished(stage)] + [run / "student"]
    return sorted(file for folder in folders for file in folder.glob("*.safetensors"))


def _without_clock(line: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in line.items() if key not in CLOCK}
