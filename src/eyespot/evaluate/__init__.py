"""Evaluation of frozen encoders: one module per protocol, one table for all."""

from typing import TYPE_CHECKING

from eyespot.lazy import lazy_names

if TYPE_CHECKING:
    from eyespot.data.sets import ToyboxConfig
    from eyespot.evaluate.extraction import FeatureBank, extract
    from eyespot.evaluate.progress import shown_progress
    from eyespot.evaluate.resolution import ResolutionCurve, resolution_curve
    from eyespot.evaluate.results import Column, Metric, ResultTable
    from eyespot.evaluate.run_tasks import evaluate, read_sources, task_options
    from eyespot.evaluate.tasks import DEFAULT_TASKS, TASKS, EvaluationTask
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "eyespot.data.sets": ["ToyboxConfig"],
            "eyespot.evaluate.extraction": ["FeatureBank", "extract"],
            "eyespot.evaluate.progress": ["shown_progress"],
            "eyespot.evaluate.resolution": ["ResolutionCurve", "resolution_curve"],
            "eyespot.evaluate.results": ["Column", "Metric", "ResultTable"],
            "eyespot.evaluate.run_tasks": ["evaluate", "read_sources", "task_options"],
            "eyespot.evaluate.tasks": ["DEFAULT_TASKS", "TASKS", "EvaluationTask"],
        },
    )

__all__ = [
    "DEFAULT_TASKS",
    "TASKS",
    "Column",
    "EvaluationTask",
    "FeatureBank",
    "Metric",
    "ResolutionCurve",
    "ResultTable",
    "ToyboxConfig",
    "evaluate",
    "extract",
    "read_sources",
    "resolution_curve",
    "shown_progress",
    "task_options",
]
