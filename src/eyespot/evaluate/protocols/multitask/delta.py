"""Delta_m: how much better a multi-task model is than single-task models, over all tasks."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

LOWER_IS_BETTER = ("depth RMSE", "normals mErr")
"""Of the keys of `evaluate_multitask`, those of errors."""


def delta_m(
    measured: Mapping[str, float],
    baseline: Mapping[str, float],
    lower_is_better: Collection[str] = LOWER_IS_BETTER,
) -> float:
    """The mean relative gain over the tasks, in % (Maninis et al. 2019; SAK, its evaluation section).

    Args:
        measured: metric by key, of the model.
        baseline: the same keys, of single-task models of the same backbone.
        lower_is_better: keys of errors; keys that are not measured may be among them.

    Raises:
        ValueError: no key, other keys in the baseline, a value that is no number, a baseline of 0.
    """
    gains = relative_gains(measured, baseline, lower_is_better)
    return sum(gains.values()) / len(gains)


def relative_gains(
    measured: Mapping[str, float],
    baseline: Mapping[str, float],
    lower_is_better: Collection[str] = LOWER_IS_BETTER,
) -> dict[str, float]:
    """The terms of `delta_m`: for each key by how many % the model is better (worse: negative) than the baseline."""
    if not measured or measured.keys() != baseline.keys():
        raise ValueError(
            f"a model and its baseline must be measured on the same tasks, at least one; got {', '.join(measured)} "
            f"against {', '.join(baseline)}"
        )
    for key in measured:
        if not (math.isfinite(measured[key]) and math.isfinite(baseline[key]) and baseline[key]):
            raise ValueError(f"{key}: no gain of {measured[key]} over {baseline[key]}; leave the task out of both")
    return {
        key: (-100 if key in lower_is_better else 100) * (value - baseline[key]) / baseline[key]
        for key, value in measured.items()
    }
