"""Fingerprints of data: is it still the same?"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def fingerprint_of(lines: Iterable[str]) -> str:
    """A 128-bit hash, in hexadecimal, of lines of text in their order."""
    digest = hashlib.blake2b(digest_size=16)
    for line in lines:
        digest.update(line.encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()
