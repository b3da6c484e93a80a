"""Labels: how many classes the pictures of some sources show, and what these are called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eyespot.data.sources import PictureSource


@dataclass(frozen=True)
class Classes:
    """The classes of some sources.

    Attributes:
        count: how many; labels are below it.
        names: in the order of the labels, None where no source has names.
    """

    count: int
    names: list[str] | None


def classes_of(sources: Sequence[PictureSource], count: int | None = None) -> Classes:
    """The classes of sources whose labels mean the same.

    Folders of class folders, the toybox and Hugging Face datasets bring names. Shards hold numbers only: every one of
    their labels is read, a small read for each picture, unless `count` is given.

    Args:
        sources: at least one.
        count: how many classes there are, where the sources do not say.

    Raises:
        ValueError: sources with other classes than the first, or a source without labels; says which.
    """
    named = [source for source in sources if source.classes is not None]
    for source in named[1:]:
        if source.classes != named[0].classes:
            raise ValueError(
                f"{source.name!r} has other classes than {named[0].name!r} ({_difference(named[0], source)}); labels "
                "of all sources must mean the same"
            )
    names = named[0].classes if named else None
    known = count or (len(names) if names else 0)
    if not known:
        known = 1 + max(_largest_label(source) for source in sources)
    for source in sources:
        if source.classes is None and len(source) and source.label(0) is None:
            raise _unlabelled(source, 0)
    return Classes(known, names if names and len(names) == known else None)


def _largest_label(source: PictureSource) -> int:
    largest = 0
    for index in range(len(source)):
        label = source.label(index)
        if label is None:
            raise _unlabelled(source, index)
        largest = max(largest, label)
    return largest


def _unlabelled(source: PictureSource, index: int) -> ValueError:
    return ValueError(
        f"{source.picture_name(index)!r} of {source.name!r} has no label. Labels come from a folder per class, .cls "
        "files in shards, or a dataset's label column; to learn from a teacher alone, set label.weight to 0"
    )


def _difference(first: PictureSource, second: PictureSource) -> str:
    ours, theirs = first.classes or [], second.classes or []
    only = sorted(set(ours) ^ set(theirs))
    return f"not in both: {', '.join(only[:5])}" if only else "in another order"
