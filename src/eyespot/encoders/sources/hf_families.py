"""What is particular about each family of image models in transformers, and how its image tower is built and loaded."""

from __future__ import annotations

import contextlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Family:
    """Facts about one family; the defaults are the general rule.

    Attributes:
        tower: transformers' class of the image tower, None for the one that its AutoModel takes.
        joint: class that ends in the joint space of pictures and texts, where `tower` stops before the projection.
        part: the field of the configuration that describes the tower, in configurations of larger models.
        place: name of the tower in a larger model, where transformers does not find it by itself.
        others: names of the larger model's other parts; their weights are left out on purpose.
        prefix: number of tokens before the patches.
        more_prefix: field of the configuration that holds a number of further ones.
        norm: name of the final norm, where the model puts it on the pooled vector only and not on the patches.
        norm_if: field of the configuration that says whether it does so, if some models of the family do not.
        patches: field of the output that holds the patches; of several maps there, the last counts.
        pooler: whether the pooling layer belongs to the model: false where it was trained for one task only.
        maps_last: whether maps inside the model are [B, h, w, D] and not [B, D, h, w].
        fixed: takes its own size only, although it does not refuse others (Swin then changes its windows for good).
        naflex: takes a sequence of flattened patches and its grid instead of a picture.
        known: whether the family is in our table.
    """

    tower: str | None = None
    joint: str | None = None
    part: str | None = None
    place: str | None = None
    others: tuple[str, ...] = ()
    prefix: int = 0
    more_prefix: str | None = None
    norm: str | None = None
    norm_if: str | None = None
    patches: str = "last_hidden_state"
    pooler: bool = False
    maps_last: bool = False
    fixed: bool = False
    naflex: bool = False
    known: bool = True

    def of(self, config: Any) -> Family:
        """The facts as they are for a model of this configuration."""
        more = int(getattr(config, self.more_prefix)) if self.more_prefix else 0
        has_norm = getattr(config, self.norm_if) if self.norm_if else True
        return replace(self, prefix=self.prefix + more, norm=self.norm if has_norm else None)


_TEXT = ("text_model", "text_projection", "logit_scale", "logit_bias")
_CLIP = Family(
    "CLIPVisionModel",
    joint="CLIPVisionModelWithProjection",
    part="vision_config",
    others=_TEXT,
    prefix=1,
    norm="post_layernorm",
)
_META_CLIP = replace(_CLIP, tower="MetaClip2VisionModel", joint="MetaClip2VisionModelWithProjection")
_CHINESE_CLIP = replace(_CLIP, tower="ChineseCLIPVisionModel", joint="ChineseCLIPModel")
_SIGLIP = Family("SiglipVisionModel", part="vision_config", others=_TEXT)
_SIGLIP2 = replace(_SIGLIP, tower="Siglip2VisionModel", naflex=True)
_AIM = Family("Aimv2VisionModel", joint="Aimv2Model", part="vision_config", others=_TEXT)
_SAM_OTHERS = ("mask_decoder", "prompt_encoder", "shared_image_embedding", "no_memory_embedding")
_SAM = Family("SamVisionModel", part="vision_config", others=_SAM_OTHERS, maps_last=True)
_SAM2 = replace(_SAM, tower="Sam2VisionModel", place="vision_encoder", patches="fpn_hidden_states")
_BEIT = Family(prefix=1, norm="pooler.layernorm", norm_if="use_mean_pooling", pooler=True)
_CONVNEXT = Family(norm="layernorm")

FAMILIES = {
    "aimv2": _AIM,
    "aimv2_vision_model": _AIM,
    "beit": _BEIT,
    "chinese_clip": _CHINESE_CLIP,
    "chinese_clip_vision_model": _CHINESE_CLIP,
    "clip": _CLIP,
    "clip_vision_model": _CLIP,
    "convnext": _CONVNEXT,
    "convnextv2": _CONVNEXT,
    "data2vec-vision": _BEIT,
    "deit": Family(prefix=2),
    "depth_anything": Family(part="backbone_config", place="backbone", others=("neck", "head")),
    "dinov2": Family(prefix=1),
    "dinov2_with_registers": Family(prefix=1, more_prefix="num_register_tokens"),
    "dinov3_convnext": Family(prefix=1),  # it puts the pooled vector before the patches
    "dinov3_vit": Family(prefix=1, more_prefix="num_register_tokens"),
    "ijepa": Family(),
    "metaclip_2": _META_CLIP,
    "metaclip_2_vision_model": _META_CLIP,
    "radio": Family(more_prefix="num_summary_tokens"),
    "regnet": Family(),
    "resnet": Family(),
    "sam": _SAM,
    "sam_vision_model": _SAM,
    "sam2": _SAM2,
    "sam2_video": _SAM2,
    "sam2_vision_model": _SAM2,
    "siglip": _SIGLIP,
    "siglip_vision_model": _SIGLIP,
    "siglip2": _SIGLIP2,
    "siglip2_vision_model": _SIGLIP2,
    "swin": Family(fixed=True),
    "swinv2": Family(fixed=True),
    "vit": Family(prefix=1),
    "vit_mae": Family("ViTModel", prefix=1),  # ViTMAEModel hides patches at random
    "vit_msn": Family(prefix=1),
}

