"""Several tasks at once (SAK), and the audit of a committee beside runs that leave one out."""

from __future__ import annotations

from typing import Any

from eyespot.tables import markdown_table
from results_page.numbers import Measure, Spread, load, made_on, number, order, percent
from results_page.tables import measured

ARMS = {
    "sak": "sak",
    "no_router": "no routers",
    "many_to_one": "many-to-one",
    "multi_task": "multi-task",
    "single_task": "single-task",
}
MIOU = percent("segmentation mIoU", "segmentation mIoU")
EDGES = percent("boundary odsF", "boundary odsF")
RMSE = Measure("depth RMSE", "depth RMSE", "m", 3, higher_is_better=False)
NORMALS = Measure("normals mErr", "normals mErr", "°", 1, higher_is_better=False)
DELTA = Measure("Delta_m", "Δm", "%")
OF_SET = {"camvid": (MIOU, EDGES, DELTA), "kitchen": (RMSE, NORMALS, EDGES, DELTA)}
PROBES = (
    percent("knn/accuracy", "k-NN"),
    percent("segmentation/mIoU", "mIoU"),
    Measure("depth/RMSE", "depth RMSE", "m", 3, higher_is_better=False),
    percent("correspondence/PCK@0.1", "PCK@0.1"),
)


def sak() -> dict[str, Any]:
    """SAK beside what it is compared with."""
    data = load("sak")
    arms = {
        name: {ARMS[arm]: {m.key: m.of(row[m.key]) for m in OF_SET[name]} for arm, row in data[name]["arms"].items()}
        for name in OF_SET
    }
    probes = {name: {m.key: m.of(row[m.key]) for m in PROBES} for name, row in data["probes"].items()}
    paths = [row for name, row in probes.items() if name.startswith("path of ")]
    knn = PROBES[0].key
    return {
        "tables": {name: measured("arm", rows, OF_SET[name]) for name, rows in arms.items()},
        "probes": measured("features", probes, PROBES),
        "delta_level": all(_level(rows, "Δm") for rows in arms.values()),
        "steps": data["steps"],
        "seeds": len(data["seeds"]),
        "params": number(data["kitchen"]["costs"]["0"]["parameters, M"][0]),
        "paths_above_stem": all(order(path[knn], probes["stem"][knn]) > 0 for path in paths),
        "no_best_path": all(_serves_no_better(probes, teacher, m) for teacher, m in _home_tasks().items()),
        "edges_below": order(arms["kitchen"]["many-to-one"][EDGES.key], arms["kitchen"]["single-task"][EDGES.key]) < 0,
        "costs": _costs(data["kitchen"]["costs"]),
        "made": made_on("sak"),
    }


def audit() -> dict[str, Any]:
    """Whether the audit foresees what leaving a teacher out does."""
    data = load("committee_audit")
    cost = sum(data["minutes"].values())
    return {
        "table": _verdicts(data),
        "same_sign": data["same_sign"],
        "agree": data["verdicts_agree"],
        "rho": number(data["spearman"]["rho"], 2),
        "p": number(data["spearman"]["p"], 2),
        "no_correlation": data["spearman"]["p"] > 0.05,
        "minutes": number(cost, 0),
        "settings": data["settings"],
        "made": made_on("committee_audit"),
    }


def _verdicts(data: dict[str, Any]) -> str:
    """By pair: what the audit says, and by how much each one's home task is worse for the other's presence."""
    harm = {(pair["on"], pair["of"]): pair for pair in data["pairs"]}
    lines = []
    for verdict in data["audit"]["verdicts"]:
        first, second = verdict["first"], verdict["second"]
        said = f"{verdict['word']} ({_signed(Spread(verdict['interference'], verdict['spread']))})"
        shown = [_signed(Spread.of(harm[pair]["run"])) for pair in ((first, second), (second, first))]
        lines.append([f"{first}, {second}", said, *shown])
    head = ["pair", "audit: loss, %", "run: the first's home task worse by, %", "run: the second's, %"]
    return markdown_table(head, lines)


def _signed(share: Spread) -> str:
    return f"{'+' if share.mean > 0 else ''}{share.times(100).text()}"


def _level(rows: dict[str, dict[str, Spread]], name: str) -> bool:
    """Whether no two arms can be told apart in Delta_m; the single-task models define its zero."""
    found = [row[DELTA.key] for arm, row in rows.items() if arm != "single-task"]
    return all(order(one, other) == 0 for one in found for other in found)


def _home_tasks() -> dict[str, Measure]:
    return dict(zip(("classes", "segmentation", "depth", "key points"), PROBES, strict=True))


def _serves_no_better(probes: dict[str, dict[str, Spread]], teacher: str, measure: Measure) -> bool:
    """Whether a path is level with, or worse than, some other path at its own teacher's task."""
    own = probes[f"path of {teacher}"][measure.key]
    others = [row[measure.key] for name, row in probes.items() if name.startswith("path of ") and teacher not in name]
    return any(order(own, other, measure.higher_is_better) <= 0 for other in others)


def _costs(costs: dict[str, dict[str, list[float]]]) -> str:
    digits = {"parameters, M": 2, "GMACs": 3, "ms": 1}
    lines = [
        [paths, *(number(row[name][0], places) for name, places in digits.items())] for paths, row in costs.items()
    ]
    return markdown_table(["paths on", *digits], lines)
