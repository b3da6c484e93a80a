"""What tells one encoder from another, down to its weights."""

from __future__ import annotations

import hashlib
import json
import re

import torch

from eyespot.encoders.base import Encoder


def identity(encoder: Encoder) -> dict[str, str]:
    """Name, weights hash and, if there is one, the setting that features depend on: the key under which they are kept.

    The name is without a licence option: a licence is named beside the features, it is not in them.
    """
    known = {"model": re.sub(r"[?&]license=[^&]*$", "", encoder.name), "weights": weights_hash(encoder)}
    setting = encoder.setting(features_only=True)
    return {**known, "model_setting": json.dumps(setting, sort_keys=True)} if setting else known


def weights_hash(encoder: Encoder) -> str:
    """SHA-256 of an encoder's weights: of its file if it is one, of its tensors, and of its normalisation."""
    digest = hashlib.sha256()
    for file in encoder.files:
        digest.update(file.read_bytes())
    tensors = {**encoder.state_dict(), "mean": encoder.mean, "std": encoder.std}
    for name, value in tensors.items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