_HEADS = ("classifier", "cls_classifier", "distillation_classifier", "lm_head", "decoder", "pooler")


@dataclass(frozen=True)
class Tower:
    """An image tower that can be built.

    Attributes:
        family: the facts of its family.
        config: its configuration.
        make: its class.
        whole: the configuration that the class takes: `config`, or that of the larger model around it.
        left_out: names of weights that a checkpoint may hold besides it.
        arguments: further arguments of the class.
    """

    family: Family
    config: Any
    make: type
    whole: Any
    left_out: tuple[str, ...]
    arguments: dict[str, Any] = field(default_factory=dict)

    def build(self) -> nn.Module:
        """The tower with random weights, in eval mode."""
        return self._trimmed(self.make(self.whole, **self.arguments))

    def load(self, source: Path | dict[str, Tensor], where: str) -> nn.Module:
        """The tower with weights, float32, in eval mode.

        Args:
            source: a model folder, or a state dict of the tower or of the larger model around it.
            where: what to call the source in errors.

        Raises:
            ValueError: the weights cannot be read, or do not fit: missing, unexpected or misshapen ones are named.
        """
        given = {"state_dict": source} if isinstance(source, dict) else {}
        mapping = {rf"^{self.family.place}\.": ""} if self.family.place else None
        try:
            with _quiet():
                model, report = self.make.from_pretrained(  # type: ignore[attr-defined]
                    None if given else source,
                    config=self.whole,
                    key_mapping=mapping,
                    dtype=torch.float32,
                    ignore_mismatched_sizes=True,  # they come back in the report, and we refuse them
                    local_files_only=True,
                    output_loading_info=True,
                    **given,
                    **self.arguments,
                )
        except Exception as error:
            raise ValueError(f"{where} cannot be loaded as {self.make.__name__}: {error}") from error
        self._refuse_misfits(report, where)
        return self._trimmed(model)

    def _refuse_misfits(self, report: dict[str, Any], where: str) -> None:
        base = getattr(self.make, "base_model_prefix", "")
        left_out = re.compile(rf"^(?:{re.escape(base)}\.)?(?:{'|'.join(self.left_out)})(?:\.|$)")
        unexpected = [key for key in report["unexpected_keys"] if not left_out.match(key)]
        problems = [f"missing {key}" for key in sorted(report["missing_keys"])]
        problems += [f"unexpected {key}" for key in sorted(unexpected)]
        problems += [
            f"{key} is {tuple(given)}, should be {tuple(wanted)}" for key, given, wanted in report["mismatched_keys"]
        ]
        problems += [str(message) for message in report.get("error_msgs") or []]
        if problems:
            shown = "; ".join(problems[:6]) + (f"; and {len(problems) - 6} more" if len(problems) > 6 else "")
            raise ValueError(f"{where} does not fit {self.make.__name__}: {shown}")

    def _trimmed(self, model: nn.Module) -> nn.Module:
        """Without the parts that are not the image tower, in eval mode."""
        for name in self.family.others:
            if hasattr(model, name):
                delattr(model, name)
        return model.eval()


def find_tower(config: Any, name: str, pooled: bool = False) -> Tower:
    """The image tower of a transformers configuration.

    Args:
        config: of the tower, or of a larger model around it.
        name: what to call the model in errors.
        pooled: stop before the projection into the joint space of pictures and texts.

    Raises:
        ValueError: it is no model of pictures, as far as transformers' classes tell.
    """
    import transformers

    family = FAMILIES.get(config.model_type, Family(known=False))
    part = getattr(config, family.part, config) if family.part else config
    if family.part == "backbone_config":
        inner = find_tower(part, name)
        return replace(inner, family=replace(inner.family, place=family.place), left_out=family.others + _HEADS)
    is_joint = family.joint and not pooled and (part is not config or family.joint in (config.architectures or ()))
    class_name = family.joint if is_joint else family.tower
    make = getattr(transformers, class_name) if class_name else _auto_class(config, name)
    if hasattr(config, "projection_dim"):
        part.projection_dim = config.projection_dim  # the larger model goes by its own entry
    whole = config if isinstance(config, make.config_class) else part
    whole.return_dict = True
    arguments = {}
    if "add_pooling_layer" in inspect.signature(make.__init__).parameters:
        arguments["add_pooling_layer"] = family.pooler
    left_out = family.others + (() if is_joint else ("visual_projection",)) + _HEADS
    return Tower(family.of(part), part, make, whole, left_out, arguments)


def _auto_class(config: Any, name: str) -> Any:
    from transformers import MODEL_MAPPING

    make = MODEL_MAPPING.get(type(config), None)
    if getattr(make, "main_input_name", None) != "pixel_values":
        raise ValueError(f"{name}: a {config.model_type} model of transformers does not take pictures alone")
    return make


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' bars and its table of weights; what does not fit is an error of ours."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
