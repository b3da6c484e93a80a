"""PathEncoder: one teacher's path through a multi-task model, or its stem, as a plain encoder."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from eyespot.encoders.attention import attention_for
from eyespot.encoders.base import Encoder
from eyespot.encoders.multitask.model import STEM, MultiTaskEncoder
from eyespot.features import Features


class PathEncoder(Encoder):
    """What a path has learnt from its teacher, without routers, heads and other paths.

    The patches are the path's last F_t^L. The summary is their mean (ours: nothing teaches a path's class token, and it
    tells nothing to the patches). `path="stem"` gives what the model itself shows as an encoder.

    Args:
        model: a multi-task model; its stem and the path are copied.
        path: name of the path, or "stem".

    Raises:
        ValueError: the model has no such path.
    """

    def __init__(self, model: MultiTaskEncoder, path: str) -> None:
        super().__init__(model.mean.flatten().tolist(), model.std.flatten().tolist())
        self.model = model.trimmed(() if path == STEM else (path,), ())
        self.path = path
        self.to(model.device)
        self.name, self.license, self.lineage, self.channel_order = (
            model.name,
            model.license,
            model.lineage,
            model.channel_order,
        )
        self.summary_dim, self.patch_dim, self.stride = model.summary_dim, model.patch_dim, model.stride
        self.native_size, self.default_size = model.native_size, model.default_size
        self.level_taps = () if path == STEM else self.model.levels

    def _encode(self, images: Tensor) -> Features:
        if self.path == STEM:
            return self.model._encode(images)
        patches = self._maps(images)[-1]
        return Features(patches.mean((2, 3)), patches)

    def _maps(self, images: Tensor) -> list[Tensor]:
        return self.model._look(images, (self.path,)).paths[self.path]

    def intermediates(self, images: Tensor, taps: Sequence[int]) -> list[Tensor]:
        """F_t^l behind some of the blocks that the model taps; of the stem, its maps behind any blocks.

        Raises:
            ValueError: a block that is not tapped.
        """
        if self.path == STEM:
            return self.model.intermediates(images, taps)
        levels = self.model.levels
        if any(tap not in levels for tap in taps):
            shown = ", ".join(map(str, levels))
            raise ValueError(f"{self.name}: the path shows itself behind blocks {shown} only, not {list(taps)}")
        self.check(images)
        with attention_for(images, self.stride):
            maps = self._maps(self.normalised(images))
        return [maps[levels.index(tap)] for tap in taps]

    def size_error(self, height: int, width: int) -> str | None:
        """See `Encoder.size_error`."""
        return self.model.size_error(height, width)

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that the stem's authors exclude from weight decay."""
        return {f"model.{name}" for name in self.model.no_weight_decay()}


def path_of(encoder: Encoder, path: str) -> PathEncoder:
    """A path of a model by name, as `run/FOLDER?path=NAME` asks for it.

    Raises:
        ValueError: a model without paths, or without this one.
    """
    if not isinstance(encoder, MultiTaskEncoder):
        raise ValueError(f"{encoder.name} is no multi-task model and has no paths; leave out path={path}")
    return PathEncoder(encoder, path)
