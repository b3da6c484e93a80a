"""Teacher features on disk: computed once per picture and view, read back in every epoch, stage and run."""

from eyespot.distill.cache.build import Built, build_cache, first_batches
from eyespot.distill.cache.committee import CachedCommittee, StoredRows
from eyespot.distill.cache.config import CacheConfig, CacheError, CacheMismatchError, StoreKind
from eyespot.distill.cache.estimation import Estimate, estimate
from eyespot.distill.cache.reader import DamagedCacheWarning
from eyespot.distill.cache.verification import Verification, verify

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
