"""`open_clip/NAME[.tag]`: the image towers of image-text models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyespot.encoders.base import Encoder
from eyespot.encoders.identity import configuration_hash
from eyespot.encoders.sources.open_clip_models import OpenClipModel, find_open_clip_model, load_tower_weights
from eyespot.encoders.sources.timm import TimmEncoder
from eyespot.features import Features


class OpenClipEncoder(Encoder):
    """A tower of open_clip's own: its VisionTransformer or its ModifiedResNet (CLIP's ResNets with attention pool).

    - summary: the joint embedding, what `encode_image` gives before L2 normalisation: text embeddings are compared
      with it. With `summary="pooled"`, the vector that the tower's last projection takes.
    - patches: the last block's map without class token, under the final norm (`ln_post`); the trunk's last map for a
      ResNet. CoCa's final norm follows its attention pool and cannot be put on the map.
    - sizes: the tower's position embeddings are of one size, so it takes that size only.

    Args:
        tower: `open_clip.transformer.VisionTransformer` or `open_clip.modified_resnet.ModifiedResNet`.
        mean, std: normalisation.
        summary: "joint" or "pooled".
        name: the spec shown to people.
        license: licence of the weights.

    Raises:
        ValueError: a ResNet was asked for its pooled vector, which its attention pool does not show.
    """

    def __init__(
        self,
        tower: Any,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        summary: str,
        name: str,
        license: str | None,
    ) -> None:
        super().__init__(mean, std)
        self.tower = tower
        self.name = name
        self.license = license
        self.native_size = self.default_size = _pair(tower.image_size)
        self.summary_dim = tower.output_dim
        is_resnet = hasattr(tower, "attnpool")
        if is_resnet and summary == "pooled":
            raise ValueError(f"{name}: the attention pool of a ResNet projects by itself; take summary=joint")
        if is_resnet:
            self.patch_dim, self.stride = tower.attnpool.k_proj.in_features, 32
        else:
            self.patch_dim, self.stride = tower.conv1.out_channels, tower.patch_size[0]
        if summary == "pooled":
            tower.proj = None
            self.summary_dim = tower.ln_post.normalized_shape[0]
        self._norm_fits_map = getattr(tower, "attn_pool", None) is None

    def _encode(self, images: Tensor) -> Features:
        found = self.tower.forward_intermediates(images, indices=1, normalize_intermediates=self._norm_fits_map)
        return Features(found["image_features"], found["image_intermediates"][0])

    def intermediates(self, images: Tensor, taps: Sequence[int]) -> list[Tensor]:
        """See `Encoder.intermediates`; `taps` as open_clip counts: blocks, or stem and four stages; ascending."""
        self.check(images)
        self._refuse_unordered(taps, "open_clip")
        found = self.tower.forward_intermediates(self.normalised(images), indices=list(taps), intermediates_only=True)
        return found["image_intermediates"]

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that the model's authors exclude from weight decay."""
        return {f"tower.{name}" for name in getattr(self.tower, "no_weight_decay", set)()}


class OpenClipTimmEncoder(Encoder):
    """A timm model as open_clip's image tower (SigLIP, PE-Core, ConvNeXt, EVA02, MobileCLIP, ViTamin ...).

    Patches, sizes and the pooled vector follow the rule of `TimmEncoder`; the joint embedding is that vector after the
    tower's projection, wherever open_clip keeps it: in timm's classifier, in its own head, or nowhere (SigLIP).

    Args:
        tower: `open_clip.timm_model.TimmModel`.
        mean, std: normalisation.
        embed_dim: width of the joint embedding.
        summary: "joint" or "pooled".
        name: the spec shown to people.
        license: licence of the weights.

    Raises:
        ValueError: a tower whose pooling is in open_clip's head (`abs_attn`, `rot_attn`): timm shows no vector then.
    """

    def __init__(
        self,
        tower: Any,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        embed_dim: int,
        summary: str,
        name: str,
        license: str | None,
    ) -> None:
        super().__init__(mean, std)
        trunk = tower.trunk
        statistics = {"mean": tuple(mean), "std": tuple(std), "input_size": (3, *_pair(tower.image_size))}
        trunk.pretrained_cfg = {**trunk.pretrained_cfg, **statistics}
        self.trunk = TimmEncoder(trunk, trunk.pretrained_cfg["architecture"], {}, name, license)
        self.head = tower.head if summary == "joint" else None
        projects = len(tower.head) > 0 or trunk.num_classes > 0
        self.name = name
        self.license = license
        self.summary_dim = embed_dim if projects and summary == "joint" else self.trunk.summary_dim
        self.patch_dim, self.stride = self.trunk.patch_dim, self.trunk.stride
        self.native_size, self.default_size = self.trunk.native_size, self.trunk.default_size

    def _encode(self, images: Tensor) -> Features:
        features = self.trunk._encode(images)
        if self.head is None:
            return features
        classifier: Any = self.trunk.model.get_classifier()  # type: ignore[operator]
        return Features(self.head(classifier(features.summary)), features.patches)

    def intermediates(self, images: Tensor, taps: Sequence[int]) -> list[Tensor]:
        """See `TimmEncoder.intermediates`."""
        return self.trunk.intermediates(images, taps)

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that the model's authors exclude from weight decay."""
        return {f"trunk.{name}" for name in self.trunk.no_weight_decay()}


