"""Pictures with the labels of several dense tasks: data sets, views of a picture and its labels, batches."""

from eyespot.data.multitask.loader import MultiTaskBatch, MultiTaskLoader, MultiTaskLoaderConfig
from eyespot.data.multitask.opening import SETS, open_multitask
from eyespot.data.multitask.samples import MultiTaskData, MultiTaskSample, Split
from eyespot.data.multitask.views import PairedViewConfig, centred, paired_view

__all__ = [
    "SETS",
    "MultiTaskBatch",
    "MultiTaskData",
    "MultiTaskLoader",
    "MultiTaskLoaderConfig",
    "MultiTaskSample",
    "PairedViewConfig",
    "Split",
    "centred",
    "open_multitask",
    "paired_view",
]
