"""The constant answer of every task: what is measured of a model that says the same of every picture and pixel.

It is the floor of a table: an encoder that is not above it has shown nothing. What is said comes from the training
labels, as for a probe; where a task reads none, from the labels that are asked for, the most that a constant can do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from eyespot.data.labelled.base import (
    ClassificationData,
    DensePictures,
    DepthData,
    MatchingData,
    NormalsData,
    RetrievalData,
    SegmentationData,
)
from eyespot.data.labelled.samples import MultiTaskData
from eyespot.data.loading.sampling import spread
from eyespot.dense_tasks import IGNORE, DenseTask
from eyespot.evaluate.probing.cells import PICTURES
from eyespot.evaluate.protocols.correspondence import averages_of
from eyespot.evaluate.protocols.depth import mean_errors
from eyespot.evaluate.protocols.multitask.metrics import metric_for, metric_name
from eyespot.evaluate.protocols.normals import AngularErrors
from eyespot.evaluate.protocols.retrieval import RANKS
from eyespot.evaluate.protocols.segmentation import MeanIoU

Floor = dict[str, float | None]


def most_frequent_class(*metrics: str, top5: str | None = None) -> Callable[[ClassificationData], Floor]:
    """Always the most frequent class of the training pictures, or the five most frequent ones.

    Args:
        metrics: names of those that are accuracies.
        top5: name of the one that is right if one of five answers is.
    """

    def floor(data: ClassificationData) -> Floor:
        asked = data.val.labels[data.val.labels >= 0]
        seen = data.train.labels[data.train.labels >= 0]
        order = torch.bincount(seen if len(seen) else asked).argsort(descending=True, stable=True)
        found: Floor = dict.fromkeys(metrics, _share(torch.isin(asked, order[:1])))
        return found if top5 is None else {**found, top5: _share(torch.isin(asked, order[:5]))}

    return floor


def mean_depth(data: DepthData) -> Floor:
    """The mean of the measured training pixels, in metres."""
    total, count = 0.0, 0
    for depth in _seen(data.train):
        measured = depth[depth > 0].double()
        total, count = total + float(measured.sum()), count + len(measured)
    mean = min(max(total / max(count, 1), data.low), data.high)
    return {**mean_errors((torch.full_like(truth, mean), truth) for truth in data.val.labels)}


def mean_normal(data: NormalsData) -> Floor:
    """The direction of the mean of the measured training normals."""
    mean = sum((normals.double().flatten(1).sum(dim=1) for normals in _seen(data.train)), torch.zeros(3).double())
    errors = AngularErrors()
    for truth in data.val.labels:
        errors.update(mean[:, None, None].expand(truth.shape), truth)
    return {**errors.compute()}


def most_frequent_pixel(data: SegmentationData) -> Floor:
    """The class of most labelled training pixels."""
    counts = sum(
        (torch.bincount(mask[mask != data.ignore].long(), minlength=data.classes) for mask in _seen(data.train)),
        torch.zeros(data.classes, dtype=torch.int64),
    )
    metric = MeanIoU(data.classes, data.ignore)
    for truth in data.val.labels:
        metric.update(torch.full_like(truth, int(counts.argmax())), truth)
    return {"mIoU": metric.compute()}


def middle_of_the_picture(data: MatchingData) -> Floor:
    """Every point lies in the middle of the other picture."""
    middles = [torch.tensor(pair.target_size[::-1]) / 2 for pair in data.pairs]
    points = [middle.expand(len(pair.target_points), 2) for middle, pair in zip(middles, data.pairs, strict=True)]
    return averages_of(points, data)


def first_answers(data: RetrievalData) -> Floor:
    """The first captions, or pictures, in the order of the data, whatever is asked."""
    owner = torch.repeat_interleave(torch.tensor([len(of_picture) for of_picture in data.captions]))
    found: Floor = {}
    for k in RANKS:
        found[f"I2T-R@{k}"] = len(owner[:k].unique()) / len(data.captions)
        found[f"T2I-R@{k}"] = _share(owner < k)
    return dict(sorted(found.items(), key=lambda entry: entry[0][:3]))


def constant_maps(data: MultiTaskData) -> Floor:
    """The same of every pixel: most frequent class, all salient, mean normal and depth, boundary everywhere.

    Key points are in the middle. Of the labels that are asked for, since no others are read.
    """
    answers = {
        name: _answer(task, (data.read(index).maps[name] for index in range(len(data))))
        for name, task in data.tasks.items()
    }
    metrics = {name: metric_for(task) for name, task in data.tasks.items()}
    for index in range(len(data)):
        for name, truth in data.read(index).maps.items():
            size = truth.shape[-2:]
            metrics[name].update(_map(data.tasks[name], answers[name], (size[0], size[1])), truth)
    found: Floor = {}
    for name, task in data.tasks.items():
        (value,) = metrics[name].compute().values()
        found[metric_name(name, task)] = None if value != value else value
    return found


def _answer(task: DenseTask, maps: Iterable[Tensor]) -> Tensor:
    """What is said of every pixel, [channels]."""
    if task.kind == "classes":
        counts = torch.zeros(task.channels, dtype=torch.int64)
        for truth in maps:
            counts += torch.bincount(truth[truth != IGNORE].long(), minlength=task.channels)
        return F.one_hot(counts.argmax(), task.channels).float()
    if task.kind == "normals":
        return sum((truth.double().flatten(1).sum(dim=1) for truth in maps), torch.zeros(3).double()).float()
    if task.kind == "depth":
        total, count = 0.0, 0
        for truth in maps:
            total, count = total + float(truth.double().sum()), count + int((truth > 0).sum())
        return torch.tensor([total / max(count, 1)])
    return torch.arange(task.channels).float() if task.kind == "saliency" else torch.ones(task.channels)


def _map(task: DenseTask, answer: Tensor, size: tuple[int, int]) -> Tensor:
    """The answer as an output of a model, [channels, H, W]."""
    if task.kind != "keypoints":
        return answer[:, None, None].expand(-1, *size).contiguous()
    found = torch.zeros(task.channels, *size)
    found[:, size[0] // 2, size[1] // 2] = 1
    return found


def _seen(split: DensePictures) -> Iterable[Tensor]:
    """The label maps of the training pictures that a probe looks at."""
    return (split.labels[index] for index in spread(len(split.labels), PICTURES))


def _share(right: Tensor) -> float:
    return float(right.double().mean())
