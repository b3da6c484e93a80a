"""Multi-task data by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from eyespot.data.labelled.files import FileData
from eyespot.data.labelled.samples import MultiTaskData, Split
from eyespot.data.sets.camvid import open_camvid_maps
from eyespot.data.sets.coco import open_coco_maps
from eyespot.data.sets.nyu import open_nyud_maps
from eyespot.data.sets.pascal import open_pascal_context_maps
from eyespot.data.sets.rgbd import open_kitchen_maps
from eyespot.data.sets.toybox import open_toybox_maps
from eyespot.data.toybox.spec import is_toybox
from eyespot.data.views.resizing import ResizedData
from eyespot.dense_tasks import DenseTask
from eyespot.specs import nearest_names, read_options, suggestion

MULTITASK_SETS: dict[str, Callable[[str, Path, Split, int | None], FileData]] = {
    "nyud": open_nyud_maps,
    "pascal_context": open_pascal_context_maps,
    "camvid": open_camvid_maps,
    "kitchen": open_kitchen_maps,
    "coco": open_coco_maps,
}
_OPTIONS = ("tasks", "height", "width")


def open_multitask(spec: str, split: Split, limit: int | None = None) -> MultiTaskData:
    """Opens pictures with the labels of several tasks.

    Args:
        spec: NAME:FOLDER with a name of `MULTITASK_SETS`, or toybox[:COUNT[@SIZE]]; then, after "?", options joined by
            "&": tasks=segmentation+boundary chooses among the set's tasks, height=96&width=128 brings pictures and
            labels to that size on reading (see `ResizedData`).
        split: "train" or "val".
        limit: at most this many pictures, evenly spread.

    Raises:
        LayoutError: files are missing; says which, what was expected, and where to get them.
        ValueError: the spec means nothing here; the message says what would be right.
    """
    if split not in ("train", "val"):
        raise ValueError(f"split must be train or val, not {split!r}")
    place, _, query = spec.partition("?")
    options = _read_options(spec, query)
    if is_toybox(place):
        scenes = open_toybox_maps(place, split, limit)
        return _resized(replace(scenes, name=spec, tasks=_chosen(scenes.tasks, options, place)), options, spec)
    name, _, folder = place.partition(":")
    if name not in MULTITASK_SETS or not folder:
        raise ValueError(_unknown(spec, name))
    data = MULTITASK_SETS[name](spec, Path(folder).expanduser(), split, limit)
    data = replace(data, tasks=_chosen(data.tasks, options, name))
    data.check()
    return _resized(data, options, spec)


def _read_options(spec: str, query: str) -> dict[str, Any]:
    options = read_options(query)
    for option in options:
        if option not in _OPTIONS:
            raise ValueError(f"{spec!r}: no option {option!r}; {suggestion(option, _OPTIONS)}")
    return options


def _chosen(tasks: dict[str, DenseTask], options: dict[str, Any], name: str) -> dict[str, DenseTask]:
    """The tasks that options ask for, in the set's order."""
    wanted = options.get("tasks")
    if wanted is None:
        return tasks
    # In a query "+" stands for a space.
    names = list(wanted) if isinstance(wanted, tuple) else re.split(r"[+\s]+", str(wanted))
    for task in names:
        if task not in tasks:
            near = nearest_names(task, tasks)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(f"{name} has no task {task!r}; {hint}It has {'+'.join(tasks)}")
    return {task: kind for task, kind in tasks.items() if task in names}


def _resized(data: MultiTaskData, options: dict[str, Any], spec: str) -> MultiTaskData:
    height, width = options.get("height"), options.get("width")
    if height is None and width is None:
        return data
    if not (isinstance(height, int) and isinstance(width, int) and min(height, width) > 0):
        raise ValueError(f"{spec!r}: give height and width together, in pixels, e.g. ?height=96&width=128")
    return ResizedData(data, (height, width))


def _unknown(spec: str, name: str) -> str:
    near = nearest_names(name, [*MULTITASK_SETS, "toybox"])
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return (
        f"{spec!r} names no multi-task data; write NAME:FOLDER with one of {', '.join(MULTITASK_SETS)}, or "
        f"toybox[:COUNT[@SIZE]].{hint}"
    )
