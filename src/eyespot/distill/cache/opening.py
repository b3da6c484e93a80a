"""A committee whose features are kept, for the pictures of a loader."""

from __future__ import annotations

from functools import partial

from eyespot.data import PictureLoader
from eyespot.distill.cache.build import first_batches
from eyespot.distill.cache.committee import CachedCommittee
from eyespot.distill.cache.config import CacheConfig
from eyespot.distill.committee import Committee


def cached_committee(
    committee: Committee, loader: PictureLoader, cache: CacheConfig, precision: str
) -> CachedCommittee:
    """A committee that keeps its features of a loader's pictures.

    Args:
        committee: the frozen teachers.
        loader: brings a fixed number of views of each picture.
        cache: where the features are kept, and how.
        precision: in which the teachers compute, as in `EngineConfig`.

    Raises:
        ValueError: the loader brings new views every epoch.
        CacheMismatchError: the folder holds features of something else.
    """
    views = loader.config.views
    if views is None:
        raise ValueError("the teacher cache needs a fixed number of views per picture: set data.views")
    assert cache.folder is not None
    setting = {
        "data": loader.fingerprint(),
        "view": loader.config.view.as_setting(),
        "size": loader.config.size,
        "enough_side": loader.config.enough_side,
        "views": views,
        "seed": loader.config.seed,
        "precision": precision,
    }
    lengths = [len(source) for source in loader.sources]
    return CachedCommittee(
        committee,
        cache.folder,
        setting=setting,
        source_lengths=lengths,
        views=views,
        store=cache.store,
        rank=cache.rank,
        sample=partial(first_batches, loader),
    )
