"""Branches: convolutions that train as a sum of several and run as one (GhostNetV3, after RepVGG and MobileOne).

GhostNetV3 (arXiv 2404.11202) is GhostNetV2 whose convolutions train in this form; after training each sum is one
convolution again, see `fusing`. timm's `ghostnetv3_*` is that network, branches included. `add_branches` gives any
other compact CNN the same treatment, as the paper does for MobileNetV2 and ShuffleNetV2.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from eyespot.encoders.forms.pairs import Pair, behind_norm, conv_norm_pairs, replace_module

Choice = Callable[[Sequence[Pair]], list[Pair]]
"""Which pairs are to train in branches."""

M = TypeVar("M", bound=nn.Module)


class MultiBranchConv(nn.Module):
    """The sum of several convolutions, each with a batch norm of its own; an activation belongs behind the sum.

    N branches of the full kernel; if that is larger than one pixel, one of 1x1 with the same stride; and if shape and
    width stay the same, the input itself through a batch norm.

    Args:
        conv: the convolution that this stands for, [B, C_in, H, W] -> [B, C_out, h, w]; becomes the first branch.
        norm: the batch norm behind it; becomes the first branch's. The other branches start anew, with its eps and
            momentum.
        branches: N, how many of the full kernel.

    Raises:
        ValueError: fewer than one branch, or a kernel that is not centred on its pixel (an even side, other padding):
            a 1x1 branch would look elsewhere.
    """

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d, branches: int = 3) -> None:
        super().__init__()
        if branches < 1:
            raise ValueError(f"branches must be 1 or more, got {branches}")
        if not is_centred(conv):
            raise ValueError(f"only convolutions centred on their pixel can be a sum of branches; got {conv}")
        first_norm = _norm_like(norm)
        first_norm.load_state_dict({key: norm.state_dict()[key] for key in first_norm.state_dict()})
        self.branches = nn.ModuleList([nn.Sequential(conv, first_norm)])
        for _ in range(branches - 1):
            self.branches.append(nn.Sequential(_conv_like(conv), _norm_like(norm)))
        if max(conv.kernel_size) > 1:
            self.branches.append(nn.Sequential(_conv_like(conv, pointwise=True), _norm_like(norm)))
        same = conv.in_channels == conv.out_channels and tuple(conv.stride) == (1, 1)
        self.identity = _norm_like(norm) if same else None

    def forward(self, images: Tensor) -> Tensor:
        """[B, C_in, H, W] -> [B, C_out, h, w]."""
        total: Tensor = self.branches[0](images)
        for branch in self.branches[1:]:
            total = total + branch(images)
        return total if self.identity is None else total + self.identity(images)

    @torch.no_grad()
    def fuse(self) -> nn.Conv2d:
        """The one convolution, with bias, that computes the same in eval mode.

        Every branch becomes kernel and bias: W' = W g / sqrt(v + eps), b' = beta - m g / sqrt(v + eps). 1x1 kernels
        are padded with zeros and the identity is a kernel with a one in its centre; then kernels and biases are added.
        """
        wide: nn.Conv2d = self.branches[0][0]  # type: ignore[index]
        parts = [_kernel_and_bias(branch[0], branch[1], wide.kernel_size) for branch in self.branches]  # type: ignore[index]
        if self.identity is not None:
            parts.append(_folded(_identity_kernel(wide), None, self.identity))
        kernels, biases = zip(*parts, strict=True)
        fused = _conv_like(wide)
        fused.weight.copy_(torch.stack(kernels).sum(0))
        fused.bias = nn.Parameter(torch.stack(biases).sum(0))
        return fused


def add_branches(model: M, branches: int = 3, choose: Choice | None = None, size: tuple[int, int] = (224, 224)) -> M:
    """Turns convolution + batch norm pairs of a plain compact CNN into `MultiBranchConv`, in place.

    New branches start from random weights, so this is for networks that are yet to be trained.

    Args:
        model: takes [B, 3, H, W].
        branches: N, how many convolutions of the full kernel; 3 in GhostNetV3.
        choose: which pairs; if None, `ghost_pairs` where there are ghost modules, else `compact_pairs`.
        size: (height, width) in pixels of a picture that the model takes; it sees one of them.

    Returns:
        The same model.

    Raises:
        ValueError: a model that trains in branches already, or one with no such pair.
    """
    name = type(model).__name__
    if any(isinstance(part, MultiBranchConv) or hasattr(part, "reparameterize") for part in model.modules()):
        raise ValueError(f"{name} trains in branches already; use it as it is, without further ones")
    pairs = [pair for pair in conv_norm_pairs(model, size) if is_centred(pair.conv)]
    chosen = (choose or _choice_of(pairs))(pairs)
    if not chosen:
        raise ValueError(
            f"{name} has no convolution that would train in branches: by default those are the depthwise and 1x1 ones "
            "with a batch norm behind them; pass choose= to name others"
        )
    for pair in chosen:
        replace_module(model, pair.conv_name, MultiBranchConv(pair.conv, pair.norm, branches))
        replace_module(model, pair.norm_name, behind_norm(pair.norm))
    return model


def ghost_pairs(pairs: Sequence[Pair]) -> list[Pair]:
    """Of timm's GhostNet V1 and V2, what GhostNetV3 trains in branches (official code).

    The 1x1 convolution and the cheap 3x3 one of every ghost module, and the strided depthwise convolution between two
    ghost modules. Not the stem, gates, shortcuts, squeeze-and-excitation and the head.
    """
    return [pair for pair in pairs if re.search(r"(\.(primary_conv|cheap_operation)\.0|\.conv_dw)$", pair.conv_name)]


def compact_pairs(pairs: Sequence[Pair]) -> list[Pair]:
    """Of any other CNN: depthwise and 1x1 convolutions, but not the first one (stem), the last one (head) or shortcuts.

    Ours: the paper says that branches help MobileNetV2 and ShuffleNetV2 too, not where they were put.
    """
    return [pair for pair in pairs[1:-1] if _is_separable(pair.conv) and not _is_shortcut(pair.conv_name)]


def is_centred(conv: nn.Conv2d) -> bool:
    """Whether a convolution is of torch's own kind, with odd sides and as much padding as keeps it on its pixel."""
    if type(conv) is not nn.Conv2d or isinstance(conv.padding, str) or conv.padding_mode != "zeros":
        return False
    sides = zip(conv.kernel_size, conv.dilation, conv.padding, strict=True)
    return all(side % 2 == 1 and padding == dilation * (side // 2) for side, dilation, padding in sides)


def _choice_of(pairs: Sequence[Pair]) -> Choice:
    return ghost_pairs if any(".primary_conv." in pair.conv_name for pair in pairs) else compact_pairs


def _is_separable(conv: nn.Conv2d) -> bool:
    depthwise = conv.groups == conv.in_channels > 1
    return depthwise or (tuple(conv.kernel_size) == (1, 1) and conv.groups == 1)


def _is_shortcut(name: str) -> bool:
    return any(word in name for word in ("shortcut", "downsample", "short_conv", "conv_skip"))


def _conv_like(conv: nn.Conv2d, pointwise: bool = False) -> nn.Conv2d:
    """A convolution like another, or its 1x1 kin, with random weights of its own."""
    return nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        1 if pointwise else conv.kernel_size,  # type: ignore[arg-type]
        conv.stride,  # type: ignore[arg-type]
        0 if pointwise else conv.padding,  # type: ignore[arg-type]
        1 if pointwise else conv.dilation,  # type: ignore[arg-type]
        conv.groups,
        conv.bias is not None,
        device=conv.weight.device,
        dtype=conv.weight.dtype,
    )


def _norm_like(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    tensor = norm.running_mean
    assert tensor is not None
    return nn.BatchNorm2d(
        norm.num_features, norm.eps, norm.momentum, norm.affine, device=tensor.device, dtype=tensor.dtype
    )


def _kernel_and_bias(conv: nn.Conv2d, norm: nn.BatchNorm2d, kernel_size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """What a branch computes, as a kernel of that size and a bias."""
    up, left = ((wanted - side) // 2 for wanted, side in zip(kernel_size, conv.kernel_size, strict=True))
    return _folded(F.pad(conv.weight, (left, left, up, up)), conv.bias, norm)


def _folded(kernel: Tensor, bias: Tensor | None, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None and norm.running_var is not None
    new_kernel, new_bias = fuse_conv_bn_weights(
        kernel, bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    return new_kernel, new_bias


def _identity_kernel(conv: nn.Conv2d) -> Tensor:
    """The kernel, in the shape of a convolution's, that hands its input on."""
    kernel = torch.zeros_like(conv.weight)
    channel = torch.arange(conv.out_channels, device=kernel.device)
    up, left = (side // 2 for side in conv.kernel_size)
    kernel[channel, channel % kernel.shape[1], up, left] = 1
    return kernel
