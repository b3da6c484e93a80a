"""What a page says about training runs, whether one has just finished or several lie in folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from eyespot.encoders.lineage import Teacher
from eyespot.report.exhibits.curves import Records, overlaid_curves, probe_curves, training_curves
from eyespot.report.exhibits.figures import Figure
from eyespot.report.pages.html import short_count
from eyespot.report.pages.licence_box import LicenceBox


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """One run.

    Attributes:
        config: its configuration as YAML.
        students: architecture and number of parameters of each finished student.
        teachers: all that they were learnt from.
        records: see `read_metrics`.
        probes: see `read_probes`.
        machine: the one that finished the run, see `machine_info`.
    """

    config: str
    students: Sequence[tuple[str, int]] = ()
    teachers: Sequence[Teacher] = ()
    records: Records = field(default_factory=dict)
    probes: Records = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)

    @property
    def headline(self) -> dict[str, Any]:
        """What to see first: students, how large they are, how many taught them, and for how long."""
        facts: dict[str, Any] = {}
        if self.students:
            architectures, sizes = zip(*self.students, strict=True)
            facts["student" if len(self.students) == 1 else "students"] = ", ".join(dict.fromkeys(architectures))
            facts["parameters"] = ", ".join(dict.fromkeys(short_count(size) for size in sizes))
            facts["teachers"] = len(self.teachers)
        seconds = sum(lines[-1].get("seconds", 0.0) for lines in self.records.values())
        return facts | ({"training": f"{seconds / 60:.1f} min"} if seconds else {})


def run_sections(runs: Mapping[str, TrainingRun], alone: bool = True) -> dict[str, Any]:
    """The sections of a `Report` that are about training runs.

    Args:
        runs: name -> run. With several their curves lie over each other.
        alone: whether the page is about a single run, whose teachers need no heading.
    """
    boxes = {name: LicenceBox("" if alone else f"{name}: learnt from", run.teachers) for name, run in runs.items()}
    return {
        "headline": _headline(list(runs.values())),
        "curves": _curves(runs),
        "licences": [box for box in boxes.values() if box.models],
        "configs": {name: run.config for name, run in runs.items()},
        "machines": {name: run.machine for name, run in runs.items() if run.machine},
    }


def _headline(runs: Sequence[TrainingRun]) -> dict[str, Any]:
    if len(runs) == 1:
        return runs[0].headline
    return {"runs": len(runs)} if runs else {}


def _curves(runs: Mapping[str, TrainingRun]) -> list[Figure]:
    records = {name: run.records for name, run in runs.items() if run.records}
    probes = {name: run.probes for name, run in runs.items() if run.probes}
    if len(records) > 1:
        return [*probe_curves(probes), *overlaid_curves(records)]
    return [*probe_curves(probes), *(figure for one in records.values() for figure in training_curves(one))]
