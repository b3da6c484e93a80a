"""Multi-task encoders (SAK): a stem, one adapter path per teacher, and per task a router and a head."""

from typing import TYPE_CHECKING

from eyespot.lazy import lazy_names

if TYPE_CHECKING:
    from eyespot.encoders.multitask.heads import TaskHead
    from eyespot.encoders.multitask.model import Levels, MultiTaskEncoder, make_multitask_encoder
    from eyespot.encoders.multitask.path_encoder import PathEncoder
    from eyespot.encoders.multitask.paths import Adapter, TeacherPath
    from eyespot.encoders.multitask.routers import Router
    from eyespot.encoders.multitask.stems import default_levels
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "eyespot.encoders.multitask.heads": ["TaskHead"],
            "eyespot.encoders.multitask.model": [
                "Levels",
                "MultiTaskEncoder",
                "make_multitask_encoder",
            ],
            "eyespot.encoders.multitask.path_encoder": ["PathEncoder"],
            "eyespot.encoders.multitask.paths": ["Adapter", "TeacherPath"],
            "eyespot.encoders.multitask.routers": ["Router"],
            "eyespot.encoders.multitask.stems": ["default_levels"],
        },
    )

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
