"""Labelled data sets: one reader per layout, the types they return in `base`."""

from eyespot.evaluate.datasets.base import (
    ClassificationData,
    DensePictures,
    DepthData,
    FilePictures,
    LabelledPictures,
    LayoutError,
    MatchingData,
    Pictures,
    PointPair,
    SegmentationData,
    TensorPictures,
)
from eyespot.evaluate.datasets.image_folder import open_image_folder
from eyespot.evaluate.datasets.mask_folder import open_mask_folder
from eyespot.evaluate.datasets.rgbd import open_rgbd_depth, open_rgbd_matching, read_rgbd
from eyespot.evaluate.datasets.toybox import ToyboxConfig, ToyboxData

__all__ = [
    "ClassificationData",
    "DensePictures",
    "DepthData",
    "FilePictures",
    "LabelledPictures",
    "LayoutError",
    "MatchingData",
    "Pictures",
    "PointPair",
    "SegmentationData",
    "TensorPictures",
    "ToyboxConfig",
    "ToyboxData",
    "open_image_folder",
    "open_mask_folder",
    "open_rgbd_depth",
    "open_rgbd_matching",
    "read_rgbd",
]
