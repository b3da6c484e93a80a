"""The registry of tasks: a new protocol is one module and one entry here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from eyespot.evaluate import correspondence, depth, knn, linear, segmentation
from eyespot.evaluate.datasets import (
    ToyboxData,
    open_image_folder,
    open_mask_folder,
    open_rgbd_depth,
    open_rgbd_matching,
)
from eyespot.evaluate.results import Metric


@dataclass(frozen=True)
class Task:
    """What can be measured.

    Attributes:
        about: one line for people.
        metrics: what `run` returns, by name.
        run: (bank, data, seed, **options) -> metric name -> value.
        open_folder: (folder, limit=None, **options) -> data.
        open_toybox: the same data from the toybox.
        patches: whether it looks at patches or at summaries only.
    """

    about: str
    metrics: tuple[Metric, ...]
    run: Callable[..., dict[str, float]]
    open_folder: Callable[..., Any]
    open_toybox: Callable[[ToyboxData], Any]
    patches: bool = True


TASKS: dict[str, Task] = {
    "knn": Task(
        about="k-NN classification of summaries (k = 10)",
        metrics=(Metric("accuracy"),),
        run=knn.run,
        open_folder=open_image_folder,
        open_toybox=ToyboxData.classification,
        patches=False,
    ),
    "linear": Task(
        about="logistic regression on summaries",
        metrics=(Metric("accuracy"),),
        run=linear.run,
        open_folder=open_image_folder,
        open_toybox=ToyboxData.classification,
        patches=False,
    ),
    "segmentation": Task(
        about="linear semantic segmentation on patches",
        metrics=(Metric("mIoU"),),
        run=segmentation.run,
        open_folder=open_mask_folder,
        open_toybox=ToyboxData.segmentation,
    ),
    "depth": Task(
        about="linear depth on patches",
        metrics=(
            Metric("RMSE", unit="m", higher_is_better=False),
            Metric("AbsRel", unit="", higher_is_better=False, headline=False),
            Metric("delta1"),
        ),
        run=depth.run,
        open_folder=open_rgbd_depth,
        open_toybox=ToyboxData.depth,
    ),
    "correspondence": Task(
        about="key-point matching by nearest neighbour of patches",
        metrics=(Metric("PCK@0.1"), Metric("PCK@0.05", headline=False), Metric("PCK@0.1/image", headline=False)),
        run=correspondence.run,
        open_folder=open_rgbd_matching,
        open_toybox=ToyboxData.matching,
    ),
    "reading": Task(
        about="which word is printed, by logistic regression on summary and 4x4 patches",
        metrics=(Metric("accuracy"),),
        run=linear.run_reading,
        open_folder=open_image_folder,
        open_toybox=ToyboxData.reading,
    ),
}
DEFAULT_TASKS = ("knn", "segmentation", "depth", "correspondence", "reading")
