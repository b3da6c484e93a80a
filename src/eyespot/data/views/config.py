"""What there is to decide about views: crops, colours, strong augmentation, pictures with their labels."""

from __future__ import annotations

import math
import re
from dataclasses import asdict
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from eyespot.config import STRICT, Probability

EraseMode = Literal["const", "pixel"]
Strength = Annotated[float, Field(ge=0, le=1)]
Side = Annotated[int, Field(ge=1)]

_SECTION = re.compile(r"m\d+|n[1-9]\d*|p(0(\.\d+)?|1(\.0+)?)|mstd\d+(\.\d+)?|mmax\d+|inc[01]|t(weights|3a|3aw)")


@dataclass(frozen=True, config=STRICT)
class ViewConfig:
    """How views are drawn. The defaults are ours, close to DINOv2's global crops."""

    scale: tuple[float, float] = (0.32, 1.0)
    """Smallest and largest share of the picture's area that a crop covers."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Smallest and largest width / height of a crop, before it becomes square."""
    flip: Probability = 0.5
    """Probability of a horizontal flip."""
    jitter: Probability = 0.8
    """Probability that the four colour changes below happen."""
    brightness: Strength = 0.4
    """Brightness is multiplied by a factor within 1 - this and 1 + this."""
    contrast: Strength = 0.4
    """Contrast is multiplied by a factor within 1 - this and 1 + this."""
    saturation: Strength = 0.2
    """Saturation is multiplied by a factor within 1 - this and 1 + this."""
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """Hue is turned by at most this share of the colour circle, either way."""
    grayscale: Probability = 0.0
    """Probability that all colour is taken away."""
    blur: Probability = 0.55
    """Probability of a Gaussian blur."""
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    """Smallest and largest standard deviation of the blur, in pixels of a view of 224 (it grows with the view)."""
    solarize: Probability = 0.1
    """Probability that all values from 128 on are inverted."""
    randaugment: str | None = None
    """RandAugment in timm's notation, e.g. rand-m7-mstd0.5, between flip and colour changes; None for none. timm drops
    its colour jitter then: set `jitter` 0 to do likewise."""
    erase: Probability = 0.0
    """Probability that a rectangle of 2 % to a third of the view is erased, last of all."""
    erase_mode: EraseMode = "const"
    """What fills it: const, ImageNet's mean colour; pixel, noise in each pixel with ImageNet's mean and deviation."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        low, high = self.scale
        if not 0 < low <= high <= 1:
            raise ValueError(f"scale must be two shares of the area, 0 < smallest <= largest <= 1, not {self.scale}")
        low, high = self.ratio
        if not 0 < low <= high < math.inf:
            raise ValueError(f"ratio must be two aspect ratios, 0 < smallest <= largest, not {self.ratio}")
        low, high = self.blur_sigma
        if not 0 < low <= high < math.inf:
            raise ValueError(f"blur_sigma must be 0 < smallest <= largest, in pixels, not {self.blur_sigma}")
        if self.randaugment is not None:
            check_policy(self.randaugment)
        return self

    @classmethod
    def plain(cls) -> ViewConfig:
        """No augmentation: the largest square in the middle of the picture, colours as they are."""
        return cls(scale=(1, 1), ratio=(1, 1), flip=0, jitter=0, grayscale=0, blur=0, solarize=0)

    @classmethod
    def classifier(
        cls,
        randaugment: str | None = None,
        erase: float = 0.0,
        erase_mode: EraseMode = "const",
        color_jitter: float = 0.4,
    ) -> ViewConfig:
        """What timm's training script shows a classifier under options of the same names.

        Crops of 8 to 100 % of the picture, flips, RandAugment or, without it, changes of brightness, contrast and
        saturation, then erasing. Crops are resized bicubically here; timm takes bilinear or bicubic at random.
        """
        strength = 0.0 if randaugment else color_jitter
        return cls(
            scale=(0.08, 1.0),
            jitter=float(strength > 0),
            brightness=strength,
            contrast=strength,
            saturation=strength,
            hue=0,
            blur=0,
            solarize=0,
            randaugment=randaugment,
            erase=erase,
            erase_mode=erase_mode,
        )

    def as_setting(self) -> dict[str, Any]:
        """All fields as plain values, but for strong augmentation that is off: what was kept before there was any stays
        valid.
        """
        strong = {"randaugment", "erase", "erase_mode"} if not (self.randaugment or self.erase) else set()
        return {name: value for name, value in asdict(self).items() if name not in strong}


@dataclass(frozen=True, config=STRICT)
class PairedViewConfig:
    """How views of pictures with labels are drawn. The defaults are SAK's."""

    size: tuple[Side, Side]
    """Height and width of a view in pixels."""
    scale: tuple[float, float] = (0.5, 2.0)
    """Smallest and largest factor by which a picture is scaled first. Depths are divided by it: what looks twice as
    large is half as far."""
    most_of_one_class: Probability = 0.75
    """Largest share of the labelled pixels of a crop that one class of "segmentation" may have; another crop is drawn,
    up to ten times, while it has more. 1 takes every crop."""
    flip: Probability = 0.5
    """Probability of a horizontal flip."""
    colours: bool = True
    """Whether brightness, contrast, saturation and hue change; see `eyespot.data.labelled.colours`."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        low, high = self.scale
        if not 0 < low <= high < float("inf"):
            raise ValueError(f"scale must be two factors, 0 < smallest <= largest, not {self.scale}")
        return self

    @classmethod
    def plain(cls, size: tuple[int, int]) -> PairedViewConfig:
        """No augmentation: the picture as it is, cut at random if it is larger than the view."""
        return cls(size=size, scale=(1.0, 1.0), most_of_one_class=1.0, flip=0.0, colours=False)


def check_policy(policy: str) -> None:
    """Refuses what is no RandAugment policy; timm passes over some misspelt sections in silence.

    Args:
        policy: as in timm, "rand" and sections in any order: `m9` magnitude, `n2` operations per picture, `mstd0.5`
            noise of the magnitude, `mmax10` its bound, `p0.5` probability of each operation, `inc1` operations that all
            get stronger with the magnitude, `tweights`, `t3a` or `t3aw` another choice of operations.

    Raises:
        ValueError: a section means nothing.
    """
    first, *sections = policy.split("-")
    wrong = [section for section in sections if not _SECTION.fullmatch(section)]
    if first != "rand" or wrong:
        named = f"{wrong[0]!r} means nothing" if first == "rand" else "it does not begin with rand"
        raise ValueError(
            f"randaugment {policy!r}: {named}. Write timm's notation, for example rand-m9-mstd0.5-inc1, with sections "
            "m, n, mstd, mmax, inc (whole numbers but for mstd), p (0 to 1) and tweights, t3a or t3aw"
        )
