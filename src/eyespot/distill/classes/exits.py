"""OFA-KD: exits from the stages of a student, so that every stage speaks in logits (arXiv 2310.19444).

No feature of the teacher is ever matched, so the two may be of any families. The exits are thrown away after training.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from eyespot.distill.classes.config import MethodSettings
from eyespot.distill.classes.logit_losses import ofa
from eyespot.distill.classes.outputs import ClassifierOutput, Method, OutputShape, require_same_classes, require_taps

LAST_STAGE = 4
GRID = 7
"""Side of the grid to which an exit brings tokens: that of a 224-pixel picture in the last stage."""

HEADS = 4
INIT_STD = 0.02


class OneForAll(Method):
    """The teacher's logits, told to the student's logits and to an exit from each stage ("ofa").

    The loss of the whole is hard-label loss + `weight` * kd + `ofa_stage_weight` * sum over stages.

    Each tap's own kind decides whether its exit is for maps or tokens (in the authors' code, the first's does for all).

    Raises:
        ValueError: other numbers of classes, no four taps, or tokens that are not a square grid.
    """

    student_taps = True

    def __init__(self, settings: MethodSettings, student: OutputShape, teacher: OutputShape, pictures: int) -> None:
        super().__init__(settings, student, teacher, pictures)
        require_same_classes(student, teacher)
        require_taps("ofa", "student", student)
        # One for all, or one for each.
        count = len(settings.stages) + 1
        exponents = settings.ofa_exponents if len(settings.ofa_exponents) == count else settings.ofa_exponents * count
        *self.stage_exponents, self.last_exponent = exponents
        self.exits = nn.ModuleList(make_exit(stage, student, teacher) for stage in settings.stages)

    def losses(
        self, student: ClassifierOutput, teacher: ClassifierOutput, target: Tensor, picture: Tensor
    ) -> dict[str, Tensor]:
        """`kd`, the term of the student's own logits; `ofa`, the sum of those of the stages."""
        own = self.settings

        def loss(logits: Tensor, exponent: float) -> Tensor:
            return ofa(logits, teacher.logits, target, exponent, own.temperature, own.ofa_form)

        spoken = [leave(student.taps[stage - 1]) for stage, leave in zip(own.stages, self.exits, strict=True)]
        stages = [loss(logits, exponent) for logits, exponent in zip(spoken, self.stage_exponents, strict=True)]
        return {
            "kd": own.weight * loss(student.logits, self.last_exponent),
            "ofa": own.ofa_stage_weight * torch.stack(stages).sum(),
        }


def make_exit(stage: int, student: OutputShape, teacher: OutputShape) -> nn.Module:
    """The exit from a stage, 1 to 4; for maps [B, D, h, w] or tokens [B, N, D], whichever the student's tap is.

    Raises:
        ValueError: tokens that are not a square grid.
    """
    shape = student.taps[stage - 1]
    if len(shape) == 3:
        return MapExit(stage, shape[0], max(student.summary, teacher.summary), student.num_classes)
    return TokenExit(stage, shape, student.prefix_tokens, student.summary, student.num_classes)


class MapExit(nn.Sequential):
    """From a map to logits: separable convolutions, mean, linear.

    4 - stage convolutions, each halving the grid and doubling the width, but for the last, which gives `width`. After
    stage 4 a 1x1 convolution with bias and nothing behind it. Any grid will do, down to a single cell.

    Args:
        stage: 1 to 4.
        channels: D of the map.
        width: the larger of both models' summaries, so that the size of the exit depends on the teacher.
        classes: K.
    """

    def __init__(self, stage: int, channels: int, width: int, classes: int) -> None:
        widths = [channels * 2**step for step in range(LAST_STAGE - stage)] + [width]
        layers: list[nn.Module] = [SeparableConv(*widths[step : step + 2]) for step in range(LAST_STAGE - stage)]
        if stage == LAST_STAGE:
            layers = [nn.Conv2d(channels, width, 1)]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))
        self.apply(_initialise)


