"""`timm/NAME`: every image model of timm, ViT, CNN or hybrid, by one rule."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import timm
from torch import Tensor, nn

from eyespot.encoders.base import Encoder
from eyespot.features import Features


class TimmEncoder(Encoder):
    """A timm model as encoder. The rule, the same for all families:

    - patches: the output of `forward_features` without prefix (class, register) tokens, as a map, with the model's
      final norm. Models that norm after pooling (ConvNeXt: `head.norm`; ViTs with `fc_norm`) get that norm on the map as well,
      so that patches and summary live in one space (EUPE D.2 does the same for ConvNeXt).
    - summary: what timm's own head sees before the classifier (`forward_head(pre_logits=True)`): class token, pooled
      map, or attention pool.
    - sizes, normalisation, licence: the model's own configuration (`pretrained_cfg`).

    Args:
        model: a timm model created with `num_classes=0`.
        architecture: its timm name without tag.
        model_args: keyword arguments that `timm.create_model` needs to build it again.
        name: the spec shown to people.
        license: overrides the licence of the model's configuration, which speaks of timm's pretrained weights only.

    """

    def __init__(
        self, model: nn.Module, architecture: str, model_args: dict[str, Any], name: str, license: str | None
    ) -> None:
        cfg: dict[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
        super().__init__(cfg["mean"], cfg["std"])
        self.model = model
        self.architecture = architecture
        self.model_args = model_args
        self.name = name
        self.license = license
        self.patch_dim = int(model.num_features)  # type: ignore[arg-type]
        self.summary_dim = int(getattr(model, "head_hidden_size", None) or self.patch_dim)
        self.stride = _stride(model)
        self.default_size = tuple(cfg["input_size"][1:])
        resizable = not cfg.get("fixed_input_size", False) or model_args.get("dynamic_img_size", False)
        self.native_size = None if resizable else self.default_size
        self._prefix_tokens = int(getattr(model, "num_prefix_tokens", 0) or 0)
        self._channels_last = getattr(model, "output_fmt", "NCHW") == "NHWC"

    def _encode(self, images: Tensor) -> Features:
        grid = (-(-images.shape[2] // self.stride), -(-images.shape[3] // self.stride))
        features = self.model.forward_features(images)  # type: ignore[operator]
        summary = self.model.forward_head(features, pre_logits=True)  # type: ignore[operator]
        return Features(summary, self._as_map(features, grid))

    def _as_map(self, features: Tensor, grid: tuple[int, int]) -> Tensor:
        """[B, D, h, w] from tokens [B, N, D] or a map in either memory format, normed where timm norms after pooling."""
        if features.ndim == 3:
            features = features[:, self._prefix_tokens :]
            if features.shape[1] != grid[0] * grid[1]:
                raise ValueError(f"{self.name}: {features.shape[1]} patches do not make a {grid[0]}x{grid[1]} grid")
            features = features.unflatten(1, grid)
        elif not self._channels_last:
            features = features.permute(0, 2, 3, 1)
        norm = _norm_after_pooling(self.model, features.shape[-1])
        if isinstance(norm, nn.LayerNorm):
            # functional, because some of timm's norms (LayerNorm2d) permute by themselves
            features = nn.functional.layer_norm(features, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
        return features.permute(0, 3, 1, 2)

    def intermediates(self, images: Tensor, taps: Sequence[int]) -> list[Tensor]:
        """See `Encoder.intermediates`; `taps` are block (ViT) or stage (CNN) indices as timm counts them."""
        self.check(images)
        return self.model.forward_intermediates(  # type: ignore[operator]
            (images - self.mean) / self.std, indices=list(taps), output_fmt="NCHW", intermediates_only=True
        )

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that the model's authors exclude from weight decay."""
        names = self.model.no_weight_decay() if hasattr(self.model, "no_weight_decay") else set()
        return {f"model.{name}" for name in names}


def create_timm_encoder(
    name: str, *, pretrained: bool = True, license: str | None = None, **model_args: Any
) -> TimmEncoder:
    """Builds `timm/NAME[.tag]`.

    Args:
        name: a timm model name with or without tag, or `local-dir:FOLDER`.
        pretrained: load timm's weights for it (downloads them unless cached). Without, weights are random and carry
            no licence.
        license: overrides the licence in timm's configuration.
        model_args: passed on to the model.

    Raises:
        ValueError: timm has no such model; the nearest names are shown.
        RuntimeError: the weights could not be fetched.

    """
    architecture = name.split(".")[0]
    if not timm.is_model(architecture):
        import difflib

        near = difflib.get_close_matches(architecture, timm.list_models(), n=3, cutoff=0.5)
        raise ValueError(
            f"timm has no model {architecture!r}; did you mean {' or '.join(near) or 'timm.list_models()'}?"
        )
    model_args = {**_better_defaults(architecture), **model_args}
    try:
        model = timm.create_model(name, pretrained=pretrained, num_classes=0, **model_args)
    except RuntimeError:
        raise
    except Exception as error:
        if not pretrained:
            raise
        raise RuntimeError(
            f"timm/{name}: the pretrained weights could not be loaded ({type(error).__name__}: {error}). Offline? "
            f"Bring the weight file and pass it as weights=FILE, or use timm/{name}?pretrained=false for random weights."
        ) from error
    if license is None and pretrained:
        license = model.pretrained_cfg.get("license")
    return TimmEncoder(model, architecture, model_args, f"timm/{name}", license)


def _better_defaults(architecture: str) -> dict[str, Any]:
    """Arguments that make a timm model an encoder: any input size, and its class token as summary.

    Models trained with a class token but listed with average pooling (DINOv3, EUPE) are switched to the token; those
    that norm *after* average pooling were trained that way and stay as they are.
    """
    import torch

    with torch.device("meta"):
        model = timm.create_model(architecture, num_classes=0)
    args: dict[str, Any] = {}
    if "dynamic_img_size" in inspect.signature(type(model).__init__).parameters:
        args["dynamic_img_size"] = True
    has_token = getattr(model, "cls_token", None) is not None
    if (
        has_token
        and getattr(model, "global_pool", None) == "avg"
        and _norm_after_pooling(model, model.num_features) is None
    ):
        args["global_pool"] = "token"
    return args


def _stride(model: nn.Module) -> int:
    patch_embed = getattr(model, "patch_embed", None)
    if getattr(model, "feature_info", None):
        return int(model.feature_info[-1]["reduction"])  # type: ignore[index]
    return int(patch_embed.patch_size[0])  # type: ignore[union-attr, index]


def _norm_after_pooling(model: nn.Module, width: int) -> nn.LayerNorm | None:
    """The norm that timm applies after pooling, if it is one over the map's width."""
    for owner, attribute in ((getattr(model, "head", None), "norm"), (model, "fc_norm")):
        norm = getattr(owner, attribute, None)
        if isinstance(norm, nn.LayerNorm) and tuple(norm.normalized_shape) == (width,):
            return norm
    return None
