"""`audit`: teachers and pictures in, tables out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from lightning_fabric import Fabric

from eyespot import __version__
from eyespot.audit.config import VIEW, AuditConfig
from eyespot.audit.leave_one_out import Experiment, SeedResult
from eyespot.audit.markdown import markdown_of
from eyespot.audit.pictures import AuditPictures, open_pictures
from eyespot.audit.result import CommitteeAudit, read_student
from eyespot.audit.similarity import Matrix, coarsest_grid, inner_levels, look, similarity
from eyespot.data import DataConfig
from eyespot.distill.committee import Committee, load_committee
from eyespot.distill.features.standardizers import FeatureStandardizer
from eyespot.distill.warm_start import new_encoder
from eyespot.encoders import Encoder
from eyespot.encoders.identity import identity
from eyespot.engine.strategy import start_fabric
from eyespot.features import Features
from eyespot.files import atomic_write_text, read_json, understood
from eyespot.outputs import FolderKind, holds

AUDIT_FOLDER = FolderKind("an audit", holds("seeds/*-seed-*.json"))


def audit(
    teachers: Sequence[str] | Mapping[str, Encoder],
    data: str | Sequence[str] | DataConfig,
    config: AuditConfig | None = None,
    output: str | Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> CommitteeAudit:
    """Says which teachers of a committee complement each other and which fight, by small experiments.

    Equal arguments give equal numbers on one machine.

    Args:
        teachers: specs, or encoders by name.
        data: folders, shards or toybox, see `DataConfig.sources`; or a whole `DataConfig` (size and seed are set here).
        config: see `AuditConfig`.
        output: folder for audit.json, audit.md and finished seeds, which the same call does not train again.
        say: told what is going on.

    Raises:
        ValueError: fewer than two teachers, too few pictures, features that are not finite.
        FileNotFoundError: no pictures where `data` says.
        FileExistsError, NotADirectoryError: something else than an audit lies at `output`.
        InUseError: another process works in `output`.
    """
    config = config or AuditConfig()
    if isinstance(teachers, str) or len(teachers) < 2:
        raise ValueError("an audit compares teachers: name at least two")
    if not isinstance(data, DataConfig):
        data = DataConfig(sources=[data] if isinstance(data, str) else list(data), view=VIEW)
    fabric = start_fabric(config.engine)
    with AUDIT_FOLDER.work_in(output if fabric.is_global_zero else None):
        found = _audit(fabric, teachers, data, config, None if output is None else Path(output), say)
        if output is not None:
            atomic_write_text(Path(output) / "audit.json", found.to_json())
            atomic_write_text(Path(output) / "audit.md", markdown_of(found))
    return found


def _audit(
    fabric: Fabric,
    teachers: Sequence[str] | Mapping[str, Encoder],
    data: DataConfig,
    config: AuditConfig,
    output: Path | None,
    say: Callable[[str], None],
) -> CommitteeAudit:
    if isinstance(teachers, Mapping):
        committee = Committee(teachers, config.max_grid)
    else:
        committee = load_committee(teachers, config.max_grid)
    committee.to(fabric.device)
    pictures = open_pictures(data, _view_size(committee, config), config.held_out)
    say(f"{len(committee.teachers)} teachers look at {config.held_out} held-out pictures")
    seen = _look(committee, pictures, config, fabric.device)
    standardizers = {name: _standardizer(name, features) for name, features in seen.items()}
    grid = coarsest_grid(seen.values())
    levels = inner_levels(committee, pictures.held_out, config.batch_size, config.teacher_size, fabric.device, grid)
    alike = similarity(seen, levels)
    experiment = Experiment(
        fabric=fabric,
        committee=committee,
        pictures=pictures,
        targets={name: standardizers[name](features) for name, features in seen.items()},
        standardizers=standardizers,
        config=config,
    )
    finished = _Finished(None if output is None else output / "seeds", _setting(committee, pictures, config))
    results = [finished.result(seed, experiment, say) for seed in config.seeds]
    return CommitteeAudit(
        teachers=tuple(seen),
        similarity=alike,
        students=[student for result in results for student in result.students],
        conflict=_mean_conflict([result.conflict for result in results]),
        tolerance=config.tolerance,
        settings={
            "teachers": {name: teacher.name for name, teacher in committee.items()},
            "data": data.sources,
            **json.loads(json.dumps(asdict(config))),
        },
    )


def _view_size(committee: Committee, config: AuditConfig) -> int:
    """Side of the pictures: made once, as large as anybody looks at them."""
    student = new_encoder(config.student, config.seeds[0], "audit")
    sides = [max(teacher.fitting_size(config.teacher_size)) for _, teacher in committee.items()]
    return max(*sides, *student.fitting_size(config.size))


def _look(
    committee: Committee, pictures: AuditPictures, config: AuditConfig, device: torch.device
) -> dict[str, Features]:
    return look(committee, pictures.held_out, config.batch_size, config.teacher_size, device)


def _standardizer(name: str, features: Features) -> FeatureStandardizer:
    """A teacher's standardizer, from its features of the held-out pictures: one scale for all seeds.

    Raises:
        ValueError: NaN or infinite features; says whose.
    """
    standardizer = FeatureStandardizer("channel", (features.summary.shape[1], features.patches.shape[1]))
    standardizer.observe(features)
    try:
        standardizer.finish()
    except ValueError as error:
        raise ValueError(f"teacher {name!r}: {error}") from error
    return standardizer


def _mean_conflict(conflicts: Sequence[Mapping[str, Matrix]]) -> dict[str, Matrix]:
    """Mean over seeds, entry by entry."""
    return {
        steps: {
            row: {column: mean(conflict[steps][row][column] for conflict in conflicts) for column in columns}
            for row, columns in matrix.items()
        }
        for steps, matrix in conflicts[0].items()
    }


def _setting(committee: Committee, pictures: AuditPictures, config: AuditConfig) -> str:
    """Names everything that one seed's numbers depend on but the seed."""
    plain = asdict(config)
    for free in ("seeds", "tolerance", "engine"):
        del plain[free]
    facts = {
        "config": plain,
        "precision": config.engine.precision,
        "teachers": {name: identity(teacher) for name, teacher in committee.items()},
        "pictures": pictures.fingerprint(),
        "views": {**asdict(pictures.data), "workers": None, "keep_decoded": None, "sources": None},
        "eyespot": __version__,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class _Finished:
    """Seeds that were trained before, a small file each; without a folder nothing is remembered."""

    folder: Path | None
    setting: str

    def result(self, seed: int, experiment: Experiment, say: Callable[[str], None]) -> SeedResult:
        """A seed's result, read or made."""
        file = None if self.folder is None else self.folder / f"{self.setting}-seed-{seed}.json"
        if file is not None and file.is_file():
            say(f"seed {seed}: measured before")
            with understood(file, "delete it to measure again"):
                return _read(read_json(file))
        say(f"seed {seed}: students learn for {experiment.config.steps} steps")
        result = experiment.run(seed)
        if file is not None:
            atomic_write_text(file, json.dumps(asdict(result)))
        return result


def _read(facts: dict[str, Any]) -> SeedResult:
    return SeedResult([read_student(entry) for entry in facts["students"]], facts["conflict"])
