"""Randomness is a counter, not a state: every draw is a pure function of the keys that name it.

Because of this a resumed run, a run with other workers and a replayed step are equal by construction, and no random
state is ever saved.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import DTypeLike

Key = int | str


def seed_of(*keys: Key) -> int:
    """A 63-bit seed from any sequence of integers and strings, e.g. `seed_of(seed, "view", picture, epoch)`.

    The same keys give the same seed on every machine, process and Python version.
    """
    text = "\x1f".join(f"{type(key).__name__}:{key}" for key in keys)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def numpy_generator(*keys: Key) -> np.random.Generator:
    """A NumPy generator (Philox, counter based) for the draw named by `keys`."""
    # NumPy's type hints forget that any ISeedSequence will do.
    return np.random.Generator(np.random.Philox(_PhiloxKey(seed_of(*keys))))  # type: ignore[arg-type]


class _PhiloxKey(ISeedSequence):
    """Gives `Philox(key=...)` in a third of its time, which goes into entropy that a given key then replaces."""

    def __init__(self, key: int) -> None:
        self._key = key

    def generate_state(self, n_words: int, dtype: DTypeLike = np.uint32) -> np.ndarray:
        """What Philox takes as its key, two words."""
        return np.array([self._key, 0], dtype)


def torch_generator(*keys: Key, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator for the draw named by `keys`."""
    generator = torch.Generator(device=device)
    generator.manual_seed(seed_of(*keys))
    return generator


def seed_everything(*keys: Key) -> None:
    """Re-seeds the global generators of Python, NumPy and torch for what libraries draw inside (drop path, say)."""
    seed = seed_of(*keys)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    seed_torch(seed)


def seed_torch(seed: int) -> None:
    """As `torch.manual_seed`, which takes 0.2 ms where PyTorch could use an accelerator but none is there."""
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


@contextmanager
def library_draws(*keys: Key) -> Iterator[None]:
    """Lets a library draw from the global generators of Python and NumPy as the draw named by `keys`.

    They are seeded inside and afterwards as they were before, so nobody else's draws change. torch's are left alone.
    """
    seed = seed_of(*keys)
    python, legacy = random.getstate(), np.random.get_state()
    try:
        random.seed(seed)
        np.random.seed(seed % 2**32)
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)
