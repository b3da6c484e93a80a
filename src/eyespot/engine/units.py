"""Units: the repeated parts of a network, such as transformer blocks. One rule says what they are, for all uses.

A unit is what FSDP gathers and frees as a whole, what activation checkpointing computes twice, and what
`torch.compile` compiles (equal blocks share one compilation). The rule (ours): going down from a network, the elements
of the first `nn.Sequential` or `nn.ModuleList` on each way, as far as they consist of several layers. So it is the
blocks of a ViT, the stages of ConvNeXt, MobileNet or Swin, the residual blocks of a ResNet. An entry of an
`nn.ModuleDict` without units inside (an adapter head) is one itself. All else, stems and last norms, is in no unit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from eyespot.engine.task import Task

BACKEND = "inductor"
"""What `torch.compile` hands its graphs to."""

MOST_COMPILATIONS = 1024
"""Per function, over all blocks and sizes; torch's own limit of 8 would go back to eager without a word."""


def units_of(module: nn.Module) -> list[nn.Module]:
    """The units of a network or a Task, in the order of its modules; each holds at least one parameter."""
    if isinstance(module, nn.Sequential | nn.ModuleList):
        return [element for element in module if _has_layers(element)]
    found: list[nn.Module] = []
    for child in module.children():
        inside = units_of(child)
        if not inside and isinstance(module, nn.ModuleDict) and _has_layers(child):
            inside = [child]
        found += inside
    return list(dict.fromkeys(found))


def _has_layers(module: nn.Module) -> bool:
    return any(True for _ in module.children()) and any(True for _ in module.parameters())


def checkpoint_activations(task: Task) -> None:
    """Makes every unit of the students forget what it computed inside and compute it again in the backward pass.

    Changes nothing but memory and time: random draws are repeated, and batch norm counts a batch once. Models without
    units do it as timm does, if they are timm's (RegNet; there batch norm counts twice).

    Raises:
        ValueError: a student offers neither.
    """
    for name, student in task.students.items():
        units = units_of(student)
        for unit in units:
            # Inside the module's call, so that what FSDP does around it happens once. As a partial of a bound method it
            # follows the module when that is copied.
            unit.forward = partial(_recomputed, unit.forward)
        if not units:
            _let_timm_checkpoint(name, student)


def _let_timm_checkpoint(name: str, student: nn.Module) -> None:
    try:
        getattr(student, "model", student).set_grad_checkpointing(True)  # type: ignore[operator]
    except (AttributeError, AssertionError) as error:
        raise ValueError(
            f"student {name!r} ({getattr(student, 'name', type(student).__name__)}) has no blocks or stages whose "
            "activations could be dropped; set engine.activation_checkpointing to false"
        ) from error


def _recomputed(forward: Any, *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    if torch.compiler.is_compiling():  # a compiled unit computes again from what it recorded, without side effects
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)
    norms = [module for module in forward.__self__.modules() if isinstance(module, _BatchNorm)]
    return checkpoint(forward, *args, use_reentrant=False, context_fn=partial(_contexts, norms), **kwargs)


def _contexts(norms: list[_BatchNorm]) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """For the first computation and for the second, which comes when whatever surrounded the first has ended."""
    return nullcontext(), _once_more(norms, _attention_kernels())


def _attention_kernels() -> list[SDPBackend]:
    """Those that may be used now."""
    allowed = {
        SDPBackend.FLASH_ATTENTION: torch.backends.cuda.flash_sdp_enabled(),
        SDPBackend.EFFICIENT_ATTENTION: torch.backends.cuda.mem_efficient_sdp_enabled(),
        SDPBackend.MATH: torch.backends.cuda.math_sdp_enabled(),
        SDPBackend.CUDNN_ATTENTION: torch.backends.cuda.cudnn_sdp_enabled(),
    }
    return [kernel for kernel, is_allowed in allowed.items() if is_allowed]


@contextmanager
def _once_more(norms: list[_BatchNorm], kernels: list[SDPBackend]) -> Iterator[None]:
    """The same attention as before, and batch statistics that leave no second trace."""
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        with sdpa_kernel(kernels):
            yield
    finally:
        for norm, (momentum, count) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count


def compile_units(task: Task) -> None:
    """Sends students, their heads and the teachers through `torch.compile`, unit by unit and in place.

    A network without units is compiled as a whole; one without parameters, a file of another runtime, is left as it is.
    Every size of pictures is compiled once, the first time it comes up; names in the state dict stay as they are.
    Random draws (drop path, dropout) are those of eager mode: inductor's own would be others, of the same kind.
    """
    from torch._inductor import config as inductor_config  # takes a second, and few compile

    inductor_config.fallback_random = True
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MOST_COMPILATIONS)
    accumulated = torch._dynamo.config.accumulated_recompile_limit
    torch._dynamo.config.accumulated_recompile_limit = max(accumulated, MOST_COMPILATIONS)
    networks = [*task.students.values(), *task.teachers.values()]
    whole = [network for network in networks if not units_of(network) and any(True for _ in network.parameters())]
    for module in [*units_of(task), *whole]:
        module.compile(backend=BACKEND, dynamic=False)
