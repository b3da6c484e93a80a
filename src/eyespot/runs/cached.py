"""The teacher cache of a run, opened before any training: to fill it, to check it, or to say what it will take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from eyespot.data import DataConfig, PictureLoader
from eyespot.distill.cache import CacheConfig, CachedCommittee
from eyespot.distill.cache.opening import cached_committee
from eyespot.distill.committee import load_committee
from eyespot.encoders import load_encoder
from eyespot.runs.outline import StageOutline, view_size


def open_cached(
    stages: Sequence[StageOutline], data: DataConfig, cache: CacheConfig, precision: str, comparing: bool = False
) -> tuple[CachedCommittee, PictureLoader]:
    """The cached committee of a run, and the loader of its pictures; all stages with a cache share both.

    `eyespot.distill.cache` fills it (`build_cache`), compares it (`verify`) and foresees it (`estimate`).

    Args:
        stages: what the run is going to do, as `outline` of a recipe gives it.
        data: its pictures, with a fixed number of views.
        cache: where the features are kept, and how.
        precision: in which the teachers compute, as in `EngineConfig`.
        comparing: for `verify`: take what an earlier version kept, without knowing of which pictures.

    Raises:
        ValueError: no folder, new views in every epoch, or no stage that could use a cache.
        CacheMismatchError: the folder holds features of something else.
    """
    if cache.folder is None:
        raise ValueError("--cache.folder FOLDER is missing: name the folder that keeps the features")
    if data.views is None:
        raise ValueError("the teacher cache needs a fixed number of views per picture: set --data.views, e.g. to 3")
    cached = [stage for stage in stages if stage.cached]
    if not cached:
        raise ValueError(
            "no stage of this configuration learns from the experts at one size, so there is nothing to keep: either a "
            "finished proxy teaches all of them, or teacher_sizes are set"
        )
    experts = load_committee(cached[0].teachers, cached[0].max_grid)
    students = {name: load_encoder(spec) for name, spec in cached[0].students.items()}
    data = replace(data, size=view_size(cached[0], students, experts))
    loader = PictureLoader(data, cached[0].config.batch_size)
    return cached_committee(experts, loader, cache, precision, comparing), loader
