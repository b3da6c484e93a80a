"""Fingerprints of data: is it still the same?"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path


def fingerprint_of(lines: Iterable[str]) -> str:
    """A 128-bit hash, in hexadecimal, of lines of text in their order."""
    digest = hashlib.blake2b(digest_size=16)
    for line in lines:
        digest.update(line.encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()


def files_fingerprint(paths: Iterable[Path], setting: str = "") -> str:
    """Hash of files' names (with their two folders) and sizes in bytes, and of a setting in words."""
    lines = [f"{'/'.join(path.parts[-3:])} {path.stat().st_size}" for path in paths]
    return fingerprint_of([setting, *lines])
