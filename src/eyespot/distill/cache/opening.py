"""A committee whose features are kept, for the pictures of a loader."""

from __future__ import annotations

import warnings
from functools import partial

import numpy as np

from eyespot.data import PictureLoader, PictureSource
from eyespot.data.sources.fingerprint import contents_of
from eyespot.distill.cache.build import first_batches
from eyespot.distill.cache.committee import CachedCommittee
from eyespot.distill.cache.config import CacheConfig
from eyespot.distill.committee import Committee


def cached_committee(
    committee: Committee, loader: PictureLoader, cache: CacheConfig, precision: str, comparing: bool = False
) -> CachedCommittee:
    """A committee that keeps its features of a loader's pictures.

    Args:
        committee: the frozen teachers.
        loader: brings a fixed number of views of each picture.
        cache: where the features are kept, and how.
        precision: in which the teachers compute, as in `EngineConfig`.
        comparing: see `ShardReader`.

    Warns:
        UserWarning: pictures have changed since their features were kept; says which.

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
    opened = CachedCommittee(
        committee,
        cache.folder,
        setting=setting,
        source_lengths=lengths,
        views=views,
        contents=np.concatenate([_contents(source) for source in loader.sources]),
        store=cache.store,
        rank=cache.rank,
        sample=partial(first_batches, loader),
        comparing=comparing,
    )
    _tell_of_changes(opened, loader)
    return opened


def _contents(source: PictureSource) -> np.ndarray:
    """int64 [n]: what is in each picture; zeros where the source's fingerprint tells all."""
    contents = contents_of(source)
    return contents if len(contents) else np.zeros(len(source), np.int64)


def _tell_of_changes(committee: CachedCommittee, loader: PictureLoader) -> None:
    """Old features are not taken for those of new pictures, and nobody should wonder why they are computed again."""
    outdated = np.unique(np.concatenate([cache.reader.outdated for cache in committee.caches.values()]))
    if not len(outdated):
        return
    draws = committee.rows.draws(outdated[:1])
    pictures = len(np.unique(outdated // committee.rows.views))
    first = loader.sources[int(draws.source[0])].picture_name(int(draws.index[0]))
    warnings.warn(
        f"{committee.folder}: {pictures} of {committee.rows.count // committee.rows.views} pictures have changed since "
        f"their features were kept ({first}{', ...' if pictures > 1 else ''}); they are computed again",
        stacklevel=3,
    )
