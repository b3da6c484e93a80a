"""Evaluation of frozen encoders: one module per protocol, one table for all."""

from eyespot.evaluate.datasets import ToyboxConfig
from eyespot.evaluate.extract import FeatureBank, extract
from eyespot.evaluate.front import evaluate
from eyespot.evaluate.progress import shown_progress
from eyespot.evaluate.results import Column, Metric, ResultTable
from eyespot.evaluate.tasks import DEFAULT_TASKS, TASKS, Task

__all__ = [
    "DEFAULT_TASKS",
    "TASKS",
    "Column",
    "FeatureBank",
    "Metric",
    "ResultTable",
    "Task",
    "ToyboxConfig",
    "evaluate",
    "extract",
    "shown_progress",
]
