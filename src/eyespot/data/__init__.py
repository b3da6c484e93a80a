"""What is seen: pictures from folders, WebDataset shards and the built-in toybox, as seeded batches of views.

With the maps of several tasks they come from `open_multitask`; labelled sets for single tasks are in
`eyespot.data.sets`.
"""

from typing import TYPE_CHECKING

from eyespot.lazy import lazy_names

if TYPE_CHECKING:
    from eyespot.data.labelled.samples import MultiTaskData, MultiTaskSample
    from eyespot.data.loading.batch import Batch, CachedRows, MapBatch, PictureBatch
    from eyespot.data.loading.batch_loader import BrokenSourceError
    from eyespot.data.loading.config import DataConfig, plain_list_of_sources
    from eyespot.data.loading.maps import MultiTaskLoader
    from eyespot.data.loading.pictures import PictureLoader
    from eyespot.data.sets.opening import open_multitask
    from eyespot.data.sources.base import PictureSource
    from eyespot.data.sources.decode import PictureError, decode_picture
    from eyespot.data.sources.folders import FolderSource
    from eyespot.data.sources.opening import open_source
    from eyespot.data.sources.shards import ShardSource, write_shards
    from eyespot.data.views.config import PairedViewConfig, ViewConfig
    from eyespot.data.views.draw import View, apply_view, draw_view
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "eyespot.data.labelled.samples": ["MultiTaskData", "MultiTaskSample"],
            "eyespot.data.loading.batch": ["Batch", "CachedRows", "MapBatch", "PictureBatch"],
            "eyespot.data.loading.batch_loader": ["BrokenSourceError"],
            "eyespot.data.loading.config": ["DataConfig", "plain_list_of_sources"],
            "eyespot.data.loading.maps": ["MultiTaskLoader"],
            "eyespot.data.loading.pictures": ["PictureLoader"],
            "eyespot.data.sets.opening": ["open_multitask"],
            "eyespot.data.sources.base": ["PictureSource"],
            "eyespot.data.sources.decode": ["PictureError", "decode_picture"],
            "eyespot.data.sources.folders": ["FolderSource"],
            "eyespot.data.sources.opening": ["open_source"],
            "eyespot.data.sources.shards": ["ShardSource", "write_shards"],
            "eyespot.data.views.config": ["PairedViewConfig", "ViewConfig"],
            "eyespot.data.views.draw": ["View", "apply_view", "draw_view"],
        },
    )

__all__ = [
    "Batch",
    "BrokenSourceError",
    "CachedRows",
    "DataConfig",
    "FolderSource",
    "MapBatch",
    "MultiTaskData",
    "MultiTaskLoader",
    "MultiTaskSample",
    "PairedViewConfig",
    "PictureBatch",
    "PictureError",
    "PictureLoader",
    "PictureSource",
    "ShardSource",
    "View",
    "ViewConfig",
    "apply_view",
    "decode_picture",
    "draw_view",
    "open_multitask",
    "open_source",
    "plain_list_of_sources",
    "write_shards",
]
