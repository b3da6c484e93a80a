"""GhostNets of any width, what they count, and batch norms as after training."""

import torch
from timm.models.ghostnet import _create_ghostnet
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from eyespot.randomness import torch_generator

WIDTHS = (0.5, 1.0, 1.3, 1.6)


def ghostnet(version, width):
    """Any version in any width; timm has names for some of them only."""
    return _create_ghostnet("ghostnet_100", width=width, version=version).eval()


def counts(model, size=(224, 224)):
    """(parameters, multiply-accumulates of convolutions and products for one picture)."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.zeros(1, 3, *size))
    return sum(value.numel() for value in model.parameters()), counter.get_total_flops() // 2


def randomised(model, *key):
    """The model with batch norms none of whose numbers is 0 or 1."""
    generator = torch_generator("norms", *key)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d) and norm.track_running_stats:
            norm.running_mean.normal_(generator=generator)
            norm.running_var.uniform_(0.5, 1.5, generator=generator)
            nn.init.uniform_(norm.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(norm.bias, generator=generator)
    return model
