"""The registry of tasks: a new protocol is one module and one entry here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from eyespot.data.sets import (
    ToyboxData,
    open_caption_folder,
    open_image_folder,
    open_mask_folder,
    open_picture_folder,
    open_rgbd_depth,
    open_rgbd_matching,
    open_rgbd_normals,
)
from eyespot.dense_tasks import Kind
from eyespot.evaluate.protocols import (
    classification,
    constant,
    correspondence,
    depth,
    feature_geometry,
    few_shot,
    knn,
    linear,
    normals,
    retrieval,
    segmentation,
    zero_shot,
)
from eyespot.evaluate.protocols.multitask import protocol as multitask
from eyespot.evaluate.protocols.multitask.metrics import METRICS
from eyespot.evaluate.results import Metric


@dataclass(frozen=True)
class EvaluationTask:
    """What can be measured.

    Attributes:
        about: one line for people.
        metrics: what `run` returns, by name.
        run: (bank, data, seed, **options) -> metric name -> value.
        open_folder: (folder, limit=None, **options) -> data.
        open_toybox: the same data from the toybox.
        check: (encoder, data, **options) -> refuses, by a ValueError, what `run` could not measure; None where there is
            nothing that would not have been refused on opening.
        patches: whether it looks at patches or at summaries only.
        floor: data -> metric name -> value of the constant answer, see `protocols.constant`; None where there is none.
        revision: raised when the same arguments give other numbers than before, so that what an older version measured
            is measured anew.
        whole_source: `open_folder` takes a source as it is written, "NAME:FOLDER?option=value" (and no options beside),
            because the sets of this task are not those of `DATASETS`.
    """

    about: str
    metrics: tuple[Metric, ...]
    run: Callable[..., Mapping[str, float | None]]
    open_folder: Callable[..., Any]
    open_toybox: Callable[[ToyboxData], Any]
    check: Callable[..., None] | None = None
    patches: bool = True
    floor: Callable[[Any], Mapping[str, float | None]] | None = None
    revision: int = 1
    whole_source: bool = False

    @property
    def version(self) -> dict[str, int]:
        """For the key of finished measurements; nothing as long as the numbers are those of the first version."""
        return {"revision": self.revision} if self.revision > 1 else {}


def _multitask_metrics() -> tuple[Metric, ...]:
    """A metric per dense task by the names that data sets use; a table shows those that its data are labelled for."""
    kinds: dict[str, Kind] = {
        "segmentation": "classes",
        "parts": "classes",
        "saliency": "saliency",
        "boundary": "boundary",
        "normals": "normals",
        "depth": "depth",
        "keypoints": "keypoints",
    }
    return tuple(replace(METRICS[kind], name=f"{task} {METRICS[kind].name}") for task, kind in kinds.items())


TASKS: dict[str, EvaluationTask] = {
    "knn": EvaluationTask(
        about="k-NN classification of summaries (k = 10)",
        metrics=(Metric("accuracy"), Metric("best", headline=False), Metric("best_k", unit="", headline=False)),
        run=knn.run,
        floor=constant.most_frequent_class("accuracy", "best"),
        open_folder=open_image_folder,
        open_toybox=ToyboxData.classification,
        patches=False,
    ),
    "linear": EvaluationTask(
        about="logistic regression on summaries",
        metrics=(Metric("accuracy"),),
        run=linear.run,
        floor=constant.most_frequent_class("accuracy"),
        revision=2,
        open_folder=open_image_folder,
        open_toybox=ToyboxData.classification,
        patches=False,
    ),
    "few_shot": EvaluationTask(
        about="logistic regression on the summaries of 5 pictures per class, mean of 5 draws",
        metrics=(Metric("accuracy"), Metric("spread", higher_is_better=False, headline=False)),
        run=few_shot.run,
        floor=constant.most_frequent_class("accuracy"),
        revision=2,
        open_folder=open_image_folder,
        open_toybox=ToyboxData.classification,
        patches=False,
    ),
    "segmentation": EvaluationTask(
        about="linear semantic segmentation on patches",
        metrics=(Metric("mIoU"),),
        run=segmentation.run,
        floor=constant.most_frequent_pixel,
        revision=2,
        open_folder=open_mask_folder,
        open_toybox=ToyboxData.segmentation,
    ),
    "depth": EvaluationTask(
        about="linear depth on patches",
        metrics=(
            Metric("RMSE", unit="m", higher_is_better=False),
            Metric("AbsRel", unit="", higher_is_better=False, headline=False),
            Metric("delta1"),
        ),
        run=depth.run,
        floor=constant.mean_depth,
        revision=2,
        open_folder=open_rgbd_depth,
        open_toybox=ToyboxData.depth,
    ),
    "normals": EvaluationTask(
        about="linear surface normals on patches",
        metrics=(
            Metric("mean", unit="°", higher_is_better=False),
            Metric("median", unit="°", higher_is_better=False, headline=False),
            Metric("within 11.25", headline=False),
            Metric("within 22.5", headline=False),
            Metric("within 30", headline=False),
        ),
        run=normals.run,
        floor=constant.mean_normal,
        revision=2,
        open_folder=open_rgbd_normals,
        open_toybox=ToyboxData.normals,
    ),
    "correspondence": EvaluationTask(
        about="key-point matching by nearest neighbour of patches",
        metrics=(
            Metric("PCK@0.1"),
            Metric("PCK@0.05", headline=False),
            Metric("PCK@0.1/image", headline=False),
            Metric("PCK@0.1/category", headline=False),
        ),
        run=correspondence.run,
        floor=constant.middle_of_the_picture,
        open_folder=open_rgbd_matching,
        open_toybox=ToyboxData.matching,
    ),
    "reading": EvaluationTask(
        about="which word is printed, by logistic regression on summary and 4x4 patches",
        metrics=(Metric("accuracy"),),
        run=linear.run_reading,
        floor=constant.most_frequent_class("accuracy"),
        revision=2,
        open_folder=open_image_folder,
        open_toybox=ToyboxData.reading,
    ),
    "zero_shot": EvaluationTask(
        about="classification by class names, in the space of an image-text teacher",
        metrics=(
            Metric("accuracy"),
            Metric("top5", headline=False),
            Metric("classes", unit="", headline=False),
        ),
        run=zero_shot.run,
        check=zero_shot.check,
        floor=constant.most_frequent_class("accuracy", top5="top5"),
        open_folder=open_image_folder,
        open_toybox=ToyboxData.naming,
        patches=False,
    ),
    "classification": EvaluationTask(
        about="what a model's own class head says",
        metrics=(
            Metric("top1"),
            Metric("top5", headline=False),
            Metric("ECE", higher_is_better=False),
            Metric("NLL", unit="", higher_is_better=False, headline=False),
        ),
        run=classification.run,
        check=classification.check,
        floor=constant.most_frequent_class("top1", top5="top5"),
        open_folder=open_image_folder,
        open_toybox=ToyboxData.classification,
        patches=False,
    ),
    "multitask": EvaluationTask(
        about="what a multi-task model's own heads say of every pixel",
        metrics=_multitask_metrics(),
        run=multitask.run,
        check=multitask.check,
        floor=constant.constant_maps,
        open_folder=multitask.open_validation,
        open_toybox=ToyboxData.multitask,
        whole_source=True,
    ),
    "retrieval": EvaluationTask(
        about="pictures to captions (I2T) and back (T2I), in the space of an image-text teacher",
        metrics=tuple(Metric(f"{way}-R@{k}", headline=k == 1) for way in ("I2T", "T2I") for k in retrieval.RANKS),
        run=retrieval.run,
        check=retrieval.check,
        floor=constant.first_answers,
        open_folder=open_caption_folder,
        open_toybox=ToyboxData.captions,
        patches=False,
    ),
    "geometry": EvaluationTask(
        about="ranks, token-norm outliers and uniformity of features; CKA with a reference",
        metrics=(
            Metric("RankMe", unit=""),
            Metric("effective rank", unit="", headline=False),
            Metric("patch rank", unit=""),
            Metric("outliers", higher_is_better=False),
            Metric("max/median norm", unit="", higher_is_better=False, headline=False),
            Metric("uniformity", unit="", higher_is_better=False, headline=False),
            Metric("CKA", unit=""),
        ),
        run=feature_geometry.run,
        open_folder=open_picture_folder,
        open_toybox=ToyboxData.pictures,
    ),
}
DEFAULT_TASKS = ("knn", "segmentation", "depth", "correspondence", "reading")
