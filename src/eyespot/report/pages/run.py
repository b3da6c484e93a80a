"""The end of a run: the student's folder with its card, and the report."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from eyespot.encoders import save_encoder
from eyespot.encoders.base import Encoder
from eyespot.encoders.licenses import hub_license, verdict
from eyespot.encoders.lineage import Teacher
from eyespot.engine.run import RunFolder
from eyespot.evaluate.during_training import read_probes
from eyespot.evaluate.extraction import FeatureBank
from eyespot.evaluate.results import ResultTable
from eyespot.report.exhibits.curves import read_metrics
from eyespot.report.exhibits.figures import AnyFigure
from eyespot.report.exhibits.gallery import Exhibit, Gallery
from eyespot.report.exhibits.seen import Seen, sizes_around
from eyespot.report.machine import machine_info
from eyespot.report.pages.card import model_card
from eyespot.report.pages.html import Report
from eyespot.report.pages.training import TrainingRun, run_sections


@dataclass(frozen=True, kw_only=True)
class RunStory:
    """What is to be told about a finished run.

    Attributes:
        titles: heading of each student's card, by its label; the report's is made of them.
        summary: one or two sentences: what was distilled into what.
        teachers: all that the student was learnt from, directly or through a proxy.
        data: the training pictures, one phrase per source.
        config: the resolved configuration.
        encoders: label -> encoder, for PCA pictures, the students last; the colours of the others follow the last one.
        pictures: [B, 3, H, W] in [0, 1], for PCA pictures.
        size: shorter side at which encoders that take any size see them; half of it and, up to 512, twice as much are
            shown too. The pictures' own if None.
        results: what was measured, if anything.
        failures: reason by name of pictures that could not be read.
        exhibits: what else is shown of the students.
    """

    titles: Mapping[str, str]
    summary: str
    teachers: Sequence[Teacher]
    data: Sequence[str]
    config: Mapping[str, Any]
    encoders: Mapping[str, Encoder]
    pictures: Tensor
    size: int | None = None
    results: ResultTable | None = None
    failures: Mapping[str, str] = field(default_factory=dict)
    exhibits: Sequence[Exhibit] = ()


def write_student(run: RunFolder, name: str, encoder: Encoder, story: RunStory) -> Path:
    """Writes a finished student to its folder in the run, with licence, card and adapter heads."""
    judged = verdict(teacher["licence"] for teacher in story.teachers)
    card = model_card(
        encoder,
        title=story.titles[name],
        summary=story.summary,
        teachers=story.teachers,
        results=story.results,
        data=story.data,
        config_hash=hashlib.sha256(json.dumps(story.config, sort_keys=True).encode()).hexdigest()[:12],
        machine=machine_info(),
    )
    return save_encoder(
        encoder,
        run.student if name == "student" else run.students / name,
        license=hub_license(judged)["license"],
        details={"teachers": list(story.teachers), "machine": machine_info()},
        card=card,
    )


def write_run_report(run: RunFolder, story: RunStory) -> Path:
    """Writes `report.html`: headline, table, radar, PCA pictures, curves, licences, configuration, machine."""
    students = {label: story.encoders[label] for label in story.titles}
    facts = TrainingRun(
        config=yaml.safe_dump(dict(story.config), sort_keys=False),
        students=[
            (student.architecture or label, sum(weight.numel() for weight in student.parameters()))
            for label, student in students.items()
        ],
        teachers=story.teachers,
        records=read_metrics(run.metrics),
        probes=read_probes(run.probes),
        machine=machine_info(),
    )
    title = next(iter(story.titles.values())) if len(students) == 1 else f"{len(students)} students, distilled together"
    report = Report(
        title=title,
        summary=story.summary,
        table=story.results,
        figures=[*_shown(story), *(_seen(story) if len(story.pictures) else [])],
        failures=[f"{name}: {reason}" for name, reason in story.failures.items()],
        **run_sections({run.path.name: facts}),
    )
    report.write(run.report)
    return run.report


def _shown(story: RunStory) -> list[AnyFigure]:
    gallery = Gallery(story.exhibits)
    for label in story.titles:
        gallery.add(label, FeatureBank(story.encoders[label]))
    return gallery.figures()


def _seen(story: RunStory) -> list[AnyFigure]:
    size = story.size or min(story.pictures.shape[2:])
    gallery = Gallery([Seen(story.pictures, size, sizes_around(size))])
    for label, encoder in story.encoders.items():
        gallery.add(label, FeatureBank(encoder))
    return gallery.figures()
