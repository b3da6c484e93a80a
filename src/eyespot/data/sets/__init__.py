"""Labelled data sets: one reader per layout, the types they return in `base`, all of them by name in `registry`."""

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
from eyespot.data.sets.ade20k import open_ade20k
from eyespot.data.sets.cifar import open_cifar10, open_cifar100
from eyespot.data.sets.cityscapes import open_cityscapes
from eyespot.data.sets.coco import open_coco
from eyespot.data.sets.depth_folder import open_depth_folder, open_normals_folder
from eyespot.data.sets.hub import open_hub
from eyespot.data.sets.image_folder import open_image_folder
from eyespot.data.sets.imagenet import open_imagenet, open_imagenet_names
from eyespot.data.sets.mask_folder import open_camvid, open_mask_folder
from eyespot.data.sets.nyu import open_nyu, open_nyu_normals
from eyespot.data.sets.registry import DATASETS, DataSet, find_opener
from eyespot.data.sets.rgbd import open_rgbd_depth, open_rgbd_matching, open_rgbd_normals, read_rgbd
from eyespot.data.sets.spair import open_spair
from eyespot.data.sets.toybox import ToyboxConfig, ToyboxData
from eyespot.data.sets.voc import open_voc

__all__ = [
    "DATASETS",
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
    "open_normals_folder",
    "open_nyu",
    "open_nyu_normals",
    "open_rgbd_depth",
    "open_rgbd_matching",
    "open_rgbd_normals",
    "open_spair",
    "open_voc",
    "read_rgbd",
]
