"""Labels: how many classes the pictures of some sources show, and what these are called."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from eyespot.data.sources.base import PictureSource
from eyespot.data.sources.decode import PictureError


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
    their labels is read, a small read for each picture, unless `count` is given. Single pictures may lack a label, or
    have one that cannot be read: training meets the first as -1 and leaves the others out.

    Args:
        sources: at least one.
        count: how many classes there are, where the sources do not say, or if there are more than they show.

    Raises:
        ValueError: sources with other classes than the first, labels beyond the classes, or a source without labels;
            says which.
    """
    named = [source for source in sources if source.classes is not None]
    for source in named[1:]:
        if source.classes != named[0].classes:
            raise ValueError(
                f"{source.name!r} has other classes than {named[0].name!r} ({_difference(named[0], source)}); labels "
                "of all sources must mean the same"
            )
    names = named[0].classes if named else None
    unnamed = [source for source in sources if source.classes is None]
    if count is None:
        largest = {source.name: _largest_label(source) for source in unnamed}
        count = len(names) if names else 1 + max(largest.values())
        for name, label in largest.items():
            if label >= count:
                raise ValueError(f"{name!r} has a label {label}, but {named[0].name!r} only {count} classes")
    elif names and len(names) > count:
        raise ValueError(f"{named[0].name!r} has {len(names)} classes, more than the {count} asked for")
    else:
        for source in unnamed:
            if all(label is None for label in _labels(source)):
                raise _unlabelled(source)
    return Classes(count, list(names) if names and len(names) == count else None)


def _labels(source: PictureSource) -> Iterator[int | None]:
    for index in range(len(source)):
        try:
            label = source.label(index)
        except PictureError:
            label = None
        yield label if label is None or label >= 0 else None


def _largest_label(source: PictureSource) -> int:
    largest = max((label for label in _labels(source) if label is not None), default=None)
    if largest is None:
        raise _unlabelled(source)
    return largest


def _unlabelled(source: PictureSource) -> ValueError:
    why = getattr(source, "why_no_classes", None) or ""
    return ValueError(
        f"{source.name!r} has no labels{why}. They come from a folder per class, .cls files in shards, or a dataset's "
        "label column (?label=COLUMN); to learn from a teacher alone, set label.weight to 0"
    )


def _difference(first: PictureSource, second: PictureSource) -> str:
    ours, theirs = first.classes or [], second.classes or []
    only = sorted(set(ours) ^ set(theirs))
    return f"not in both: {', '.join(only[:5])}" if only else "in another order"
