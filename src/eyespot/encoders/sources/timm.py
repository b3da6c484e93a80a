"""`timm/NAME`: every image model of timm, ViT, CNN or hybrid, by one rule."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import get_model_input_config
from torch import Tensor, nn

from eyespot.encoders.base import Encoder, checked_names, new_head
from eyespot.encoders.forms.fusing import fuse, merge_branches
from eyespot.encoders.identity import configuration_hash
from eyespot.encoders.licenses import timm_license
from eyespot.encoders.sources.timm_forms import TimmForm
from eyespot.encoders.sources.timm_heads import (
    num_classes_of,
    released_names,
    running_statistics_kept,
    set_classes,
)
from eyespot.encoders.sources.timm_models import read_timm_folder, refuse_unknown, with_file, with_timms_weights
from eyespot.features import Features

_KEPT_OF_CFG = (
    "tag",
    "mean",
    "std",
    "interpolation",
    "crop_pct",
    "crop_mode",
    "fixed_input_size",
    "first_conv",
    "classifier",
)


class TimmEncoder(Encoder):
    """A timm model as encoder. The rule, the same for all families:

    - patches: the output of `forward_features` without prefix (class, register) tokens, as a map, with the model's
      final norm. Models that norm after pooling (ConvNeXt: `head.norm`; ViTs with `fc_norm`) get that norm on the map
      as well, so that patches and summary live in one space (EUPE D.2 does the same for ConvNeXt).
    - summary: what timm's own head sees before the classifier (`forward_head(pre_logits=True)`): class token, pooled
      map, or attention pool. For the few models without a head, the mean of the patches.
    - widths, stride and sizes: found by sending shapes through the model, see `_measure`.
    - logits: what timm's own head gives (`forward_head`), if the classifier is wanted.
    - normalisation, licence: the model's own configuration (`pretrained_cfg`).

    Args:
        model: a timm model.
        architecture: its timm name without tag.
        model_args: keyword arguments that `create_timm_encoder` needs to build it again.
        name: the spec shown to people.
        license: overrides the licence of the model's configuration, which speaks of timm's pretrained weights only.
        channels_last: compute in that memory format.
        classifier: whether the model's classifier fills `Features.logits`; without, it is not run.

    Raises:
        ValueError: the model gives several maps, tokens that are not a grid, or no vector as summary.
    """

    def __init__(
        self,
        model: nn.Module,
        architecture: str,
        model_args: dict[str, Any],
        name: str,
        license: str | None,
        channels_last: bool = False,
        classifier: bool = False,
    ) -> None:
        cfg: dict[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
        super().__init__(cfg["mean"], cfg["std"])
        self.model = model.to(memory_format=torch.channels_last) if channels_last else model
        self.channels_last = channels_last
        self.architecture = architecture
        self.model_args = model_args
        self.name = name
        self.license = license
        self.num_classes = num_classes_of(model) if classifier else 0
        self._nhwc_output = getattr(model, "output_fmt", "NCHW") == "NHWC"
        self._measure()

    architecture: str
    model_args: dict[str, Any]
    _native_grid: tuple[int, int] | None
    _least_side = 1

    def _measure(self) -> None:
        """Finds widths, stride, prefix tokens and sizes by sending shapes without numbers through the model.

        Any multiple of the stride will do if timm calls the size free and the grid grows with the picture, also where
        that is not square (MobileNetV5, for one, gives the same grid for all). Else only the size it was made for.
        """
        config = get_model_input_config(self.model)
        made_for: tuple[int, int] = config["input_size"][1:]
        shapes = _on_meta(self.model)
        self.stride = announced = _announced_stride(self.model)
        self._native_grid = None
        if config["fixed_input_size"] or not self._grows(shapes, self.fitting_size(made_for)):
            self.native_size, self._native_grid = made_for, self._grid_at(shapes, made_for)
            rounded = [(side // announced, -(-side // announced)) for side in made_for]
            true = all(cells in either for cells, either in zip(self._native_grid, rounded, strict=True))
            self.stride = announced if true else -(-made_for[0] // self._native_grid[0])
        self.default_size = self.fitting_size(made_for)
        gates = [getattr(part, "short_conv", None) for part in self.model.modules()]
        # GhostNet's gates halve the last map once more
        self._least_side = 2 * self.stride if any(isinstance(gate, nn.Sequential) for gate in gates) else 1

    def _grows(self, shapes: Any, size: tuple[int, int]) -> bool:
        """Whether the grid is size / stride here, and in a picture one patch higher and two wider; sets the stride."""
        try:
            self.stride = -(-size[0] // self._grid_at(shapes, size)[0])
            larger = (size[0] + self.stride, size[1] + 2 * self.stride)
            return self._grid_at(shapes, larger) == (larger[0] // self.stride, larger[1] // self.stride)
        except ValueError:
            return False

    def size_error(self, height: int, width: int) -> str | None:
        """See `Encoder.size_error`."""
        problem = super().size_error(height, width)
        if problem or self.native_size or min(height, width) >= self._least_side:
            return problem
        least = self._least_side
        stem: Any = getattr(self.model, "conv_stem", None)
        hint = "; stem_stride=1 halves that" if getattr(stem, "stride", None) == (2, 2) else ""
        return f"needs sides of {least} pixels or more, got {height}x{width}; {least}x{least} would do{hint}"

    def _rounded(self, side: int) -> int:
        return max(super()._rounded(side), self._least_side)

    @torch.no_grad()
    def _grid_at(self, shapes: Any, size: tuple[int, int]) -> tuple[int, int]:
        """The grid for pictures of a size; sets the widths and the number of prefix tokens."""
        try:
            features = shapes.forward_features(torch.zeros(1, 3, *size, device="meta"))
        except Exception as error:  # assertions, errors of torch, errors of their own: models refuse in many ways
            reason = f"{type(error).__name__}: {error}"
            raise ValueError(f"{self.name} cannot take a {size[0]}x{size[1]} picture ({reason})") from error
        if not isinstance(features, Tensor):
            raise ValueError(f"{self.name}: not one feature map but several come out of this model")
        grid = self._token_grid(features.shape[1], size) if features.ndim == 3 else (0, 0)
        patches = self._as_map(shapes, features, grid)
        summary = _pooled(shapes, features, patches)
        if summary.ndim != 2:
            raise ValueError(f"{self.name}: the summary must be one vector per picture, got {tuple(summary.shape)}")
        self.summary_dim, self.patch_dim = summary.shape[1], patches.shape[1]
        return patches.shape[2], patches.shape[3]

    def _token_grid(self, count: int, size: tuple[int, int]) -> tuple[int, int]:
        """The grid that `count` tokens make; sets the number of prefix tokens."""
        announced = getattr(self.model, "num_prefix_tokens", None)
        for prefix in (0, 1) if announced is None else (announced,):  # VOLO and CoaT are silent about their class token
            patches = count - prefix
            stride = math.isqrt(size[0] * size[1] // max(patches, 1))
            grid = (size[0] // stride, size[1] // stride)
            if patches > 1 and grid[0] * grid[1] == patches:
                self._prefix_tokens = prefix
                return grid
        raise ValueError(f"{self.name}: the {count} tokens of a {size[0]}x{size[1]} picture are not a grid")

    def _encode(self, images: Tensor) -> Features:
        grid = self._native_grid or (images.shape[2] // self.stride, images.shape[3] // self.stride)
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        features = self.model.forward_features(images)  # type: ignore[operator]
        patches = self._as_map(self.model, features, grid)
        if not self.num_classes:
            return Features(_pooled(self.model, features, patches), patches)
        logits = self.model.forward_head(features)  # type: ignore[operator]
        with running_statistics_kept(self.model):
            return Features(_pooled(self.model, features, patches), patches, logits)

    def reset_classifier(self, num_classes: int, class_names: list[str] | None = None) -> None:
        """Puts a new classifier of that many outputs on the model, or none for 0.

        Raises:
            ValueError: timm gives this model no classifier, or names of another number.
        """
        if num_classes and num_classes != num_classes_of(self.model):
            self.made_up = (*self.made_up, new_head(num_classes))
        set_classes(self.model, num_classes, self.name)
        self.num_classes = num_classes
        self.class_names = checked_names(class_names, num_classes, self.name)

    def _as_map(self, model: Any, features: Tensor, grid: tuple[int, int]) -> Tensor:
        """[B, D, h, w] from tokens [B, N, D] or a map in either format, normed where timm norms after pooling."""
        if features.ndim == 3:
            features = features[:, self._prefix_tokens :].unflatten(1, grid)
        elif not self._nhwc_output:
            features = features.permute(0, 2, 3, 1)
        norm = _norm_after_pooling(model, features.shape[-1])
        patches = features.permute(0, 3, 1, 2)
        if norm is None:
            return patches
        return norm(patches) if type(norm).__name__.endswith("2d") else norm(features).permute(0, 3, 1, 2)

    def intermediates(self, images: Tensor, taps: Sequence[int]) -> list[Tensor]:
        """See `Encoder.intermediates`; `taps` are block (ViT) or stage (CNN) indices as timm counts them, ascending."""
        self.check(images)
        self._refuse_unordered(taps, "timm")
        return self.model.forward_intermediates(  # type: ignore[operator]
            self.normalised(images), indices=list(taps), output_fmt="NCHW", intermediates_only=True
        )

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that the model's authors exclude from weight decay."""
        names: set[str] = getattr(self.model, "no_weight_decay", set)()
        return {f"model.{name}" for name in names}

    @property
    def saved_part(self) -> nn.Module:
        """The model of timm itself, so that timm reads the folder too."""
        return self.model

    def get_config(self, license: str | None = None) -> dict[str, Any]:
        """See `Encoder.get_config`."""
        config = super().get_config(license)
        config["eyespot"]["channels_last"] = self.channels_last
        return {**self.timm_config(license or self.license), **config}

    def timm_config(self, license: str | None) -> dict[str, Any]:
        """What timm reads of config.json.

        Args:
            license: of the saved weights.
        """
        source: Any = self.model.pretrained_cfg
        pretrained_cfg: dict[str, Any] = {key: source[key] for key in _KEPT_OF_CFG if key in source}
        pretrained_cfg |= {"input_size": [3, *self.default_size], "num_classes": self.num_classes, "license": license}
        model_args = dict(self.model_args)
        if model_args.get("dynamic_img_size") and pretrained_cfg.get("fixed_input_size"):
            # timm reads such a folder as of free size, and would stretch the position embedding to its own default size
            model_args.setdefault("img_size", list(self.default_size))
        return {
            "architecture": self.architecture,
            "num_classes": self.num_classes,
            **({"label_names": self.class_names} if self.class_names else {}),
            "num_features": self.patch_dim,
            "pretrained_cfg": pretrained_cfg,
            "model_args": model_args,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> TimmEncoder:
        """See `Encoder.from_config`."""
        return create_timm_encoder(
            config["architecture"],
            pretrained=False,
            channels_last=config["eyespot"].get("channels_last", False),
            num_classes=config.get("num_classes", 0),
            pretrained_cfg=config["pretrained_cfg"],
            **config["model_args"],
        )

    def run_time_form(self) -> TimmEncoder:
        """See `Encoder.run_time_form`."""
        copied = self._copy_in_run_time_form({self.model: fuse(self.model, self.default_size)})
        copied.model_args = {**copied.model_args, "fused": True}
        return copied

    def export_form(self) -> TimmEncoder:
        """See `Encoder.export_form`; with the branches that timm's own models train in merged."""
        copied = self._shallow_copy()
        copied.channels_last = False  # which memory format is best is for each runtime to know
        copied.model = merge_branches(self.model)
        return copied

    def with_new_head(self, num_classes: int) -> TimmEncoder | None:
        """See `Encoder.with_new_head`; changed in place."""
        if not hasattr(self.model, "reset_classifier"):
            return None
        self.reset_classifier(num_classes)
        return self


def create_timm_encoder(
    name: str,
    *,
    pretrained: bool = True,
    weights: str | Path | None = None,
    license: str | None = None,
    channels_last: bool = False,
    num_classes: int | None = 0,
    pretrained_cfg: dict[str, Any] | None = None,
    **model_args: Any,
) -> TimmEncoder:
    """Builds `timm/NAME[.tag]`.

    Args:
        name: a timm model name with or without tag, or `local-dir:FOLDER` for a folder that timm saved.
        pretrained: load timm's weights for it (downloads them unless cached). Without, weights are random and carry
            no licence.
        weights: a checkpoint file to load instead: a backbone's, or the file that timm would have fetched.
        license: overrides the licence in timm's configuration.
        channels_last: compute in that memory format; several times faster for some CNNs, above all in bfloat16.
        num_classes: outputs of the class head: none (0), as many as the weights bring (None), or so many: the
            classifier that comes with the weights if it has that number, otherwise a new one.
        pretrained_cfg: sizes and normalisation to use instead of those of timm's default tag.
        model_args: passed on to the model, but for `stem_stride`, `branches` and `fused`; see `timm_forms.TimmForm`.

    Raises:
        ValueError: timm has no such model or tag (the nearest names are shown), the file does not fit, the model is
            none that gives one vector and one map, or it cannot have that form.
        FileNotFoundError: `local-dir:` without a model there.
        RuntimeError: timm's weights could not be fetched, or do not fit the model with these arguments.
    """
    if num_classes is not None and num_classes < 0:
        raise ValueError(f"timm/{name}: num_classes must be 0 (no head) or more, got {num_classes}")
    if name.startswith("local-dir:"):
        architecture, saved_args = read_timm_folder(Path(name.removeprefix("local-dir:")))
        model_args = {**saved_args, **model_args}
    else:
        architecture, saved_args = name.partition(".")[0], {}
        refuse_unknown(name, architecture)
    form, model_args = TimmForm.of({**_better_defaults(architecture), **model_args})
    form.check(f"timm/{name}", has_weights=pretrained or weights is not None)
    if weights is not None:
        model = with_file(name, str(weights), num_classes, pretrained_cfg=pretrained_cfg, **model_args)
    elif pretrained:
        model = with_timms_weights(name, pretrained_cfg=pretrained_cfg, **model_args)
        license = license or timm_license(model.pretrained_cfg)
    else:
        classes = {} if num_classes is None else {"num_classes": num_classes}
        model = timm.create_model(name, pretrained_cfg=pretrained_cfg, **classes, **model_args)
    brought = num_classes_of(model)
    released = brought if pretrained and weights is None else 0
    if num_classes is not None:
        set_classes(model, num_classes, f"timm/{name}")
    model, model_args = form.apply(model, f"timm/{name}"), {**model_args, **form.args}
    headed = num_classes != 0
    encoder = TimmEncoder(model, architecture, model_args, f"timm/{name}", license, channels_last, headed)
    if (pretrained or weights is not None) and num_classes not in (None, 0, brought):
        encoder.made_up = (new_head(num_classes),)
    if name.startswith("local-dir:"):
        encoder.configuration = configuration_hash({"architecture": architecture, "model_args": saved_args})
    if headed and encoder.num_classes == released:
        encoder.class_names = released_names(model, is_timms=not name.startswith("local-dir:"))
    return encoder


def _better_defaults(architecture: str) -> dict[str, Any]:
    """Arguments that make a timm model an encoder: any input size, its class token as summary, its paper's dropout.

    Models trained with a class token but listed with average pooling (DINOv3, EUPE) are switched to the token. Not so
    models that norm *after* average pooling, which were trained that way, and models without any final norm: PE lang
    and PE spatial were tuned on their patches, so that nothing was asked of the last block's token.
    """
    with torch.device("meta"):
        model = timm.create_model(architecture, num_classes=0)
    args: dict[str, Any] = {}
    if "dynamic_img_size" in inspect.signature(type(model).__init__).parameters:
        args["dynamic_img_size"] = True
    if (
        getattr(model, "cls_token", None) is not None
        and getattr(model, "global_pool", None) == "avg"
        and _norm_after_pooling(model, model.num_features) is None
        and not isinstance(getattr(model, "norm", None), nn.Identity)
    ):
        args["global_pool"] = "token"
    if architecture.startswith("ghostnetv3"):
        args["drop_rate"] = 0.0  # timm's 0.2 is V1's and V2's; the authors' V3 has no dropout
    return args


def _announced_stride(model: Any) -> int:
    if getattr(model, "feature_info", None):
        return int(model.feature_info[-1]["reduction"])
    return int(model.patch_embed.patch_size[0])


def _norm_after_pooling(model: Any, width: int) -> nn.Module | None:
    """The norm that timm applies after pooling, if it is one over the map's width."""
    wrapped = model if hasattr(model, "encoder") else None  # Qwen3, Gemma 4, DeepSeek: a tower, and a norm behind it
    for owner, attribute in ((getattr(model, "head", None), "norm"), (model, "fc_norm"), (wrapped, "norm")):
        norm = getattr(owner, attribute, None)
        if tuple(getattr(norm, "normalized_shape", ())) == (width,):
            return norm
    return None


def _pooled(model: Any, features: Tensor, patches: Tensor) -> Tensor:
    if not hasattr(model, "reset_classifier"):  # timm's bare vision towers of language models have no head
        return patches.mean((2, 3))
    return model.forward_head(features, pre_logits=True)


def _on_meta(model: nn.Module) -> Any:
    """A copy with shapes but no numbers: it runs in next to no time, whatever the size of the model."""
    tensors = (*model.parameters(), *model.buffers())
    return copy.deepcopy(model, {id(tensor): tensor.detach().to("meta") for tensor in tensors}).eval()
