"""Fusing: networks in the form in which they run, with one convolution for all branches and no batch norms.

Both steps are exact for a trained network in eval mode, up to rounding: sums of convolutions are convolutions, and a
batch norm with fixed statistics is a scale and an offset that the convolution before it can take over.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from timm.models import reparameterize_model
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from eyespot.encoders.forms.pairs import behind_norm, conv_norm_pairs, replace_module

M = TypeVar("M", bound=nn.Module)


def fuse(model: M, size: tuple[int, int] = (224, 224)) -> M:
    """A copy in run-time form: `merge_branches`, then `fold_norms`; in eval mode, without gradients.

    `Encoder.run_time_form` gives an encoder in this form that can be saved.

    Official GhostNetV3 stops after the first step, with 54 batch norms left (stem, gates, shortcuts, last 1x1); here
    none is left.

    What looks inside, at the map between a convolution and its norm, sees the normed one in the copy (the stem's map
    of timm's GhostNets, tap 0, is such a one).

    Args:
        model: an encoder or any CNN that takes [B, 3, H, W]; stays as it is.
        size: (height, width) in pixels of a picture that it takes; it sees one of them.

    Raises:
        ValueError: the model does not run at that size.
    """
    fused = merge_branches(model)
    fold_norms(fused, size)
    return fused.requires_grad_(False)


@torch.no_grad()
def merge_branches(model: M) -> M:
    """A copy, in eval mode, in which what trains in branches is one convolution.

    That is `MultiBranchConv` and, by timm's own hooks, the models of timm that train so (GhostNetV3, FastViT,
    MobileOne, RepVGG) or that hold layers that run faster as one (LeViT).
    """
    first = next(model.parameters(), None)
    with torch.device("cpu" if first is None else first.device):  # where timm makes its new layers
        merged: M = reparameterize_model(model)
    return merged.eval()


@torch.no_grad()
def fold_norms(model: nn.Module, size: tuple[int, int]) -> None:
    """Folds batch norms into the convolutions before them, in place.

    Only where the convolution's output goes nowhere else, see `conv_norm_pairs`. The activation that some norms of timm
    apply stays where the norm was.
    """
    for pair in conv_norm_pairs(model, size):
        replace_module(model, pair.conv_name, fuse_conv_bn_eval(pair.conv, pair.norm))
        replace_module(model, pair.norm_name, behind_norm(pair.norm))