class SeparableConv(nn.Sequential):
    """Depthwise 3x3 with stride 2, pointwise, norm, ReLU; the same again with stride 1, to the new width. No biases."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__(*_separable(width, width, 2), *_separable(width, out, 1))


def _separable(width: int, out: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(width, width, 3, stride, 1, groups=width, bias=False),
        nn.Conv2d(width, out, 1, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU(inplace=True),
    ]


class TokenExit(nn.Module):
    """From tokens to logits: merging down to a grid of about 7x7, transformer blocks, class token or mean, linear.

    A grid of side g is merged floor(log2(g / 7)) times, not below zero. The class token goes around the merging. There
    are max(4 - stage, 1) pre-norm blocks with queries, keys and values without bias, and no norm before the linear
    layer; students of MLP families get attention here as well.

    Where the paper has no case (ours): odd sides are padded with zeros; a grid that needs no merging but has another
    width than the student's summary goes through norm, linear and GELU all the same (late stages of a Swin at 64
    pixels); prefix tokens of another width than the summary are left out.

    Args:
        stage: 1 to 4.
        shape: (N, D), prefix tokens included.
        prefix: class and register tokens, at the front; the first is the class token.
        width: of the student's summary.
        classes: K.

    Raises:
        ValueError: the tokens are not a square grid.
    """

    def __init__(self, stage: int, shape: tuple[int, ...], prefix: int, width: int, classes: int) -> None:
        super().__init__()
        tokens, channels = shape
        merges = max(0, math.floor(math.log2(grid_side(tokens - prefix) / GRID)))
        self.prefix, self.keeps_prefix = prefix, prefix > 0 and channels == width
        self.merging = nn.Sequential()
        for step in range(merges):
            last_of_several = 0 < step == merges - 1
            self.merging.append(
                Merging(width if step else channels, width, 2, nn.Identity() if last_of_several else nn.GELU())
            )
        if not merges and channels != width:
            self.merging.append(Merging(channels, width, 1, nn.GELU()))
        heads = math.gcd(HEADS, width)
        blocks = (Block(width, heads, mlp_ratio=4, qkv_bias=False) for _ in range(max(LAST_STAGE - stage, 1)))
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(width, classes)
        self.apply(_initialise)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [B, N, D] -> logits [B, K]."""
        merged = self.merging(tokens[:, self.prefix :])
        if not self.keeps_prefix:
            return self.head(self.blocks(merged).mean(1))
        return self.head(self.blocks(torch.cat([tokens[:, : self.prefix], merged], 1))[:, 0])


class Merging(nn.Module):
    """Joins `side` x `side` neighbours of a square grid of tokens: concatenation, norm, linear, activation.

    Args:
        width: D of the tokens.
        out: width after it.
        side: 2, or 1 for a change of width alone.
        activation: comes last.
    """

    def __init__(self, width: int, out: int, side: int, activation: nn.Module) -> None:
        super().__init__()
        self.side = side
        self.norm = nn.LayerNorm(side * side * width)
        self.linear = nn.Linear(side * side * width, out, bias=False)
        self.activation = activation

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, g*g, D] -> [B, ceil(g / side)^2, out]."""
        grid = tokens.unflatten(1, (grid_side(tokens.shape[1]), -1))
        missing = -grid.shape[1] % self.side
        grid = F.pad(grid, (0, 0, 0, missing, 0, missing))
        # [B, rows, row within, columns, column within, D]; within a cell, down the first column first
        cells = grid.unflatten(2, (-1, self.side)).unflatten(1, (-1, self.side)).permute(0, 1, 3, 4, 2, 5)
        return self.activation(self.linear(self.norm(cells.flatten(3).flatten(1, 2))))


def grid_side(tokens: int) -> int:
    """Side of the square grid that tokens make, prefix tokens apart.

    Raises:
        ValueError: they make none.
    """
    side = math.isqrt(max(tokens, 0))
    if side < 1 or side * side != tokens:
        raise ValueError(f"{tokens} tokens are not a square grid: train on square pictures")
    return side


def _initialise(module: nn.Module) -> None:
    """As OFA-KD's code: convolutions Kaiming-normal by fan-out, linear layers truncated normal with zero bias."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=INIT_STD)
    if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
