"""How several processes share one training: each with everything (DDP), or each with a part (FSDP2)."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Mapping
from functools import partial

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from eyespot.engine.config import EngineConfig
from eyespot.engine.task import Task
from eyespot.engine.units import units_of


def start_fabric(engine: EngineConfig) -> Fabric:
    """Launches the processes that `engine` asks for; under torchrun, joins the ones that torchrun started."""
    devices, nodes = engine.devices, engine.nodes
    if "TORCHELASTIC_RUN_ID" in os.environ:
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it greets at every start
    fabric = Fabric(
        accelerator=engine.accelerator,
        devices=devices,
        num_nodes=nodes,
        strategy=_strategy(engine, devices * nodes),
        precision=engine.precision,
    )
    fabric.launch()
    return fabric


def _strategy(engine: EngineConfig, processes: int) -> str | ModelParallelStrategy:
    if processes == 1:
        return "auto"
    if engine.strategy == "ddp":
        return "ddp"
    # Through Fabric, which then knows how to start processes, to accumulate gradients and to cast.
    shard = partial(shard_task, engine=engine)
    return ModelParallelStrategy(shard, data_parallel_size=processes, tensor_parallel_size=1)


def is_sharded(fabric: Fabric) -> bool:
    """Whether each process has but a part of the weights."""
    return isinstance(fabric.strategy, ModelParallelStrategy)


def shard_task(task: Task, mesh: DeviceMesh, engine: EngineConfig) -> Task:
    """Cuts the parameters of a Task into one slice per process, in place (FSDP2).

    Every unit (`eyespot.engine.units`) is gathered and freed as a whole; what a network has outside of its units is one
    more, and so is the rest of the Task. Teachers are left whole, unless `engine.shard_teachers`.

    In bf16-mixed, units are gathered in bfloat16, which halves the traffic; the slices, their gradients and the
    optimiser stay in float32, and so does what flows between units. Norms in them are gathered on their own, in
    float32, in which they compute: few of torch's norms take weights of another type than their input or statistics.

    A network whose weights are used by other methods than `forward` names these in its attribute `forward_methods`.
    """
    mesh = mesh["data_parallel"]
    left_whole: set[nn.Parameter] = set()
    networks = list(task.students.values())
    if engine.shard_teachers:
        for part in task.frozen_parts:  # a copy, for what is cut cannot be used by the next stage
            task.set_submodule(part, copy.deepcopy(task.get_submodule(part)))
        networks += task.teachers.values()
    else:
        left_whole = {weight for part in task.frozen_parts for weight in task.get_submodule(part).parameters()}
    half = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
    for unit in units_of(task):
        if left_whole.issuperset(unit.parameters()):
            continue
        if engine.precision == "bf16-mixed":
            for norm in filter(_is_norm, unit.modules()):
                fully_shard(norm, mesh=mesh)
            fully_shard(unit, mesh=mesh, mp_policy=half)
        else:
            fully_shard(unit, mesh=mesh)
    for module in [*networks, task]:
        if not isinstance(module, FSDPModule):  # a student can be a unit itself
            fully_shard(module, mesh=mesh, ignored_params=left_whole)
    register_fsdp_forward_method(task, "prepare")  # it looks through the teachers, outside of `forward`
    for network in networks:
        for method in getattr(network, "forward_methods", ()):
            register_fsdp_forward_method(network, method)
    return task


def _is_norm(module: nn.Module) -> bool:
    """Whether it is a norm layer with weights, of torch, timm or anyone who names them so."""
    return "norm" in type(module).__name__.lower() and any(True for _ in module.parameters(recurse=False))


def whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a Task that may be cut into slices, put together. Every process has to call it, in the same order.

    Args:
        tensors: by name.

    Returns:
        The same where nothing is cut. Else, in the first process whole tensors on the CPU, in the others nothing.
    """
    if not any(isinstance(tensor, DTensor) for tensor in tensors.values()):
        return dict(tensors)
    first = dist.get_rank() == 0
    gathered: dict[str, Tensor] = {}
    for name, tensor in tensors.items():  # one by one, so that a device never holds them all
        full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if first:
            gathered[name] = full.detach().cpu()
    return gathered


def local(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def hollow_copy(module: nn.Module) -> nn.Module:
    """A copy with the same buffers but without numbers in its parameters, to be filled later.

    It has to be made before the module is cut into slices: FSDP forbids copies.
    """
    empty = {
        id(weight): nn.Parameter(weight.detach().to("meta"), requires_grad=weight.requires_grad)
        for weight in module.parameters()
    }
    return copy.deepcopy(module, empty)


def clip_gradients(parameters: list[nn.Parameter], largest: float | None) -> Tensor:
    """Clips a gradient to the norm `largest` if that is given; returns its norm before that, without a device sync."""
    norm = torch.nn.utils.get_total_norm([weight.grad for weight in parameters if weight.grad is not None])
    if isinstance(norm, DTensor):
        norm = norm.full_tensor()
    if largest is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, largest, norm)
    return norm
