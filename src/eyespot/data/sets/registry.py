"""The standard data sets by name: where each comes from, how it lies on disk, and which tasks it serves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eyespot.data.labelled.layout import Layout
from eyespot.data.sets import ade20k, camvid, cifar, cityscapes, coco, folders, hub, imagenet, nyu, pascal, rgbd, spair
from eyespot.specs import lookup

Opener = Callable[..., Any]
CLASSIFICATION = ("knn", "linear", "few_shot", "zero_shot", "classification")


@dataclass(frozen=True)
class DataSet:
    """A data set that `NAME:FOLDER` names.

    Attributes:
        layout: usual name, files in words, and where to get them.
        openers: task -> (folder, limit=None, **options) -> data.
    """

    layout: Layout
    openers: Mapping[str, Opener]


def _for(tasks: tuple[str, ...], opener: Opener) -> dict[str, Opener]:
    return dict.fromkeys(tasks, opener)


DATASETS: dict[str, DataSet] = {
    "imagenet": DataSet(
        imagenet.LAYOUT,
        {
            **_for(CLASSIFICATION, imagenet.open_imagenet),
            "zero_shot": imagenet.open_imagenet_names,
            "classification": imagenet.open_imagenet_val,
        },
    ),
    "cifar10": DataSet(cifar.LAYOUT_10, _for(CLASSIFICATION, cifar.open_cifar10)),
    "cifar100": DataSet(cifar.LAYOUT_100, _for(CLASSIFICATION, cifar.open_cifar100)),
    "ade20k": DataSet(ade20k.LAYOUT, {"segmentation": ade20k.open_ade20k}),
    "voc": DataSet(pascal.VOC, {"segmentation": pascal.open_voc}),
    "cityscapes": DataSet(cityscapes.LAYOUT, {"segmentation": cityscapes.open_cityscapes}),
    "camvid": DataSet(camvid.LAYOUT, {"segmentation": camvid.open_camvid}),
    "nyu": DataSet(nyu.BTS, {"depth": nyu.open_nyu, "normals": nyu.open_nyu_normals}),
    "spair": DataSet(spair.LAYOUT, {"correspondence": spair.open_spair}),
    "coco": DataSet(coco.CAPTIONS, {"retrieval": coco.open_coco}),
    "hf": DataSet(hub.LAYOUT, _for(CLASSIFICATION, hub.open_hub)),
    "rgbd": DataSet(
        rgbd.LAYOUT,
        {"depth": rgbd.open_rgbd_depth, "normals": rgbd.open_rgbd_normals, "correspondence": rgbd.open_rgbd_matching},
    ),
    "image_folder": DataSet(folders.CLASSES, _for((*CLASSIFICATION, "reading"), folders.open_image_folder)),
    "mask_folder": DataSet(folders.MASK_LAYOUT, {"segmentation": folders.open_mask_folder}),
    "depth_folder": DataSet(
        folders.DEPTH_LAYOUT,
        {"depth": folders.open_depth_folder, "normals": folders.open_normals_folder},
    ),
    "caption_folder": DataSet(folders.CAPTIONS, {"retrieval": folders.open_caption_folder}),
}


def find_opener(source: str, task: str, plain: Opener) -> tuple[Opener, str]:
    """Who reads a source, and from where.

    Args:
        source: "NAME:FOLDER" with a name from `DATASETS`, or a folder; without options.
        task: what the data are for.
        plain: reads a folder without a name.

    Returns:
        The opener and the folder.

    Raises:
        ValueError: no data set of that name (the message has the nearest), or one that does not serve the task.
    """
    name, colon, folder = source.partition(":")
    is_path = not colon or len(name) < 2 or "/" in name or "\\" in name or Path(source).exists()
    if is_path:
        return plain, source
    openers = lookup(DATASETS, name, "data set").openers
    if task not in openers:
        fitting = [other for other, dataset in DATASETS.items() if task in dataset.openers]
        raise ValueError(
            f"{name} is no data set for {task}, but for {', '.join(openers)}; for {task} there are "
            f"{', '.join(fitting) or 'folders'}"
        )
    return openers[task], folder
