"""`hf/REPO` or `hf/FOLDER`: models of the Hugging Face hub, whether of transformers, of timm or saved by eyespot."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from eyespot.encoders.base import Encoder
from eyespot.encoders.identity import configuration_hash
from eyespot.encoders.kinds import built_by
from eyespot.encoders.saved import load_saved_encoder
from eyespot.encoders.sources.hf_families import Tower, find_tower
from eyespot.encoders.sources.hf_files import (
    STATE_IT,
    ModelFolder,
    find_folder,
    read_channels,
    read_config,
    read_license,
    read_preprocessing,
)
from eyespot.encoders.sources.timm import create_timm_encoder
from eyespot.encoders.weights import read_weights
from eyespot.features import Features

_SUMMARIES = ("image_embeds", "summary", "pooler_output")  # where transformers' outputs hold one vector per picture


class HfEncoder(Encoder):
    """The image tower of a transformers model as encoder. The rule, the same for all families:

    - patches: the last hidden state as a map, without class and register tokens, under the model's final norm. Where
      the model puts that norm on the pooled vector only (CLIP: `post_layernorm`; ConvNeXt; BEiT with mean pooling),
      it is put on the patches as well, so that patches and summary live in one space (ours). SAM and SAM 2 give the map
      that their mask decoder works on, at stride 16.
    - summary: the model's own pooled vector, else the class token under the final norm, else the mean of the patches.
      Models of pictures and texts (CLIP, SigLIP, AIMv2) give the picture's embedding in the joint space, the vector
      that embeddings of texts are compared with; the option `summary=pooled` stops before that projection (ours).
      Poolers that were trained for one task only (the tanh layer of ViT) are left out (ours).
    - sizes: position embeddings are interpolated, so that any multiple of the stride will do, where the model can.

    Args:
        model: what `tower` built.
        tower: its class, configuration and family.
        name: the spec shown to people.
        mean, std: normalisation of pictures in [0, 1].
        size: (height, width) to use when the user names none; that of the configuration if None.
        license: licence of the weights.

    Raises:
        ValueError: what the model makes of a picture is not a grid of patches.
    """

    def __init__(
        self,
        model: nn.Module,
        tower: Tower,
        name: str,
        mean: Sequence[float],
        std: Sequence[float],
        size: tuple[int, int] | None = None,
        license: str | None = None,
    ) -> None:
        super().__init__(mean, std)
        self.model = model
        self.family = tower.family
        self.name, self.license = name, license
        self._norm_name = _find_norm(model, tower.family.norm)
        takes = inspect.signature(getattr(model, "get_image_features", model.forward)).parameters
        self._arguments = {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in takes else {}
        patch = getattr(tower.config, "patch_size", None) or 0
        self._patch_size = int(patch if isinstance(patch, int) else patch[0])
        self._measure(_trained_size(tower.config))
        self.default_size = self.fitting_size(size or self.default_size)

    def _measure(self, size: tuple[int, int]) -> None:
        """Widths, stride and whether other sizes will do, from runs on the meta device, which compute nothing."""
        self.stride, self.default_size = 1, size
        features = self._dry_run(size)
        self.summary_dim, self.patch_dim = features.summary.shape[1], features.patches.shape[1]
        rows, columns = features.grid
        self.stride = size[0] // rows
        if (size[0] // self.stride, size[1] // self.stride) != features.grid:
            raise ValueError(
                f"{self.name}: a map of {rows}x{columns} for a {size[0]}x{size[1]} picture is no even grid"
            )
        if self.family.fixed:
            self.native_size = size
            return
        try:
            self._dry_run((rows * self.stride, (columns + 1) * self.stride))
        except ValueError:
            self.native_size = size

    def _dry_run(self, size: tuple[int, int]) -> Features:
        tensors = {name: value.to("meta") for name, value in (*self.named_parameters(), *self.named_buffers())}
        try:
            with torch.no_grad():
                return functional_call(self, tensors, (torch.zeros(1, 3, *size, device="meta"),))
        except Exception as error:
            kind = type(self.model).__name__
            raise ValueError(f"{self.name}: {kind} does not turn a picture into features: {error}") from error

    def _encode(self, images: Tensor) -> Features:
        output = self._run(images)
        hidden = output[self.family.patches]
        last: Tensor = hidden if isinstance(hidden, Tensor) else hidden[-1]
        patches = self._as_map(last, images)
        if self._norm_name is not None:
            norm = self.model.get_submodule(self._norm_name)
            patches = norm(patches.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        vectors = [output[name] for name in _SUMMARIES if output.get(name) is not None]
        if vectors:
            return Features(vectors[0].flatten(1), patches)
        return Features(last[:, 0] if self.family.prefix else patches.mean((2, 3)), patches)

    def _run(self, images: Tensor, **arguments: Any) -> Any:
        call = getattr(self.model, "get_image_features", self.model)
        inputs = _flattened(images, self._patch_size) if self.family.naflex else {"pixel_values": images}
        return call(**inputs, **self._arguments, **arguments)

    def _as_map(self, hidden: Tensor, images: Tensor, maps_last: bool = False) -> Tensor:
        """[B, D, h, w] from tokens [B, N, D] or a map."""
        if hidden.ndim == 4:
            return hidden.permute(0, 3, 1, 2) if maps_last else hidden
        height, width = images.shape[2:]
        count = hidden.shape[1] - self.family.prefix
        step = math.isqrt(height * width // count) if hidden.ndim == 3 and count > 0 else 0
        grid = (height // step, width // step) if step else (0, 0)
        # tokens of a model that we do not know must be patches of its own patch size, not queries or the like
        even = self.family.known or (self._patch_size > 0 and step % self._patch_size == 0)
        if grid[0] * grid[1] != count or not even:
            raise ValueError(
                f"an output of shape {tuple(hidden.shape)} for a {height}x{width} picture is not a grid of patches "
                f"behind {self.family.prefix} other tokens; state how many come first by prefix=K"
            )
        return hidden[:, self.family.prefix :].unflatten(1, grid).permute(0, 3, 1, 2)

    def intermediates(self, images: Tensor, taps: Sequence[int]) -> list[Tensor]:
        """See `Encoder.intermediates`; `taps` are block (ViT) or stage (CNN, Swin) indices, ascending.

        The maps are what the blocks give, before the final norm. Stages of Swin end with their downsampling.

        Raises:
            ValueError: taps that do not ascend, or that there are not.
        NotImplementedError: the model shows no inner layers.
        """
        self.check(images)
        output = self._run(self.normalised(images), output_hidden_states=True)
        states = (output.get("hidden_states") or ())[1:]  # before them comes the input of the first block
        if not states:
            return super().intermediates(images, taps)
        if list(taps) != sorted(set(taps)) or any(not 0 <= tap < len(states) for tap in taps):
            raise ValueError(f"{self.name}: taps must ascend within 0 to {len(states) - 1}, got {list(taps)}")
        return [self._as_map(states[tap], images, self.family.maps_last) for tap in taps]


def create_hf_encoder(rest: str, *, revision: str | None = None, **options: Any) -> Encoder:
    """Builds `hf/REPO` or `hf/FOLDER`; a folder of that name wins. Its config.json tells whose model it is.

    Args:
        rest: ORG/NAME on the hub, or a relative or absolute path: "facebook/dinov2-small", "/path/to/folder".
        revision: branch, tag or commit of the repo.
        options: `weights` and `license` for all; for models of transformers and timm also `pretrained`; for those of
            transformers `mean`, `std`, `summary` and `prefix`, see `create_transformers_encoder`; for those of timm
            the arguments of the model.

    Raises:
        FileNotFoundError: no such folder or repo, or no network; says what to bring.
        PermissionError: the repo asks for consent first.
        ValueError: the repo needs code of its own, is no model of pictures, or its weights do not fit.
        ImportError: transformers is missing.
    """
    folder = find_folder(rest, None if revision is None else str(revision))
    config = read_config(folder.path)
    kind = _kind(config)
    if kind == "transformers":
        encoder: Encoder = create_transformers_encoder(folder, **options)
        encoder.configuration = configuration_hash(config)
        return encoder
    if kind is None:
        raise ValueError(f"hf/{rest}: its config.json names neither a model of transformers nor one of timm")
    encoder = _create_timm(folder, **options) if kind == "timm" else _create_saved(folder, config, **options)
    encoder.name = f"hf/{rest}"
    return encoder


def _kind(config: dict[str, Any]) -> str | None:
    """Whose model a config.json describes: "eyespot", "timm", "transformers" or None."""
    if "eyespot" in config:
        return "eyespot"
    if "architecture" in config and config.get("model_type", "timm_wrapper") == "timm_wrapper":
        return "timm"
    return "transformers" if config.get("model_type") else None


def create_transformers_encoder(
    folder: ModelFolder,
    *,
    pretrained: bool = True,
    weights: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    summary: str | None = None,
    prefix: int | None = None,
    license: str | None = None,
) -> HfEncoder:
    """Builds the image tower of a transformers model folder.

    Args:
        folder: with config.json, the processor's configuration and the weights.
        pretrained: load the folder's weights; without, they are random and carry no licence.
        weights: a file with weights of the tower, or of the larger model around it, to load instead.
        mean: mean of pictures in [0, 1], three numbers, where the folder states none or a wrong one.
        std: their standard deviation likewise.
        summary: "pooled" for the vector before the projection into the joint space of pictures and texts.
        prefix: number of tokens before the patches, for a family that is not in our table.
        license: licence of the weights, where the model card states none or a wrong one.

    Raises:
        ValueError: see `create_hf_encoder`; or nothing states the normalisation.
        ImportError: transformers is missing.
    """
    name = f"hf/{folder.name}"
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        raise ImportError(f"{name} needs transformers: pip install 'eyespot[hf]'") from error
    if summary not in (None, "pooled"):
        raise ValueError(f"{name}: summary={summary} is unknown; summary=pooled is the vector before the projection")
    tower = find_tower(_read_transformers_config(folder.path, name), name, pooled=summary == "pooled")
    if prefix is not None:
        tower = replace(tower, family=replace(tower.family, prefix=prefix))
    size = None
    if mean is None or std is None:
        preprocessing = read_preprocessing(folder.path)
        if preprocessing is None:
            raise ValueError(
                f"{name}: no preprocessor_config.json states how pictures are normalised; bring it, or {STATE_IT}"
            )
        mean, std, size = preprocessing.mean, preprocessing.std, preprocessing.size
        channels = preprocessing.channel_order
    else:
        channels = read_channels(folder.path)
    if weights is not None:
        model = tower.load(read_weights(weights), weights)
    elif pretrained:
        folder.fetch_weights(pickles=True)
        model = tower.load(folder.path, name)
        license = license or read_license(folder.path)
    else:
        model = tower.build()
    encoder = HfEncoder(model, tower, name, mean, std, size, license)
    encoder.set_channel_order(channels)
    return encoder


def _read_transformers_config(folder: Path, name: str) -> Any:
    from transformers import CONFIG_MAPPING, AutoConfig

    stated = read_config(folder)
    kind = stated["model_type"]
    if kind in CONFIG_MAPPING:
        try:
            return AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        except Exception as error:
            raise ValueError(f"{name}: config.json is no configuration of transformers: {error}") from error
    if "auto_map" in stated:
        raise ValueError(
            f"{name} needs code of its own repo, which eyespot does not run. Read that code and wrap the model as "
            "python/file.py:factory (docs/encoders.md, Your own encoder)"
        )
    raise ValueError(f"{name}: the installed transformers knows no model type {kind!r}; a newer one may")


def _create_saved(
    folder: ModelFolder, config: dict[str, Any], *, weights: str | None = None, license: str | None = None
) -> Encoder:
    """A model folder that eyespot saved; not one whose spec runs code, which could be anybody's."""
    unsafe = [one for one in built_by(config) if one.partition("/")[0] not in ("timm", "hf", "open_clip", "eupe")]
    if unsafe:
        raise ValueError(
            f"the model in {folder.path} is built by {unsafe[0]!r}, which hf/ does not run, because it may be "
            f"anybody's code; if you trust it, load it as run/{folder.path}"
        )
    if weights is None:
        folder.fetch_weights()
    encoder = load_saved_encoder(folder.path, weights)
    encoder.license = license or encoder.license
    return encoder


