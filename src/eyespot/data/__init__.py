"""What is seen: pictures from folders, WebDataset shards and the built-in toybox, as seeded batches of views."""

from eyespot.data.loading.batch_loader import BrokenSourceError
from eyespot.data.loading.pictures import Batch, DataConfig, PictureLoader, plain_list_of_sources
from eyespot.data.sources.base import PictureSource
from eyespot.data.sources.decode import PictureError, decode_picture
from eyespot.data.sources.folders import FolderSource
from eyespot.data.sources.opening import open_source
from eyespot.data.sources.shards import ShardSource, write_shards
from eyespot.data.views.draw import View, ViewConfig, apply_view, draw_view

__all__ = [
    "Batch",
    "BrokenSourceError",
    "DataConfig",
    "FolderSource",
    "PictureError",
    "PictureLoader",
    "PictureSource",
    "ShardSource",
    "View",
    "ViewConfig",
    "apply_view",
    "decode_picture",
    "draw_view",
    "open_source",
    "plain_list_of_sources",
    "write_shards",
]
