"""Quickstart, EUPE on real pictures, one table for all, naming in words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from eyespot.tables import markdown_table
from results_page.numbers import Measure, Spread, compared, load, made_on, number, order, percent
from results_page.tables import measured

KNN = percent("knn/accuracy", "k-NN")
MIOU = percent("segmentation/mIoU", "mIoU")
RMSE = Measure("depth/RMSE", "depth RMSE", "m", 3, higher_is_better=False)
DELTA = percent("depth/delta1", "delta1")
PCK = percent("correspondence/PCK@0.1", "PCK@0.1")
SEEN = (KNN, MIOU, RMSE, DELTA, PCK)

Row = dict[str, Spread]


def quickstart() -> dict[str, Any]:
    """The table that `eyespot quickstart` prints, and what may be said about it."""
    measures = (
        Measure("cost/params", "params", "M", 3, higher_is_better=None),
        KNN,
        MIOU,
        RMSE,
        DELTA,
        PCK,
        percent("reading/accuracy", "reading"),
        percent("zero_shot/accuracy", "naming in words"),
    )
    names = {"what": "expert *what*", "where": "expert *where*", "read": "expert *read*", "student": "**student**"}
    plain = load("quickstart")["rows"]
    rows = {names.get(name, name): _row(values, measures) for name, values in plain.items()}
    return {"table": measured("model", rows, measures), "rows": plain}


def real_pictures() -> dict[str, Any]:
    """EUPE and its ablations on real pictures, with a ViT and a CNN as students."""
    vit, cnn = (_by_model(load(name)["table"]["rows"]) for name in ("eupe_real", "eupe_real_cnn"))
    students = {name: vit[f"student, {name}"] for name in ("full", "direct", "no_multires")}
    cnn_rows = {"untrained CNN student": cnn["untrained student"], "CNN student, full": cnn["student, full"]}
    return {
        "vit": measured("model", vit, SEEN),
        "cnn": measured("model", cnn_rows, SEEN),
        "rows": vit | cnn_rows,
        "students": students,
        "params": {"vit": _params("eupe_real"), "cnn": _params("eupe_real_cnn")},
        "against": {
            pair: compared(students[pair[0]], students[pair[1]], SEEN)
            for pair in (("full", "direct"), ("no_multires", "direct"), ("no_multires", "full"))
        },
        "beaten": all(_all_better(row, vit["untrained student"]) for row in students.values()),
        "proxy_leads": [m.name for m in SEEN if all(_not_worse(vit["proxy"], vit[e], m) for e in vit if "expert" in e)],
        "minutes": _minutes(load("eupe_real")["minutes"], load("eupe_real_cnn")["minutes"]),
        "made": made_on("eupe_real", "eupe_real_cnn"),
    }


def one_table() -> dict[str, Any]:
    """Experts, proxy and students by nine protocols."""
    data = load("universal")
    measures = (
        KNN,
        percent("linear/accuracy", "linear"),
        percent("few_shot/accuracy", "5-shot"),
        MIOU,
        RMSE,
        Measure("normals/mean", "normals", "°", 1, higher_is_better=False),
        PCK,
    )
    names = {name: f"expert *{name}*" for name in ("semantic", "segmentation", "depth", "keypoints")}
    names |= {"student, resnet10t": "student, ResNet-10"}
    rows = {names.get(name, name): _row(values, measures) for name, values in data["table"]["rows"].items()}
    leaders = data["leaders"].values()
    return {
        "table": measured("model", rows, measures),
        "rows": rows,
        "experts_lead": all(found["expert"] == found["first of the experts"] for found in leaders),
        "made": made_on("universal"),
    }


def in_words() -> dict[str, Any]:
    """Naming by a text space that lies one or two hops of adapter heads away."""
    data = load("zero_shot")
    hops = {
        "expert semantic": ("expert semantic", 0),
        "proxy": ("proxy", 1),
        "student full (cnn)": ("CNN student, full", 2),
        "student full": ("ViT-T student, full", 2),
        "student no_multires": ("ViT-T student, no_multires", 2),
        "student direct": ("ViT-T student, direct", 1),
    }
    without = "accuracy, summaries at the length that heads give them"
    lines, found = [], {}
    for key, (name, count) in hops.items():
        row = data["rows"][key]
        found[key] = Spread(row["accuracy"] * 100, _scaled(row.get("accuracy spread")))
        control = number(row[without] * 100) if without in row else ""
        lines.append([name, str(count), found[key].text(), number(row["top5"] * 100), control])
    classes = int(data["rows"]["proxy"]["classes"])
    head = ["model", "hops", "accuracy, %", "top 5, %", "accuracy without the length restored, %"]
    return {
        "table": markdown_table(head, lines),
        "rows": found,
        "classes": classes,
        "chance": number(100 / classes),
        "above_chance": min(row.mean for row in found.values()) > 2 * 100 / classes,
        "made": made_on("zero_shot"),
    }


def _scaled(value: float | None) -> float | None:
    return None if value is None else value * 100


def _row(values: Mapping[str, float | None], measures: tuple[Measure, ...]) -> dict[str, Spread | None]:
    return {m.key: None if (value := values[m.key]) is None else m.of(value) for m in measures}


def _by_model(rows: Mapping[str, Mapping[str, float]]) -> dict[str, Row]:
    """Rows "ARM SEED" as one row per arm with its spread."""
    seeds: dict[str, list[Mapping[str, float]]] = {}
    for name, row in rows.items():
        arm = re.sub(r" \d+$", "", name)
        seeds.setdefault(arm, []).append(row)
    names = {"untrained": "untrained student"} | {arm: f"student, {arm}" for arm in ("full", "direct", "no_multires")}
    return {names.get(arm, arm): _over_seeds(found) for arm, found in seeds.items()}


def _over_seeds(rows: list[Mapping[str, float]]) -> Row:
    return {m.key: m.of(rows[0][m.key] if len(rows) == 1 else [row[m.key] for row in rows]) for m in SEEN}


def _params(name: str) -> str:
    return number(load(name)["table"]["rows"]["full 0"]["cost/params"])


def _not_worse(one: Row, other: Row, measure: Measure) -> bool:
    return order(one[measure.key], other[measure.key], measure.higher_is_better) >= 0


def _all_better(one: Row, other: Row) -> bool:
    return all(order(one[m.key], other[m.key], m.higher_is_better) > 0 for m in SEEN)


def _minutes(vit: Mapping[str, Mapping[str, float]], cnn: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    """Mean minutes of each training; of the CNN's two, both."""
    by_arm: dict[str, list[float]] = {"proxy": []}
    for run, stages in vit.items():
        by_arm["proxy"] += [stages["stage-1-proxy"]] if "stage-1-proxy" in stages else []
        later = sum(minutes for stage, minutes in stages.items() if stage != "stage-1-proxy")
        by_arm.setdefault(run.rpartition(" ")[0], []).append(later)
    shown = {arm: number(sum(found) / len(found), 0) for arm, found in by_arm.items()}
    both = sorted(sum(stages.values()) for stages in cnn.values())
    return shown | {"cnn": f"{number(both[0], 0)} to {number(both[-1], 0)}"}
