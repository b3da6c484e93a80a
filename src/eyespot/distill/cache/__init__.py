"""Teacher features on disk: computed once per picture and view, read back in every epoch, stage and run."""

from typing import TYPE_CHECKING

from eyespot.lazy import lazy_names

if TYPE_CHECKING:
    from eyespot.distill.cache.build import Built, build_cache, first_batches
    from eyespot.distill.cache.committee import CachedCommittee, StoredRows
    from eyespot.distill.cache.config import CacheConfig, CacheError, CacheMismatchError, StoreKind
    from eyespot.distill.cache.estimation import Estimate, estimate
    from eyespot.distill.cache.reader import DamagedCacheWarning
    from eyespot.distill.cache.verification import Verification, verify
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "eyespot.distill.cache.build": ["Built", "build_cache", "first_batches"],
            "eyespot.distill.cache.committee": ["CachedCommittee", "StoredRows"],
            "eyespot.distill.cache.config": ["CacheConfig", "CacheError", "CacheMismatchError", "StoreKind"],
            "eyespot.distill.cache.estimation": ["Estimate", "estimate"],
            "eyespot.distill.cache.reader": ["DamagedCacheWarning"],
            "eyespot.distill.cache.verification": ["Verification", "verify"],
        },
    )

__all__ = [
    "Built",
    "CacheConfig",
    "CacheError",
    "CacheMismatchError",
    "CachedCommittee",
    "DamagedCacheWarning",
    "Estimate",
    "StoreKind",
    "StoredRows",
    "Verification",
    "build_cache",
    "estimate",
    "first_batches",
    "verify",
]
