"""Multi-task models: one metric per dense task, and one number for all of them."""

from eyespot.evaluate.protocols.multitask.boundary import BoundaryCounts, BoundaryF, boundary_counts
from eyespot.evaluate.protocols.multitask.delta import LOWER_IS_BETTER, delta_m, relative_gains
from eyespot.evaluate.protocols.multitask.metrics import METRICS, DenseMetric, metric_for, metric_name
from eyespot.evaluate.protocols.multitask.protocol import evaluate_multitask, predicted, run, shared_tasks

__all__ = [
    "LOWER_IS_BETTER",
    "METRICS",
    "BoundaryCounts",
    "BoundaryF",
    "DenseMetric",
    "boundary_counts",
    "delta_m",
    "evaluate_multitask",
    "metric_for",
    "metric_name",
    "predicted",
    "relative_gains",
    "run",
    "shared_tasks",
]
