"""`timm/NAME`: every image model of timm, ViT, CNN or hybrid, by one rule."""

from __future__ import annotations

import difflib
import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import get_arch_pretrained_cfgs
from torch import Tensor, nn

from eyespot.encoders.base import Encoder
from eyespot.features import Features


class TimmEncoder(Encoder):
    """A timm model as encoder. The rule, the same for all families:

    - patches: the output of `forward_features` without prefix (class, register) tokens, as a map, with the model's
      final norm. Models that norm after pooling (ConvNeXt: `head.norm`; ViTs with `fc_norm`) get that norm on the map
      as well, so that patches and summary live in one space (EUPE D.2 does the same for ConvNeXt).
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
        self,
        model: nn.Module,
        architecture: str,
        model_args: dict[str, Any],
        name: str,
        license: str | None,
        channels_last: bool = False,
    ) -> None:
        cfg: dict[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
        super().__init__(cfg["mean"], cfg["std"])
        self.model = model.to(memory_format=torch.channels_last) if channels_last else model
        self.channels_last = channels_last
        self.architecture = architecture
        self.model_args = model_args
        self.name = name
        self.license = license
        self.patch_dim = int(model.num_features)  # type: ignore[arg-type]
        self.summary_dim = int(getattr(model, "head_hidden_size", None) or self.patch_dim)
        self.stride = _stride(model)
        self.default_size = _pair(model_args.get("img_size") or cfg["input_size"][1:])
        resizable = not cfg.get("fixed_input_size", False) or model_args.get("dynamic_img_size", False)
        self.native_size = None if resizable else self.default_size
        self._prefix_tokens = int(getattr(model, "num_prefix_tokens", 0) or 0)
        self._nhwc_output = getattr(model, "output_fmt", "NCHW") == "NHWC"

    def _encode(self, images: Tensor) -> Features:
        grid = (-(-images.shape[2] // self.stride), -(-images.shape[3] // self.stride))
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        features = self.model.forward_features(images)  # type: ignore[operator]
        if not isinstance(features, Tensor):
            raise ValueError(f"{self.name}: not one feature map but several come out of this model")
        summary = self.model.forward_head(features, pre_logits=True)  # type: ignore[operator]
        return Features(summary, self._as_map(features, grid))

    def _as_map(self, features: Tensor, grid: tuple[int, int]) -> Tensor:
        """[B, D, h, w] from tokens [B, N, D] or a map in either format, normed where timm norms after pooling."""
        if features.ndim == 3:
            features = features[:, self._prefix_tokens :]
            if features.shape[1] != grid[0] * grid[1]:
                raise ValueError(f"{self.name}: {features.shape[1]} patches do not make a {grid[0]}x{grid[1]} grid")
            features = features.unflatten(1, grid)
        elif not self._nhwc_output:
            features = features.permute(0, 2, 3, 1)
        norm = _norm_after_pooling(self.model, features.shape[-1])
        if isinstance(norm, nn.LayerNorm):
            # functional, because some of timm's norms (LayerNorm2d) permute by themselves
            features = nn.functional.layer_norm(features, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
        return features.permute(0, 3, 1, 2)

    def intermediates(self, images: Tensor, taps: Sequence[int]) -> list[Tensor]:
        """See `Encoder.intermediates`; `taps` are block (ViT) or stage (CNN) indices as timm counts them, ascending."""
        self.check(images)
        if list(taps) != sorted(set(taps)):
            raise ValueError(f"{self.name}: taps must ascend, got {list(taps)}: timm returns the maps in that order")
        return self.model.forward_intermediates(  # type: ignore[operator]
            (images - self.mean) / self.std, indices=list(taps), output_fmt="NCHW", intermediates_only=True
        )

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that the model's authors exclude from weight decay."""
        names: set[str] = getattr(self.model, "no_weight_decay", set)()
        return {f"model.{name}" for name in names}


def create_timm_encoder(
    name: str,
    *,
    pretrained: bool = True,
    license: str | None = None,
    channels_last: bool = False,
    pretrained_cfg: dict[str, Any] | None = None,
    **model_args: Any,
) -> TimmEncoder:
    """Builds `timm/NAME[.tag]`.

    Args:
        name: a timm model name with or without tag, or `local-dir:FOLDER` for a folder that timm saved.
        pretrained: load timm's weights for it (downloads them unless cached). Without, weights are random and carry
            no licence.
        license: overrides the licence in timm's configuration.
        channels_last: compute in that memory format; several times faster for some CNNs, above all in bfloat16.
        pretrained_cfg: sizes and normalisation to use instead of those of timm's default tag.
        model_args: passed on to the model.

    Raises:
        ValueError: timm has no such model or tag; the nearest names are shown.
        FileNotFoundError: `local-dir:` without a model there.
        RuntimeError: the weights could not be fetched.
    """
    if name.startswith("local-dir:"):
        architecture, saved_args = _read_folder(Path(name.removeprefix("local-dir:")))
        model_args = {**saved_args, **model_args}
    else:
        architecture = name.partition(".")[0]
        _refuse_unknown(name, architecture)
    model_args = {**_better_defaults(architecture), **model_args}
    source: dict[str, Any] = {"pretrained": pretrained, "pretrained_cfg": pretrained_cfg}
    try:
        model = timm.create_model(name, **source, num_classes=0, **model_args)
    except (RuntimeError, TypeError):
        raise
    except Exception as error:
        if not pretrained:
            raise
        raise RuntimeError(
            f"timm/{name}: the pretrained weights could not be loaded ({type(error).__name__}: {error}). Offline? "
            f"Bring the weight file and pass it as weights=FILE, or take random weights: timm/{name}?pretrained=false"
        ) from error
    if license is None and pretrained:
        license = model.pretrained_cfg.get("license")
    return TimmEncoder(model, architecture, model_args, f"timm/{name}", license, channels_last)


def _refuse_unknown(name: str, architecture: str) -> None:
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3, cutoff=0.5)
        raise ValueError(
            f"timm has no model {architecture!r}; did you mean {' or '.join(near) or 'timm.list_models()'}?"
        )
    tagged = list(get_arch_pretrained_cfgs(architecture))
    if name not in (architecture, *tagged):
        raise ValueError(f"timm has no weights {name!r}; there are {', '.join(tagged) or 'none for it'}")


def _read_folder(folder: Path) -> tuple[str, dict[str, Any]]:
    """Architecture and arguments of a model folder in timm's layout."""
    file = folder / "config.json"
    if not file.is_file():
        raise FileNotFoundError(f"no timm model in {folder}: there is no config.json")
    config = json.loads(file.read_text())
    return config["architecture"], config.get("model_args") or {}


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    return height, width


def _better_defaults(architecture: str) -> dict[str, Any]:
    """Arguments that make a timm model an encoder: any input size, and its class token as summary.

    Models trained with a class token but listed with average pooling (DINOv3, EUPE) are switched to the token; those
    that norm *after* average pooling were trained that way and stay as they are.
    """
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


def _stride(model: Any) -> int:
    if getattr(model, "feature_info", None):
        return int(model.feature_info[-1]["reduction"])
    return int(model.patch_embed.patch_size[0])


def _norm_after_pooling(model: nn.Module, width: int) -> nn.LayerNorm | None:
    """The norm that timm applies after pooling, if it is one over the map's width."""
    for owner, attribute in ((getattr(model, "head", None), "norm"), (model, "fc_norm")):
        norm = getattr(owner, attribute, None)
        if isinstance(norm, nn.LayerNorm) and tuple(norm.normalized_shape) == (width,):
            return norm
    return None