def create_open_clip_encoder(
    rest: str,
    *,
    pretrained: bool = True,
    weights: str | Path | None = None,
    summary: str = "joint",
    image_size: int | tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    license: str | None = None,
) -> Encoder:
    """Builds `open_clip/NAME[.tag]`; only the image tower is kept.

    Args:
        rest: an open_clip model name, with one of its tags for released weights; or `local-dir:FOLDER` (with
            `open_clip_config.json` and weights); or `hf-hub:REPO`.
        pretrained: load the released weights (downloads them unless cached). Without, weights are random.
        weights: a checkpoint to load strictly instead, a state dict of the whole model (text keys are left aside) or
            of the image tower. Name the tag they descend from, if there is one: it states normalisation and activation.
        summary: "joint" (the image-text embedding) or "pooled" (before the last projection).
        image_size: another size of pictures, (height, width) or a square's side: position embeddings are resampled
            after loading, as open_clip does (bicubic, antialiased). Not for ResNets.
        mean: overrides the normalisation's mean, three numbers.
        std: overrides its standard deviation.
        license: licence of the weights, if the model card of the released ones states none or a wrong one.

    Raises:
        ValueError: an unknown name, tag or option, or weights that do not fit.
        FileNotFoundError: no such folder or file.
        ImportError: open_clip is missing.
        RuntimeError: the weights could not be fetched.
    """
    if summary not in ("joint", "pooled"):
        raise ValueError(f"summary is joint or pooled, not {summary!r}")
    model = find_open_clip_model(rest)
    stated = model.statistics(required=weights is not None and (mean is None or std is None))
    tower = _image_tower(model, pretrained, weights)
    if image_size is not None:
        _resample(tower, _pair(image_size), model.spec)
    if license is None and pretrained and weights is None:
        license = model.stated_license()
    facts: dict[str, Any] = {"summary": summary, "name": f"open_clip/{rest}", "license": license}
    statistics = mean or stated[0], std or stated[1]
    encoder: Encoder
    if hasattr(tower, "trunk"):
        encoder = OpenClipTimmEncoder(tower, *statistics, embed_dim=model.config["embed_dim"], **facts)
    else:
        encoder = OpenClipEncoder(tower, *statistics, **facts)
    encoder.set_channel_order(model.channel_order)
    if model.is_place:
        encoder.configuration = configuration_hash(model.config)
    return encoder


def _image_tower(model: OpenClipModel, pretrained: bool, weights: str | Path | None) -> Any:
    if pretrained and weights is None:
        return model.pretrained().visual
    tower: Any = model.tower("image").visual
    if weights is not None:
        load_tower_weights(tower, weights, "image")
    return tower


def _resample(tower: Any, size: tuple[int, int], name: str) -> None:
    """Makes a tower take another size of pictures."""
    if hasattr(tower, "set_input_size"):  # timm's
        tower.set_input_size(size)
        return
    if not hasattr(tower, "grid_size"):
        raise ValueError(f"open_clip/{name}: the attention pool of a ResNet takes {tower.image_size} pixels only")
    table = tower.positional_embedding.detach()
    tower.image_size, old_grid = size, tower.grid_size
    tower.grid_size = (size[0] // tower.patch_size[0], size[1] // tower.patch_size[1])
    places = table[1:].T.unflatten(1, old_grid)[None]
    places = F.interpolate(places, tower.grid_size, mode="bicubic", antialias=True)[0].flatten(1).T
    tower.positional_embedding = nn.Parameter(torch.cat([table[:1], places]))


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    return height, width
