"""Labelled data sets: one reader per layout, the types they return in `base`, all of them by name in `registry`."""

from eyespot.evaluate.datasets.ade20k import open_ade20k
from eyespot.evaluate.datasets.base import (
    ClassificationData,
    DensePictures,
    DepthData,
    FileLabels,
    FilePictures,
    LabelledPictures,
    LayoutError,
    MatchingData,
    NormalsData,
    Pictures,
    PointPair,
    RetrievalData,
    SegmentationData,
    TensorPictures,
)
from eyespot.evaluate.datasets.cifar import open_cifar10, open_cifar100
from eyespot.evaluate.datasets.cityscapes import open_cityscapes
from eyespot.evaluate.datasets.coco import open_coco
from eyespot.evaluate.datasets.depth_folder import open_depth_folder, open_normals_folder
from eyespot.evaluate.datasets.hub import open_hub
from eyespot.evaluate.datasets.image_folder import open_image_folder
from eyespot.evaluate.datasets.imagenet import open_imagenet, open_imagenet_names
from eyespot.evaluate.datasets.layout import Layout
from eyespot.evaluate.datasets.mask_folder import open_camvid, open_mask_folder
from eyespot.evaluate.datasets.nyu import open_nyu, open_nyu_normals
from eyespot.evaluate.datasets.registry import DATASETS, DataSet, find_opener
from eyespot.evaluate.datasets.rgbd import open_rgbd_depth, open_rgbd_matching, open_rgbd_normals, read_rgbd
from eyespot.evaluate.datasets.spair import open_spair
from eyespot.evaluate.datasets.toybox import ToyboxConfig, ToyboxData
from eyespot.evaluate.datasets.voc import open_voc

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
