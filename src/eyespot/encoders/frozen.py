"""Models that are used as they are: every weight must come from somewhere, or be random by the spec's own word."""

from __future__ import annotations

import warnings
from collections.abc import Callable

from eyespot.encoders.base import Encoder
from eyespot.encoders.loading import load_encoder
from eyespot.encoders.naming import has_random_weights


def load_frozen(spec: str, load: Callable[[str], Encoder] = load_encoder) -> Encoder:
    """Loads a model that nobody trains: to be measured, exported or to teach.

    Args:
        spec: see `load_encoder`.
        load: `load_classifier` for a model with its class head.

    Raises:
        ValueError: part of it has weights that its files do not have, so that it would be another model at every start;
            see also `load_encoder`.
    """
    encoder = load(spec)
    if encoder.made_up and not has_random_weights(spec):
        shown = ", ".join(encoder.made_up[:4]) + (" ..." if len(encoder.made_up) > 4 else "")
        raise ValueError(
            f"{spec}: its weights come without {shown}, which would be random, and others at every start. Leave out "
            "the option that asks for it (num_classes= to keep the head that the weights bring), or train it first "
            "and name the run: run/FOLDER"
        )
    return encoder


def load_teacher_model(spec: str, load: Callable[[str], Encoder] = load_encoder) -> Encoder:
    """`load_frozen` for a teacher, with a warning if it has learnt nothing itself."""
    encoder = load_frozen(spec, load)
    if has_random_weights(spec):
        warnings.warn(
            f"teacher {spec} has random weights and nothing to teach; for a real one leave out pretrained=false, or "
            "name weights=FILE",
            stacklevel=2,
        )
    return encoder
