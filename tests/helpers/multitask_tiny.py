"""Small multi-task models with weights everywhere, so that nothing left out goes unnoticed."""

import copy
from functools import lru_cache

import torch

from eyespot.dense_tasks import dense_task
from eyespot.encoders import load_encoder
from eyespot.encoders.multitask import make_multitask_encoder
from eyespot.randomness import torch_generator

STEM = "timm/vit_tiny_patch16_224?pretrained=false&depth=4&embed_dim=32&num_heads=2&img_size=64,64"
TASKS = {"segmentation": dense_task("classes", 5), "normals": dense_task("normals"), "depth": dense_task("depth")}
PATHS = ("clip", "sam")


def tiny(paths=PATHS, tasks=TASKS, router="mor", spec=STEM, **options):
    """In eval mode; every weight and every running statistic is moved away from where it started."""
    model = make_multitask_encoder(copy.deepcopy(_stem(spec)), paths, tasks, router, **options).eval()
    generator = torch_generator("multi-task weights")
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=generator)
        for name, value in model.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                value += 0.3 * torch.rand(value.shape, generator=generator)
    return model


@lru_cache
def _stem(spec):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return load_encoder(spec)


def pictures(count=2, size=(64, 96)):
    return torch.rand(count, 3, *size, generator=torch_generator("multi-task pictures", count))