def _create_timm(
    folder: ModelFolder,
    *,
    weights: str | None = None,
    pretrained: bool = True,
    license: str | None = None,
    **model_args: Any,
) -> Encoder:
    """A model folder in timm's layout; safetensors only."""
    pretrained = pretrained and weights is None
    if pretrained:
        folder.fetch_weights()
        license = license or read_license(folder.path)
    return create_timm_encoder(
        f"local-dir:{folder.path}", weights=weights, pretrained=pretrained, license=license, **model_args
    )


def _find_norm(model: nn.Module, name: str | None) -> str | None:
    """The full name of the submodule `name`, which may lie inside another part.

    Raises:
        RuntimeError: there is none; our table does not fit the installed transformers.
    """
    if name is None:
        return None
    names = [full for full, _ in model.named_modules()]
    found = [name] if name in names else [full for full in names if full.endswith(f".{name}")]
    if len(found) != 1:
        raise RuntimeError(f"{type(model).__name__} of the installed transformers has {len(found)} modules {name!r}")
    return found[0]


def _trained_size(config: Any) -> tuple[int, int]:
    """(height, width) that the configuration names, else 224; a multiple of 32 where it names no patch size either."""
    size = getattr(config, "image_size", None)
    if size is None and hasattr(config, "num_patches"):  # SigLIP 2 counts patches
        size = math.isqrt(config.num_patches) * config.patch_size
    size = size or 224
    height, width = (size, size) if isinstance(size, int) else size
    if not getattr(config, "patch_size", None):
        return -(-height // 32) * 32, -(-width // 32) * 32
    return int(height), int(width)


def _flattened(images: Tensor, patch: int) -> dict[str, Any]:
    """Pictures as transformers' NaFlex models take them: patches [B, N, patch * patch * 3], no mask, and the grid."""
    count, channels, height, width = images.shape
    grid = (height // patch, width // patch)
    blocks = images.reshape(count, channels, grid[0], patch, grid[1], patch).permute(0, 2, 4, 3, 5, 1)
    patches = blocks.reshape(count, grid[0] * grid[1], patch * patch * channels)
    # the grid on the CPU, because the model reads its numbers
    return {"pixel_values": patches, "pixel_attention_mask": None, "spatial_shapes": torch.tensor([grid] * count)}
