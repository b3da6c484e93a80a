"""Labelled data sets: one file per set, which reads it for single tasks and for several at once.

`DATASETS` has all of them for single tasks, by name; `open_multitask` opens those with maps for several.
"""

from eyespot.data.labelled.base import (
    ClassificationData,
    DensePictures,
    DepthData,
    FileLabels,
    FilePictures,
    LabelledPictures,
    MatchingData,
    NormalsData,
    Pictures,
    PointPair,
    RetrievalData,
    SegmentationData,
    TensorPictures,
)
from eyespot.data.labelled.layout import Layout, LayoutError
from eyespot.data.labelled.samples import MultiTaskData, MultiTaskSample
from eyespot.data.sets.ade20k import open_ade20k
from eyespot.data.sets.camvid import open_camvid
from eyespot.data.sets.cifar import open_cifar10, open_cifar100
from eyespot.data.sets.cityscapes import open_cityscapes
from eyespot.data.sets.coco import open_coco
from eyespot.data.sets.folders import (
    open_caption_folder,
    open_depth_folder,
    open_image_folder,
    open_mask_folder,
    open_normals_folder,
    open_picture_folder,
)
from eyespot.data.sets.hub import open_hub
from eyespot.data.sets.imagenet import open_imagenet, open_imagenet_names
from eyespot.data.sets.nyu import open_nyu, open_nyu_normals
from eyespot.data.sets.opening import MULTITASK_SETS, open_multitask
from eyespot.data.sets.pascal import open_voc
from eyespot.data.sets.registry import DATASETS, DataSet, find_opener
from eyespot.data.sets.rgbd import open_rgbd_depth, open_rgbd_matching, open_rgbd_normals, read_rgbd
from eyespot.data.sets.spair import open_spair
from eyespot.data.sets.toybox import ToyboxConfig, ToyboxData

__all__ = [
    "DATASETS",
    "MULTITASK_SETS",
    "ClassificationData",
    "DataSet",
    "DensePictures",
    "DepthData",
    "FileLabels",
    "FilePictures",
    "LabelledPictures",
    "Layout",
    "LayoutError",
    "MatchingData",
    "MultiTaskData",
    "MultiTaskSample",
    "NormalsData",
    "Pictures",
    "PointPair",
    "RetrievalData",
    "SegmentationData",
    "TensorPictures",
    "ToyboxConfig",
    "ToyboxData",
    "find_opener",
    "open_ade20k",
    "open_camvid",
    "open_caption_folder",
    "open_cifar10",
    "open_cifar100",
    "open_cityscapes",
    "open_coco",
    "open_depth_folder",
    "open_hub",
    "open_image_folder",
    "open_imagenet",
    "open_imagenet_names",
    "open_mask_folder",
    "open_multitask",
    "open_normals_folder",
    "open_nyu",
    "open_nyu_normals",
    "open_picture_folder",
    "open_rgbd_depth",
    "open_rgbd_matching",
    "open_rgbd_normals",
    "open_spair",
    "open_voc",
    "read_rgbd",
]
