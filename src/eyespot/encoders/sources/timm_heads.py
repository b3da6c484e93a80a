"""The classifiers of timm's models: how many outputs they have, what these are called, and how to replace them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from timm.data import ImageNetInfo, infer_imagenet_subset
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def num_classes_of(model: Any) -> int:
    """How many outputs the classifier of a timm model has; 0 without one."""
    return int(getattr(model, "num_classes", 0) or 0) if hasattr(model, "reset_classifier") else 0


def classes_in(state: Mapping[str, Tensor], cfg: Mapping[str, Any]) -> int:
    """How many outputs the classifier has whose weights are in a file of timm's names; 0 without one.

    Args:
        state: what is in the file.
        cfg: the model's `pretrained_cfg`, which names the classifier's layer.
    """
    layers = cfg.get("classifier") or ""
    layer = layers if isinstance(layers, str) else layers[0]  # distilled models have two
    found = [state[key] for key in (f"{layer}.bias", f"{layer}.weight") if key in state]
    return len(found[0]) if found else 0


def set_classes(model: Any, num_classes: int, name: str) -> None:
    """Gives a timm model a classifier of `num_classes` outputs (0: none), a new one unless it has one of that size.

    Raises:
        ValueError: timm gives this model no classifier.
    """
    if num_classes_of(model) == num_classes:
        return
    if not hasattr(model, "reset_classifier"):
        raise ValueError(
            f"{name}: timm gives this model no place for a classifier; put one on its summary: "
            "eyespot.encoders.HeadedEncoder(load_encoder(spec), num_classes)"
        )
    model.reset_classifier(num_classes)


def released_names(model: Any, is_timms: bool) -> list[str] | None:
    """What the outputs of a released classifier are called: its configuration's names, or ImageNet's WordNet numbers.

    Args:
        model: a timm model with the classifier that came with its weights.
        is_timms: whether it is one of timm's own releases. Their configurations do not name ImageNet's classes, but say
            by their number which of ImageNet's subsets it is.
    """
    names = model.pretrained_cfg.get("label_names")
    if names:
        return [str(name) for name in names]
    subset = infer_imagenet_subset(model) if is_timms else None
    return list(ImageNetInfo(subset).label_names()) if subset else None


@contextmanager
def running_statistics_kept(model: nn.Module) -> Iterator[None]:
    """Batch norms within leave their running statistics alone: a head that is run twice must count a batch once."""
    norms = [norm for norm in model.modules() if isinstance(norm, _BatchNorm)] if model.training else []
    before = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.momentum = 0.0
        yield
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum
