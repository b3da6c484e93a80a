"""Encoder: the one interface between the house and every model that turns pictures into features."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor, nn

from eyespot.dense_tasks import DenseTask
from eyespot.encoders.attention import attention_for
from eyespot.encoders.licenses import Terms, verdict
from eyespot.features import Features

Channels = Literal["rgb", "bgr"]


class Encoder(nn.Module, ABC):
    """Pictures in, `Features` out.

    `forward(images)` takes [B, 3, H, W] RGB **in [0, 1]**. The encoder normalises for itself, so that one batch can go
    to several encoders with different statistics, and refuses what it would silently get wrong.

    A kind of encoder answers for itself what others must know of it: `get_config` and `from_config` (saved folders),
    `named_outputs` (export, evaluation, cost), `run_time_form` and `export_form`, `setting` (caches). What is inherited
    is right for a network that its spec builds and that gives `Features`; see docs/encoders.md, A new kind of model.

    Attributes:
        name: the spec it was loaded from, e.g. "timm/vit_tiny_patch16_dinov3_qkvb".
        summary_dim: C, width of the summary.
        patch_dim: D, width of the patch map.
        stride: pixels of the input per patch.
        native_size: (height, width) in pixels if the model takes only that, None for any multiple of `stride`.
        default_size: (height, width) the model was made for; what to use when the user names no size.
        num_classes: K, outputs of its class head, which fills `Features.logits`; 0 if it has none.
        class_names: names of those outputs in order, None if unknown.
        tasks: what it answers for every pixel, by name; empty for an encoder that gives features alone.
        architecture: timm's name of the network, where timm too reads the saved folder; None elsewhere.
        model_args: timm's arguments of that architecture.
        level_taps: `taps` of `intermediates` at which it shows itself, shallow to deep, to who asks for levels; empty
            where its inner modules are to be watched, see `taps`.
        files: the files that hold its weights, where another runtime computes; none where torch does.
        code: hash of the code of one's own that built it; None if that is a library's. See `identity`.
        configuration: hash of the configuration file that it was built from; None if its name says it all.
        made_up: in words, what is random in it although it was given weights: a new class head, or what they lack. Fine
            for a model to train; see `frozen.load_frozen`.
        channel_order: the order in which its network wants them, "rgb" or "bgr"; pictures, mean and std are RGB always.
        license: licence identifier as its source states it, None if unknown.
        origin: for a saved encoder, the spec that it was first built from.
        lineage: facts (name, licence, sizes) of each model it was distilled from; empty for what was not distilled.
        adapters: tensors of the adapter heads that were saved with it, by dotted name; see `distill.chain`.
    """

    name: str
    summary_dim: int
    patch_dim: int
    stride: int
    native_size: tuple[int, int] | None = None
    default_size: tuple[int, int]
    num_classes: int = 0
    class_names: list[str] | None = None
    license: str | None = None
    tasks: Mapping[str, DenseTask] = MappingProxyType({})
    architecture: str | None = None
    model_args: Mapping[str, Any] | None = None
    level_taps: tuple[int, ...] = ()
    files: Sequence[Path] = ()
    code: str | None = None
    configuration: str | None = None
    made_up: tuple[str, ...] = ()
    channel_order: Channels = "rgb"

    def __init__(self, mean: Sequence[float] = (0.0, 0.0, 0.0), std: Sequence[float] = (1.0, 1.0, 1.0)) -> None:
        super().__init__()
        self.register_buffer("mean", _per_channel("mean", mean), persistent=False)
        self.register_buffer("std", _per_channel("std", std), persistent=False)
        self.lineage: list[Any] = []
        self.origin: str | None = None
        self.adapters: dict[str, Tensor] = {}
        self._range_checked_on: torch.device | None = None

    mean: Tensor
    std: Tensor

    def forward(self, images: Tensor) -> Features:
        """Encodes pictures.

        Args:
            images: [B, 3, H, W], RGB, floating point, values in [0, 1].

        Raises:
            ValueError: wrong rank, channels, type, value range, or a size that the model cannot take.
        """
        self.check(images)
        with attention_for(images, self.stride):
            return self._encode(self.normalised(images))

    def normalised(self, images: Tensor) -> Tensor:
        """Pictures [B, 3, H, W], RGB in [0, 1], as the network wants them: its statistics, its order of channels."""
        images = (images - self.mean).div_(self.std)
        return images if self.channel_order == "rgb" else images.flip(1)

    def set_channel_order(self, channels: str) -> None:
        """Sets `channel_order`, of the encoders inside as well.

        Raises:
            ValueError: neither "rgb" nor "bgr".
        """
        if channels not in get_args(Channels):
            raise ValueError(f"{self.name}: channel_order is rgb or bgr, not {channels!r}")
        for part in self.modules():
            if isinstance(part, Encoder):
                part.channel_order = channels  # type: ignore[assignment]

    @abstractmethod
    def _encode(self, images: Tensor) -> Features:
        """Encodes pictures that are already normalised."""

    def intermediates(self, images: Tensor, taps: Sequence[int]) -> list[Tensor]:
        """Feature maps [B, D_i, h_i, w_i] after the blocks or stages `taps`, for recipes that look inside.

        Raises:
            NotImplementedError: the source of this encoder shows no inner layers.
        """
        raise NotImplementedError(f"{self.name}: this kind of encoder shows no inner layers")

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that the model's authors exclude from weight decay."""
        return set()

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of `named_outputs`, in order."""
        logits = ("logits",) if self.num_classes else ()
        return ("summary", "patches", *logits, *(f"task_{name}" for name in self.tasks))

    def named_outputs(self, images: Tensor) -> dict[str, Tensor]:
        """All that it says about pictures, from one look: what is exported, evaluated, timed and counted.

        Always `summary` [B, C] and `patches` [B, D, h, w]; with a class head `logits` [B, K]; for each of `tasks`
        `task_NAME` [B, channels, H, W], raw and as large as the picture. An encoder with `tasks` overrides this.

        Args:
            images: [B, 3, H, W], RGB in [0, 1].

        Raises:
            ValueError: see `forward`.
        """
        features: Features = self(images)
        outputs = {"summary": features.summary, "patches": features.patches}
        return outputs if features.logits is None else {**outputs, "logits": features.logits}

    def get_config(self, license: str | None = None) -> dict[str, Any]:
        """What config.json of a saved folder says of it, JSON-able; `from_config` builds it again from that.

        A kind adds what its spec does not say, in the section `eyespot` under a name of its own. Encoders inside are
        described by `kinds.config_of`.

        Args:
            license: of the saved weights; the encoder's own if None.
        """
        section: dict[str, Any] = {
            "spec": self.origin or self.name,
            "channels_last": False,
            "license": license or self.license,
            "summary_dim": self.summary_dim,
            "patch_dim": self.patch_dim,
            "stride": self.stride,
        }
        if self.channel_order != "rgb":
            section["channel_order"] = self.channel_order
        if self.num_classes:
            section |= {"num_classes": self.num_classes, "class_names": self.class_names, "head": "own"}
        return {"eyespot": section}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Encoder:
        """The encoder that `get_config` described, with weights that are still to be loaded.

        To be overridden where the spec alone does not build it. Name, licence, class names, lineage and adapters are
        set by who loads the folder. Encoders inside are built by `kinds.build_encoder`.

        Args:
            config: what config.json says.
        """
        raise NotImplementedError(f"{cls.__name__} is built by its spec; see kinds.build_encoder")

    @property
    def saved_part(self) -> nn.Module:
        """The module whose tensors a saved folder holds, under the names that they have in it."""
        return self

    def run_time_form(self) -> Encoder:
        """A copy that computes the same with one convolution for all branches and no batch norms, see `forms.fusing`.

        It can be saved, loaded and exported: its spec and a saved model's arguments say `fused=true`, by which the form
        is built again before the weights are read. In eval mode, without gradients.

        Raises:
            ValueError: this kind has no such form. `fusing.fuse(encoder)` makes one that runs, but that no spec
                describes.
        """
        raise ValueError(f"{self.name}: no spec describes its run-time form; fuse(encoder) runs, but cannot be saved")

    def _copy_in_run_time_form(self, replaced: Mapping[nn.Module, nn.Module]) -> Self:
        """A copy with some of its modules replaced, under the name of its run-time form."""
        copied = copy.deepcopy(self, {id(old): new for old, new in replaced.items()})
        copied.name, copied.origin = _fused_spec(self.name), self.origin and _fused_spec(self.origin)
        return copied.eval()

    def export_form(self) -> Encoder:
        """A copy as it goes into a file of another runtime; may share weights with this one, and no spec describes it.

        What is switched off is left out, and what only torch knows (memory formats). Branches need not be merged here:
        `deploy.graph` does that.

        Raises:
            ValueError: it is a file of another runtime already.
        """
        return self._shallow_copy()

    def _shallow_copy(self) -> Self:
        """A copy whose modules can be replaced; until then it shares them."""
        copied = copy.copy(self)
        copied._modules = dict(self._modules)
        return copied

    def setting(self, features_only: bool = False) -> dict[str, Any]:
        """What changes its outputs beside its weights and its name, JSON-able: switches set in Python, say.

        Finished measurements are kept under it, and caches of features under what changes those.

        Args:
            features_only: leave out what changes no `Features`, only further outputs.
        """
        return {}

    def with_new_head(self, num_classes: int) -> Encoder | None:
        """The encoder with a new class head of its own kind; None if it has none, and a linear one will do.

        Args:
            num_classes: K, another number than it has.

        Raises:
            ValueError: its head cannot be replaced.
        """
        if not self.num_classes:
            return None
        raise ValueError(
            f"{self.name} tells {self.num_classes} classes apart, not {num_classes}, and its head stays as it is"
        )

    def _refuse_unordered(self, taps: Sequence[int], whose: str) -> None:
        """For libraries that return inner maps in their own order, whatever was asked."""
        if list(taps) != sorted(set(taps)):
            raise ValueError(f"{self.name}: taps must ascend, got {list(taps)}: {whose} returns the maps in that order")

    def size_error(self, height: int, width: int) -> str | None:
        """Why a picture of this size cannot be taken and what would be right, or None if it can."""
        if self.native_size is not None:
            if (height, width) == self.native_size:
                return None
            return f"takes {self.native_size[0]}x{self.native_size[1]} pictures only, got {height}x{width}"
        if height % self.stride or width % self.stride or height == 0 or width == 0:
            down = [max(self.stride, side // self.stride * self.stride) for side in (height, width)]
            return (
                f"needs sides that are multiples of {self.stride}, got {height}x{width}; {down[0]}x{down[1]} would do"
            )
        return None

    def fitting_size(self, size: int | tuple[int, int] | None = None) -> tuple[int, int]:
        """The (height, width) nearest to a wanted size that the encoder takes.

        Its native size if it has one. Otherwise the wanted size (its own default if None), each side rounded to the
        nearest multiple of the stride.

        Raises:
            ValueError: a size below one pixel.
        """
        if self.native_size is not None:
            return self.native_size
        height, width = (size, size) if isinstance(size, int) else (size or self.default_size)
        if min(height, width) < 1:
            raise ValueError(f"the size of a picture must be positive, got {height}x{width}")
        return self._rounded(height), self._rounded(width)

    def _rounded(self, side: int) -> int:
        return max(1, int(side / self.stride + 0.5)) * self.stride

    def check(self, images: Tensor) -> None:
        """Refuses pictures that would be silently misread; see `forward`.

        On an accelerator the value range is looked at in the first batch only, because looking costs a device sync.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(
                f"{self.name}: expected RGB pictures [B, 3, H, W], got {tuple(images.shape)}; "
                "turn greyscale pictures into RGB first (picture.convert('RGB'))"
            )
        if not images.is_floating_point():
            raise ValueError(f"{self.name}: expected floats in [0, 1], got {images.dtype}; divide by 255")
        problem = self.size_error(images.shape[2], images.shape[3])
        if problem:
            raise ValueError(f"{self.name} {problem}")
        if torch.compiler.is_compiling() or images.is_meta:
            return
        if images.device.type == "cpu" or self._range_checked_on != images.device:
            self._range_checked_on = images.device
            self._check_range(images)

    def _check_range(self, images: Tensor) -> None:
        low, high = (float(value) for value in images.detach().aminmax())
        if low >= -1e-3 and high <= 1 + 1e-3:
            return
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError(f"{self.name}: the pictures hold NaN or infinite values")
        fix = (
            "divide by 255"
            if low >= 0 and high > 2
            else "pass plain pictures; the encoder normalises for itself, so drop the Normalize transform"
        )
        raise ValueError(f"{self.name}: pictures must lie in [0, 1], got [{low:.3g}, {high:.3g}]; {fix}")

    @property
    def terms(self) -> Terms:
        """The kind of terms its licences set, the strictest of its own and of all it was distilled from."""
        return verdict([entry["licence"] for entry in self.lineage] or [self.license]).terms

    @property
    def device(self) -> torch.device:
        """Where the encoder computes."""
        return self.mean.device


def checked_names(names: Sequence[str] | None, num_classes: int, model: str) -> list[str] | None:
    """Class names, one for each output.

    Raises:
        ValueError: another number of names.
    """
    if names is not None and len(names) != num_classes:
        raise ValueError(f"{model} tells {num_classes} classes apart, but {len(names)} class names were given")
    return None if names is None else list(names)


def new_head(num_classes: int) -> str:
    """What `Encoder.made_up` says of a class head that is not trained yet."""
    return f"a class head of {num_classes} outputs"


def _fused_spec(spec: str) -> str:
    """The spec of a model's run-time form."""
    return spec if "fused=true" in spec else f"{spec}{'&' if '?' in spec else '?'}fused=true"


def _per_channel(name: str, values: Sequence[float]) -> Tensor:
    tensor = torch.tensor(values, dtype=torch.float32)
    if tensor.shape != (3,):
        raise ValueError(f"{name} takes three numbers, one per channel; got {values!r}")
    if not all(value <= 1 for value in values):
        raise ValueError(f"{name} is that of pictures in [0, 1]; {values!r} is for levels 0 to 255: divide by 255")
    if name == "std" and not all(value > 0 for value in values):
        raise ValueError(f"std must be above 0, got {values!r}")
    return tensor.view(1, 3, 1, 1)
