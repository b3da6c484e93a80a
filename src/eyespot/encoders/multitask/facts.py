"""What config.json says of a multi-task model beside its stem, and the model built again from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from eyespot.dense_tasks import DenseTask
from eyespot.encoders.base import Encoder
from eyespot.encoders.multitask.model import MultiTaskEncoder, make_multitask_encoder


def multitask_facts(encoder: MultiTaskEncoder) -> dict[str, Any]:
    """JSON-able: tasks, paths and which of them are on, router and levels."""
    return {
        "tasks": {name: asdict(task) for name, task in encoder.tasks.items()},
        "paths": list(encoder.path_names),
        "active": list(encoder.active),
        "router": encoder.router,
        "levels": list(encoder.levels),
    }


def build_from_facts(stem: Encoder, facts: Mapping[str, Any]) -> MultiTaskEncoder:
    """The model that `multitask_facts` described, with new weights, around a stem."""
    tasks = {
        name: DenseTask(**{**task, "names": tuple(task.get("names", ()))}) for name, task in facts["tasks"].items()
    }
    encoder = make_multitask_encoder(stem, facts["paths"], tasks, facts["router"], facts["levels"])
    encoder.active = facts["active"]
    return encoder
