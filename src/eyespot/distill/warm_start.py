"""How models begin: what a spec means when it names a model to train."""

from __future__ import annotations

from collections.abc import Callable

from eyespot.encoders import Encoder, load_encoder
from eyespot.encoders.naming import trainable_spec
from eyespot.randomness import seed_everything


def new_encoder(spec: str, seed: int, role: str, load: Callable[[str], Encoder] = load_encoder) -> Encoder:
    """A model to train: with the weights that its spec names, else with random ones that follow from the seed.

    Args:
        spec: see `load_encoder`.
        seed: names the random weights, together with the role.
        role: what the model is for, e.g. "student".
        load: builds it; `load_classifier` for a model with a class head.

    Raises:
        ValueError: an ONNX file, which cannot be trained.
    """
    seed_everything(seed, "init", role)
    if spec.startswith("onnx/"):
        raise ValueError(f"{spec}: an ONNX file can teach but not be trained; name a timm/ or python/ model")
    return load(trainable_spec(spec))
