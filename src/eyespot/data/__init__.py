"""What is seen: pictures from folders, WebDataset shards and the built-in toybox, as seeded batches of views."""

from eyespot.data.decode import PictureError, decode_picture
from eyespot.data.loader import Batch, BrokenSourceError, DataConfig, PictureLoader, plain_list_of_sources
from eyespot.data.shards import ShardSource, write_shards
from eyespot.data.sources import FolderSource, PictureSource, open_source
from eyespot.data.views import View, ViewConfig, apply_view, draw_view

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
