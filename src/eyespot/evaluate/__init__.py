"""Evaluation of frozen encoders: one module per protocol, one table for all."""

from eyespot.data.sets import ToyboxConfig
from eyespot.evaluate.extract import FeatureBank, extract
from eyespot.evaluate.progress import shown_progress
from eyespot.evaluate.resolution import ResolutionCurve, resolution_curve
from eyespot.evaluate.results import Column, Metric, ResultTable
from eyespot.evaluate.run_tasks import evaluate, read_sources, task_options
from eyespot.evaluate.tasks import DEFAULT_TASKS, TASKS, EvaluationTask

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
