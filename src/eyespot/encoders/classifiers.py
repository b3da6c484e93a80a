"""`load_classifier`: any model as an encoder with a class head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eyespot.encoders.base import Encoder, checked_names
from eyespot.encoders.headed import HeadedEncoder
from eyespot.encoders.loading import SOURCES, load_encoder
from eyespot.specs import read_options


def load_classifier(
    spec: str, num_classes: int | None = None, class_names: Sequence[str] | None = None, **options: Any
) -> Encoder:
    """Loads any model with a class head, in eval mode: `num_classes` is above 0 and `Features.logits` are there.

    Where the head comes from:

    - timm: the classifier that was released with the weights (with random weights: one of the size that timm lists),
      or a new one of timm's own kind;
    - files of other runtimes: their output `logits` or `log_probs`, or the one that the spec names (`?logits=NAME`).
      Log-probabilities are logits up to a constant per picture: their softmax is the same at any temperature;
    - saved folders (`run/...`): the head that was saved, or a new one;
    - your own `python/` factory: the head that it brings, or a new one;
    - all others: a new linear layer on the summary, see `HeadedEncoder`.

    Args:
        spec: see `load_encoder`.
        num_classes: K. None takes the head that the model brings. A number keeps the head that the model brings if it
            has that many outputs, and puts a new one (random weights) on it if not.
        class_names: names of the outputs in order; what the model itself says of them if None.
        options: see `load_encoder`.

    Raises:
        ValueError: no head and no `num_classes` to make one, a file without such an output or with another number of
            them, another number of names; see also `load_encoder`.
    """
    path, _, query = spec.partition("?")
    prefix = path.partition("/")[0]
    options = {**read_options(query), **options}
    if prefix != "python" and "num_classes" in options:  # of a factory it is an option like any other
        num_classes = options.pop("num_classes") if num_classes is None else num_classes
    head = SOURCES[prefix].head if prefix in SOURCES else None
    if head == "num_classes":
        options["num_classes"] = num_classes
    elif head == "logits":
        options.setdefault("logits", True)
    encoder = with_classes(load_encoder(path, **options), num_classes)
    if class_names is not None:
        encoder.class_names = checked_names(class_names, encoder.num_classes, encoder.name)
    return encoder.eval()


def with_classes(encoder: Encoder, num_classes: int | None) -> Encoder:
    """An encoder with a class head of `num_classes` outputs: its own if it has that number, otherwise a new one.

    Args:
        encoder: changed in place if it is timm's.
        num_classes: None for the head that it brings, however large.

    Raises:
        ValueError: there is no head and no number; or one that cannot be replaced has another number.
    """
    if num_classes is None and not encoder.num_classes:
        raise ValueError(
            f"{encoder.name} brings no class head; say how many classes a new one is to have: num_classes=N"
        )
    if num_classes is None or num_classes == encoder.num_classes:
        return encoder
    return encoder.with_new_head(num_classes) or HeadedEncoder(encoder, num_classes)
