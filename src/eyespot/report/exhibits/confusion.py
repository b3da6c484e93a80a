"""Confusion: which classes a model's own head takes for which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import matplotlib
import torch
from matplotlib.figure import Figure as Drawing
from torch import Tensor

from eyespot.data.labelled.base import ClassificationData
from eyespot.evaluate.extraction import FeatureBank
from eyespot.evaluate.protocols.classification import answers, class_places, confusion
from eyespot.report.drawing.plots import style
from eyespot.report.exhibits.figures import AnyFigure, Figure, svg_of
from eyespot.report.exhibits.gallery import Findings

_MOST = 24  # classes that a drawing names legibly
_TOLD = 5


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix per encoder, each row in shares of its class's pictures.

    Attributes:
        data: its validation split is looked at.
    """

    data: ClassificationData

    name: ClassVar[str] = "classification"
    setting: Mapping[str, Any] = field(default_factory=dict)

    def look(self, bank: FeatureBank) -> list[Tensor]:
        """How often each class of the data (row) was taken for each (column), int64 [C, C + 1].

        The last column counts what was taken for a class that the data do not have.
        """
        logits, labels = answers(bank, self.data)
        places = class_places(bank.encoder, self.data.classes)
        counts = confusion(logits.argmax(1), labels, logits.shape[1])[places]
        others = counts.sum(1) - counts[:, places].sum(1)
        return [torch.cat([counts[:, places], others[:, None]], dim=1)]

    def draw(self, findings: Findings) -> list[AnyFigure]:
        """One matrix per encoder; of many classes those with the most mistakes."""
        return [self._figure(label, found[0]) for label, found in findings.items()]

    def _figure(self, label: str, counts: Tensor) -> Figure:
        total, right = counts.sum(1), counts.diagonal()
        wrong = total - right
        shown = wrong.sort(descending=True, stable=True).indices[:_MOST].sort().values
        shares = (counts / total[:, None]).nan_to_num()[shown][:, shown]
        names = [self.data.classes[place].replace("_", " ") for place in shown.tolist()]
        caption = (
            "Rows are the true classes, columns what the head takes them for; the darker a cell, the larger that share "
            "of the class's pictures."
        )
        if len(shown) < len(counts):
            caption += f" Of {len(counts)} classes the {len(shown)} with the most mistakes."
        mistakes = _most_frequent(counts, self.data.classes)
        caption += f" Most frequent: {'; '.join(mistakes)}." if mistakes else " There are no mistakes."
        alt = f"{label} is right about {int(right.sum())} of {int(total.sum())} pictures. {caption}"
        return Figure(f"Confusion, {label}", caption, _matrix(label, shares, names), alt=alt)


def _most_frequent(counts: Tensor, classes: list[str]) -> list[str]:
    """The most frequent mistakes, in words."""
    mistakes = counts.clone()
    mistakes.fill_diagonal_(0)
    names = [*(name.replace("_", " ") for name in classes), "a class that the data do not have"]
    order = mistakes.flatten().sort(descending=True, stable=True)
    pairs = zip(order.values[:_TOLD].tolist(), order.indices[:_TOLD].tolist(), strict=True)
    return [
        f"{names[place // counts.shape[1]]} taken for {names[place % counts.shape[1]]} ({count} times)"
        for count, place in pairs
        if count
    ]


def _matrix(label: str, shares: Tensor, names: list[str]) -> str:
    side = 1.6 + 0.17 * len(names)
    shown = [name if len(name) <= 20 else f"{name[:19]}…" for name in names]
    with matplotlib.rc_context(style(f"confusion {label}")):
        drawing = Drawing(figsize=(side, side), layout="constrained")
        axes = drawing.add_subplot()
        axes.pcolormesh(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
        axes.invert_yaxis()
        axes.set_aspect("equal")
        axes.grid(False)
        ticks = [place + 0.5 for place in range(len(names))]
        axes.set_xticks(ticks, shown, rotation=90, fontsize=7)
        axes.set_yticks(ticks, shown, fontsize=7)
        return svg_of(drawing)
