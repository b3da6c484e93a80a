"""Scores over nothing are no scores: data on which any answer is right, or none can be."""

from __future__ import annotations

from typing import Any

from eyespot.data.labelled.base import ClassificationData, MatchingData, RetrievalData


def refuse_nothing_to_tell(task: str, data: Any) -> None:
    """Refuses data that would be answered with 100 % by any model, or with a mean over nothing.

    What can be told without looking at labels of pixels; the dense tasks look when they count.

    Args:
        task: its name, for the message.
        data: as it is opened.

    Raises:
        ValueError: fewer than two classes, no labelled picture, fewer than two pictures to choose from, no points.
    """
    if isinstance(data, ClassificationData):
        if len(data.classes) < 2:
            raise ValueError(f"{task}: one class ({', '.join(data.classes)}) tells no model from another; give two")
        if not bool((data.val.labels >= 0).any()):
            raise ValueError(f"{task}: no validation picture has a label")
    if isinstance(data, RetrievalData) and len(data.pictures) < 2:
        raise ValueError(
            f"{task}: of {len(data.pictures)} pictures none has to be found among others; give two or more"
        )
    if isinstance(data, MatchingData) and not any(len(pair.source_points) for pair in data.pairs):
        raise ValueError(f"{task}: none of {len(data.pairs)} pairs of pictures has a point")
