"""What there is to decide about a cache of teacher features, and what can be wrong with one."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from eyespot.config import STRICT

StoreKind = Literal["bfloat16", "float16", "int8"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CacheConfig:
    """Whether, where and how precisely the experts' features are kept."""

    folder: str | None = None
    """Folder that keeps the experts' features, to compute each only once; null computes them live. Needs data.views,
    which then holds for the stages that the experts teach; where a proxy teaches, every epoch brings new views."""
    store: StoreKind = "bfloat16"
    """How numbers are kept. int8: patches in 8 bits, with a scale and an offset per picture and channel."""
    rank: int | None = Field(default=None, gt=0)
    """Keep patches as so many principal components; null keeps every channel, and so do teachers with no more."""

    @property
    def kept_as(self) -> str:
        """The way of storing in words."""
        return f"cached in {self.store}" + (f", PCA rank {self.rank}" if self.rank else "")


class CacheError(RuntimeError):
    """A cache that cannot be used or written; says what to do."""


class CacheMismatchError(CacheError):
    """A cache made for something else: other data, teacher, size, views or way to store."""
