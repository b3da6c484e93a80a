"""What multi-task models answer, task by task, beside picture and truth; and how their routers mix the experts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import matplotlib
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure as Drawing
from torch import Tensor

from eyespot.data.labelled.samples import MultiTaskData, MultiTaskSample
from eyespot.data.loading.sampling import spread
from eyespot.dense_tasks import IGNORE, DenseTask, Kind
from eyespot.evaluate.extraction import FeatureBank
from eyespot.evaluate.protocols.multitask import METRICS, metric_for, predicted, shared_tasks
from eyespot.evaluate.protocols.multitask.routing import expert_names, has_routers, router_weights
from eyespot.report.drawing.colours import UNKNOWN
from eyespot.report.drawing.paints import (
    HEAT_SCALE,
    Paint,
    at,
    class_painter,
    depth_painter,
    known_shares,
    paint_boundaries,
    paint_heat,
    paint_normals,
    small,
    small_lines,
)
from eyespot.report.drawing.plots import style
from eyespot.report.exhibits.figures import PICTURE_SIDE, AnyFigure, Figure, PictureGrid, Scale, shrunk, svg_of
from eyespot.report.exhibits.gallery import Findings

_THRESHOLDS = 9  # of boundaries in a single picture: enough for a note below it
_ROUTED = 16  # pictures over which the routers' weights are averaged


@dataclass(frozen=True)
class _Look:
    """How the maps of one kind of task are shown.

    Attributes:
        words: what the colours mean.
        said: raw output [C, H, W] -> map to draw.
        true: label map -> map to draw.
        shrink: map -> map of at most the page's size.
    """

    words: str
    said: Callable[[Tensor], Tensor]
    true: Callable[[Tensor], Tensor] = field(default=lambda label: label)
    shrink: Callable[[Tensor], Tensor] = small


_LOOKS: Mapping[Kind, _Look] = {
    "classes": _Look(
        "Classes over the picture, with dark borders between them; equal colours are equal classes, grey is not "
        "labelled.",
        lambda output: output.argmax(dim=0).to(torch.uint8),
    ),
    "saliency": _Look(
        "What stands out, over the picture: the brighter, the more certain.",
        lambda output: output.softmax(dim=0)[1],
        known_shares,
    ),
    "boundary": _Look(
        "Boundaries: the darker, the more certain.", lambda output: output[0].sigmoid(), known_shares, small_lines
    ),
    "normals": _Look(
        "Which way surfaces face: the more to the right the redder, upwards the greener, to the camera the bluer; grey "
        "is not measured.",
        lambda output: F.normalize(output, dim=0),
    ),
    "depth": _Look(
        "Depth, in the same colours throughout; grey is not measured.", lambda output: output[0].clamp(min=1e-3)
    ),
    "keypoints": _Look(
        "Key points of all types, over the picture: the brighter, the more certain.",
        lambda output: output.sigmoid().amax(dim=0),
        lambda label: label.amax(dim=0),
    ),
}


@dataclass(frozen=True)
class Answers:
    """A block per task: picture, truth, and what each model answers.

    Attributes:
        data: its validation pictures.
        shown: how many of them, spread evenly.
        options: of the task "multitask"; `padded_to` counts.
    """

    data: MultiTaskData
    shown: int = 4
    options: Mapping[str, Any] = field(default_factory=dict)

    name: ClassVar[str] = "multitask"

    @property
    def setting(self) -> Mapping[str, Any]:
        """See `Exhibit`."""
        return {"shown": self.shown, "side": PICTURE_SIDE, "padded_to": self.options.get("padded_to")}

    def look(self, bank: FeatureBank) -> list[Tensor]:
        """For every task of the data and every shown picture a map, empty if the model lacks the task.

        Then one tensor [tasks, shown] with the metric of each picture alone, NaN where there is none.
        """
        own = shared_tasks(bank.encoder, self.data.tasks)
        outputs = [predicted(bank.encoder, one.image, self.options.get("padded_to")) for one in self._samples]
        maps, scores = [], torch.full((len(self.data.tasks), len(outputs)), torch.nan)
        for row, (name, task) in enumerate(self.data.tasks.items()):
            look = _LOOKS[task.kind]
            for column, (output, sample) in enumerate(zip(outputs, self._samples, strict=True)):
                maps.append(look.shrink(look.said(output[name])) if name in own else torch.empty(0))
                if name in own and name in sample.maps:
                    scores[row, column] = _score(task, output[name], sample.maps[name])
        return [*maps, scores]

    def draw(self, findings: Findings) -> list[AnyFigure]:
        """One grid per task that any model answers."""
        photos = [shrunk(sample.image) for sample in self._samples]
        grids = []
        for row, name in enumerate(self.data.tasks):
            maps = {label: found[row * len(photos) : (row + 1) * len(photos)] for label, found in findings.items()}
            answered = {label: found for label, found in maps.items() if found[0].numel()}
            scores = {label: findings[label][-1][row].tolist() for label in answered}
            if answered:
                grids.append(self._grid(name, photos, answered, scores))
        return [*grids]

    def _grid(
        self,
        name: str,
        photos: Sequence[Tensor],
        answers: Mapping[str, Sequence[Tensor]],
        scores: Mapping[str, Sequence[float]],
    ) -> PictureGrid:
        task = self.data.tasks[name]
        look = _LOOKS[task.kind]
        labels = [sample.maps.get(name) for sample in self._samples]
        truths = [None if label is None else look.shrink(look.true(label)) for label in labels]
        paint, scale = _painter(task, [truth for truth in truths if truth is not None])

        def column(maps: Sequence[Tensor | None]) -> list[Tensor]:
            return [
                torch.full_like(photo, round(255 * UNKNOWN)) if one is None else paint(at(one, photo), photo)
                for one, photo in zip(maps, photos, strict=True)
            ]

        columns = {"picture": list(photos), "truth": column(truths)}
        columns |= {label: column(maps) for label, maps in answers.items()}
        notes = {label: [_note(task, score) for score in values] for label, values in scores.items()}
        caption = (
            f"{look.words} As the models' own heads answer. Below: {METRICS[task.kind].name} of this picture alone."
        )
        return PictureGrid(f"Multi-task: {name}", caption, columns, notes, scale)

    @cached_property
    def _samples(self) -> list[MultiTaskSample]:
        return [self.data.read(index) for index in spread(len(self.data), self.shown)]


def _score(task: DenseTask, output: Tensor, label: Tensor) -> float:
    metric = metric_for(task, _THRESHOLDS)
    metric.update(output, label)
    return next(iter(metric.compute().values()))


def _note(task: DenseTask, score: float) -> str:
    if score != score:
        return "–"
    metric = METRICS[task.kind]
    text = {"°": f"{score:.1f}°", "m": f"{score:.2f} m"}.get(metric.unit, f"{100 * score:.0f} %")
    return f"{metric.name} {text}"


def _painter(task: DenseTask, truths: Sequence[Tensor]) -> tuple[Paint, Scale | None]:
    """How the maps of a task are drawn, given the true ones."""
    if task.kind == "classes":
        return class_painter(truths or [torch.full((1, 1), IGNORE)], task.channels, IGNORE), None
    if task.kind == "depth":
        return depth_painter(truths or [torch.zeros(1, 1)], 0, 10)
    if task.kind == "normals":
        return paint_normals, None
    if task.kind == "boundary":
        return paint_boundaries, None
    return paint_heat, HEAT_SCALE


@dataclass(frozen=True)
class Routing:
    """How much of each expert the routers take, per task and level: a heat table per model that has routers.

    Attributes:
        data: the weights are means over some of its validation pictures.
        shown: how many, spread evenly.
    """

    data: MultiTaskData
    shown: int = _ROUTED

    name: ClassVar[str] = "routing"
    setting: ClassVar[None] = None

    def look(self, bank: FeatureBank) -> list[Tensor]:
        """Weights [levels, tasks, experts], then the names of tasks and experts as bytes; nothing without routers."""
        model = bank.encoder
        if not has_routers(model):
            return []
        weights = router_weights(model, [self.data.read(index).image for index in self._chosen])
        return [weights, _as_tensor(list(model.tasks)), _as_tensor(expert_names(model))]

    def draw(self, findings: Findings) -> list[AnyFigure]:
        """One table per model."""
        return [self._figure(label, found) for label, found in findings.items() if found]

    def _figure(self, label: str, found: Sequence[Tensor]) -> Figure:
        weights, (tasks, experts) = found[0], (_as_names(names) for names in found[1:])
        means = weights.mean(dim=0)
        words = "; ".join(
            f"{task}: {experts[int(row.argmax())]} {100 * float(row.max()):.0f} %"
            for task, row in zip(tasks, means, strict=True)
        )
        caption = (
            f"How much of each expert the routers mix into what the heads see, in %: rows are tasks, columns experts "
            f"at each of the {len(weights)} levels, from early to late; those of a task at a level add up to 100. "
            f"Means over {len(self._chosen)} pictures. Largest on average over the levels: {words}."
        )
        return Figure(f"Router weights, {label}", caption, _table(label, weights, tasks, experts))

    @cached_property
    def _chosen(self) -> list[int]:
        return spread(len(self.data), self.shown)


def _as_tensor(names: Sequence[str]) -> Tensor:
    return torch.tensor(list("\n".join(names).encode()), dtype=torch.uint8)


def _as_names(text: Tensor) -> list[str]:
    return bytes(text.tolist()).decode().split("\n")


def _table(label: str, weights: Tensor, tasks: Sequence[str], experts: Sequence[str]) -> str:
    levels, count = len(weights), len(experts)
    cells = weights.permute(1, 0, 2).flatten(1)  # [tasks, levels * experts]
    with matplotlib.rc_context(style(f"routers {label}")):
        drawing = Drawing(figsize=(1.6 + 0.36 * cells.shape[1], 1.5 + 0.34 * len(tasks)), layout="constrained")
        axes = drawing.add_subplot()
        axes.pcolormesh(cells.numpy(), cmap="Blues", vmin=0, vmax=1)
        axes.invert_yaxis()
        axes.grid(False)
        for row, values in enumerate(cells.tolist()):
            for column, value in enumerate(values):
                shade = "#ffffff" if value > 0.55 else "#202020"
                place = (column + 0.5, row + 0.5)
                axes.text(*place, f"{100 * value:.0f}", ha="center", va="center", fontsize=7, color=shade)
        for level in range(1, levels):
            axes.axvline(level * count, color="#ffffff", linewidth=3)
        axes.set_xticks([place + 0.5 for place in range(levels * count)], [*experts] * levels, rotation=90, fontsize=7)
        axes.set_yticks([place + 0.5 for place in range(len(tasks))], list(tasks), fontsize=8)
        above = axes.secondary_xaxis("top")
        above.set_xticks([(level + 0.5) * count for level in range(levels)], [f"level {n + 1}" for n in range(levels)])
        above.tick_params(length=0, labelsize=8)
        above.spines["top"].set_visible(False)
        return svg_of(drawing)
