"""Whether the quick probes rank encoders as an independent solver does, before and after they chose their penalty."""

from __future__ import annotations

from statistics import median
from typing import Any

from scipy.stats import spearmanr

from eyespot.tables import markdown_table
from results_page.numbers import Measure, load, made_on, number, percent

BEFORE, AFTER = "before", "after"
SOLVER, STANDARDISED = "scikit-learn, one scale", "scikit-learn, every channel"
TASKS = {
    "depth": Measure("depth", "depth RMSE", "m", 3, higher_is_better=False),
    "normals": Measure("normals", "normals", "°", 1, higher_is_better=False),
    "segmentation": percent("segmentation", "mIoU"),
    "linear": percent("linear", "linear"),
}


def probe_check() -> dict[str, Any]:
    """Values, order and time of the quick probes beside scikit-learn's."""
    data = load("probe_check")
    encoders: dict[str, Any] = data["encoders"]
    return {
        "tables": {task: _table(encoders, task, data["floor"][task]) for task in TASKS},
        "summary": markdown_table(
            [
                "task",
                "rank correlation before",
                "after",
                "median distance before, %",
                "after",
                "seconds before",
                "after",
            ],
            [[measure.name, *_summary(encoders, task)] for task, measure in TASKS.items()],
        ),
        "closer": all(_distance(encoders, task, AFTER) < _distance(encoders, task, BEFORE) for task in DENSE),
        "ordered": all(rank_correlation(encoders, task, AFTER) > 0.9 for task in TASKS),
        "trained_first": all(_trained_first(encoders, task, AFTER) for task in DENSE)
        and not any(_trained_first(encoders, task, BEFORE) for task in ("depth", "normals")),
        "encoders": len(encoders),
        "made": made_on("probe_check"),
    }


DENSE = ("depth", "normals", "segmentation")


def _trained_first(encoders: dict[str, Any], task: str, label: str) -> bool:
    """Whether every network that was trained is above every one that was not."""
    sign = 1 if TASKS[task].higher_is_better else -1
    worth = {name: sign * entry[label]["values"][task] for name, entry in encoders.items()}
    untrained = {name for name in worth if name.startswith("untrained")}
    return min(worth[name] for name in worth.keys() - untrained) > max(worth[name] for name in untrained)


def _solver(task: str) -> str:
    """Which of scikit-learn's results a task is held against: summaries were standardised only."""
    return STANDARDISED if task == "linear" else SOLVER


def _values(encoders: dict[str, Any], label: str, task: str) -> list[float]:
    return [entry[label]["values"][task] for entry in encoders.values()]


def rank_correlation(encoders: dict[str, Any], task: str, label: str) -> float:
    """Spearman's, between a probe and scikit-learn."""
    return float(spearmanr(_values(encoders, label, task), _values(encoders, _solver(task), task)).statistic)


def _distance(encoders: dict[str, Any], task: str, label: str) -> float:
    """Median over encoders of the relative distance between a probe and scikit-learn."""
    pairs = zip(_values(encoders, label, task), _values(encoders, _solver(task), task), strict=True)
    return median(abs(found / wanted - 1) for found, wanted in pairs)


def _summary(encoders: dict[str, Any], task: str) -> list[str]:
    both = (BEFORE, AFTER)
    ranks = [number(rank_correlation(encoders, task, label), 2) for label in both]
    distances = [number(100 * _distance(encoders, task, label)) for label in both]
    seconds = [number(median(entry[label]["seconds"][task] for entry in encoders.values())) for label in both]
    return [*ranks, *distances, *seconds]


def _table(encoders: dict[str, Any], task: str, floor: float) -> str:
    measure = TASKS[task]
    labels = [BEFORE, AFTER, *((STANDARDISED,) if task == "linear" else (SOLVER, STANDARDISED))]
    lines = [
        [
            name,
            str(entry["channels"]),
            *(measure.of(entry[label]["values"][task]).text(measure.digits) for label in labels),
        ]
        for name, entry in encoders.items()
    ]
    constant = measure.of(floor).text(measure.digits)
    lines.append(["constant answer (floor)", "", constant, constant, *[""] * (len(labels) - 2)])
    return markdown_table([measure.head, "channels", *labels], lines)
