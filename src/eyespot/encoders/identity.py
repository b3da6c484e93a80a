"""What tells one encoder from another, down to its weights."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import torch

from eyespot.encoders.base import Encoder


def identity(encoder: Encoder) -> dict[str, str]:
    """Name and weights hash, the key under which features are kept.

    The name is without a licence option: a licence is named beside the features, it is not in them.
    """
    return {"model": re.sub(r"[?&]license=[^&]*$", "", encoder.name), "weights": weights_hash(encoder)}


def weights_hash(encoder: Encoder) -> str:
    """SHA-256 of an encoder's weights: of its file if it is one, of its tensors, and of its normalisation."""
    digest = hashlib.sha256()
    for file in getattr(encoder, "files", ()):
        digest.update(Path(file).read_bytes())
    tensors = {**encoder.state_dict(), "mean": encoder.mean, "std": encoder.std}
    for name, value in tensors.items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
