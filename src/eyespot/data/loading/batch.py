"""The keys of a batch: what loaders make, what tasks learn from, what the teacher cache adds.

b is the number of pictures of one step on one rank; [b, ...] has one entry per picture.
"""

from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict, final

from torch import Tensor

Batch = Mapping[str, Any]
"""A batch of any kind, for whoever moves and cuts it without knowing what it holds: one of those below, or what a
task's own loader makes. It has `step`, and `images` that are counted."""


class DrawnBatch(TypedDict):
    """What every `BatchLoader` gives: pictures under drawn views, and which ones they are."""

    step: int
    """Number of the optimiser step, from 0; it names the draws of that step."""
    images: Tensor
    """uint8 [b, 3, H, W], RGB."""
    source: Tensor
    """int64 [b], number of the source."""
    index: Tensor
    """int64 [b], number of the picture in its source."""
    view: Tensor
    """int64 [b], number of the view."""
    failures: list[str]
    """"name: reason" of each broken picture that was replaced."""


class CachedRows(TypedDict):
    """What is stored of one teacher's features of a batch; see `eyespot.distill.cache`."""

    records: Tensor
    """uint8 [b, record_bytes], as stored."""
    there: Tensor
    """bool [b], which of them hold anything."""


@final
class PictureBatch(DrawnBatch):
    """What a `PictureLoader` gives; its pictures are square."""

    labels: Tensor
    """int64 [b], the class within the picture's source, -1 for none."""
    cache: NotRequired[dict[str, CachedRows]]
    """By name of the teacher, where a teacher cache gives the loader's `extra_entries`."""
    partner: NotRequired[Tensor]
    """int64 [b], where among these pictures, followed by `guests`, the mirror image of each picture's place in the
    batch of all ranks is; from a loader with `in_pairs` on several ranks."""
    guests: NotRequired[dict[str, Tensor]]
    """`images` and `labels` of partners that are not of this rank; absent if there are none."""
    partners: NotRequired[dict[str, Tensor]]
    """`images` and `labels` of each picture's partner; a Task that mixes pictures adds them."""


@final
class MapBatch(DrawnBatch):
    """What a `MultiTaskLoader` gives; all pictures are from source 0."""

    maps: dict[str, Tensor]
    """By name of the task, [b, H, W] or [b, C, H, W], the truth of each pixel as `eyespot.dense_tasks` writes it."""
    whole: NotRequired[dict[str, Any]]
    """By name of the task, what a Task adds about the labels of the whole batch."""
