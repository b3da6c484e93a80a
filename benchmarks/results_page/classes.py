"""Classifiers: methods by data and recipe, families, branches, learning without labels."""

from __future__ import annotations

from typing import Any

from results_page.numbers import Spread, listed, load, made_on, order, percent
from results_page.tables import measured

TOP1 = percent("classification/top1", "top-1")
METHODS = {"none": "labels alone", "kd": "KD", "dkd": "DKD", "dist": "DIST"}
CELLS = ("5 a class, weak", "5 a class, strong", "26 a class, weak", "26 a class, strong")


def methods() -> dict[str, Any]:
    """Plain KD beside DKD and DIST, by number of pictures and strength of the recipe."""
    found = load("classifiers_methods")["results"]
    by_method = {
        shown: {cell: _top1(found[f"{cell}, {method}"]) for cell in CELLS} for method, shown in METHODS.items()
    }
    columns = [percent(cell, cell) for cell in CELLS]
    kd = by_method["KD"]
    helped = all(order(row[cell], by_method["labels alone"][cell]) > 0 for row in _taught(by_method) for cell in CELLS)
    return {
        "table": measured("top-1", by_method, columns),
        "cells": by_method,
        "helped": helped,
        "against_kd": {name: _against(by_method[name], kd) for name in ("DKD", "DIST")},
        "strong_level": {name: order(by_method[name][CELLS[1]], kd[CELLS[1]]) == 0 for name in ("DKD", "DIST")},
        "params": _params(found),
        "seeds": len(load("classifiers_methods")["seeds"]),
        "made": made_on("classifiers_methods"),
    }


def families() -> dict[str, Any]:
    """A token student of a CNN."""
    found = load("classifiers_families")["results"]
    rows = {{"none": "labels alone"}.get(name, name): {TOP1.key: _top1(row)} for name, row in found.items()}
    kd, ofa = rows["KD"][TOP1.key], rows["OFA, eps 1.0, stages 1"][TOP1.key]
    return {
        "table": measured("arm", rows, [TOP1]),
        "level": order(kd, ofa) == 0,
        "kd": kd.text(),
        "ofa": ofa.text(),
        "params": _params(found),
        "made": made_on("classifiers_families"),
    }


def branches() -> dict[str, Any]:
    """GhostNetV3's ingredients, one by one."""
    found = load("classifiers_branches")["results"]
    rows = {name: {TOP1.key: _top1(row)} for name, row in found.items()}
    top1 = {name: row[TOP1.key] for name, row in rows.items()}
    better = [name for name in top1 if order(top1[name], top1["plain"]) > 0]
    return {
        "table": measured("arm", rows, [TOP1]),
        "top1": top1,
        "branches_level": order(top1["branches"], top1["plain"]) == 0,
        "better": listed(better) if better else "none",
        "made": made_on("classifiers_branches"),
    }


def unlabelled() -> dict[str, Any]:
    """What an ONNX classifier teaches without a label."""
    found = load("classifiers_unlabelled")["results"]
    keys = {"knn": "knn/accuracy", "linear": "linear/accuracy"}
    pairs = {
        name: [Spread.of(found[when][key]).times(100) for when in ("before", "after")] for name, key in keys.items()
    }
    return {
        "text": {name: f"{before.text()} to {after.text()} %" for name, (before, after) in pairs.items()},
        "learnt": all(order(after, before) > 0 for before, after in pairs.values()),
        "made": made_on("classifiers_unlabelled"),
    }


def _top1(row: dict[str, Any]) -> Spread:
    return TOP1.of(row[TOP1.key])


def _taught(rows: dict[str, dict[str, Spread]]) -> list[dict[str, Spread]]:
    return [row for name, row in rows.items() if name != "labels alone"]


def _against(one: dict[str, Spread], other: dict[str, Spread]) -> str:
    """Where a method is above KD, and where it is level."""
    words = {1: "above it at", 0: "level with it at", -1: "below it at"}
    found: dict[int, list[str]] = {1: [], 0: [], -1: []}
    for cell in CELLS:
        found[order(one[cell], other[cell])].append(f"“{cell}”")
    return ", ".join(f"{words[sign]} {listed(cells)}" for sign, cells in found.items() if cells)


def _params(found: dict[str, Any]) -> str:
    return f"{next(iter(found.values()))['cost/params'][0]:.1f}"
