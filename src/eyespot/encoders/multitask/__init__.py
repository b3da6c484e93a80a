"""Multi-task encoders (SAK): a stem, one adapter path per teacher, and per task a router and a head."""

from eyespot.encoders.multitask.heads import TaskHead
from eyespot.encoders.multitask.model import Levels, MultiTaskEncoder, default_levels, make_multitask_encoder
from eyespot.encoders.multitask.path_encoder import PathEncoder
from eyespot.encoders.multitask.paths import Adapter, TeacherPath
from eyespot.encoders.multitask.routers import Router

__all__ = [
    "Adapter",
    "Levels",
    "MultiTaskEncoder",
    "PathEncoder",
    "Router",
    "TaskHead",
    "TeacherPath",
    "default_levels",
    "make_multitask_encoder",
]
