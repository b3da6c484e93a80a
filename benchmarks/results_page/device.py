"""On the device: runtimes, int8, training form against run-time form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from eyespot.tables import markdown_table
from results_page.numbers import load, made_on, number

RUNTIMES = {
    "eager": "PyTorch eager, float32",
    "compile": "torch.compile",
    "executorch": "ExecuTorch (XNNPACK)",
    "onnx": "ONNX Runtime",
    "openvino": "OpenVINO",
    "openvino-bf16": "OpenVINO, bfloat16",
    "executorch-int8": "ExecuTorch, int8",
    "onnx-int8": "ONNX Runtime, int8",
    "openvino-int8": "OpenVINO, int8",
}
VIT_T = "timm/vit_tiny_patch16_dinov3_qkvb?pretrained=false"
CONVNEXT_T = "timm/convnext_tiny?pretrained=false"

Group = dict[str, dict[str, Any]]


def runtimes() -> dict[str, Any]:
    """ViT-T in every runtime, at two sizes."""
    small, large = (_group(VIT_T, side) for side in (256, 512))
    lines = [[name, *_cells(small[key]), *_cells(large[key])] for key, name in RUNTIMES.items()]
    head = ["runtime", "256 px: ms", "× eager", "of the peak", "512 px: ms", "× eager", "of the peak"]
    convnext = _group(CONVNEXT_T, 256)
    return {
        "table": markdown_table(head, lines),
        "fastest": {side: _fastest(group) for side, group in ((256, small), (512, large))},
        "peaks": {row["precision"]: number(row["peak_gops"] / 1000, 2) for row in small.values()},
        "fast": min(
            group[key]["speedup_low"] for group in (small, large) for key in ("openvino-bf16", "openvino-int8")
        ),
        "threads": load("runtimes")["settings"]["threads"],
        "convnext": _fastest(convnext),
        "convnext_ratio": number(_ratio(convnext)),
        "made": made_on("runtimes"),
    }


def int8() -> dict[str, Any]:
    """What rounding to 8 bits costs two students."""
    data = load("int8_tasks")
    lines, losses = [], []
    for model, found in data["results"].items():
        for file, row in found["files"].items():
            metrics = row["metrics"]
            losses += [metrics[key]["loss"] for key in ("knn/accuracy", "segmentation/mIoU")]
            cosines = [_small(1 - row["cosine"][part]) for part in ("summary", "patches")]
            lines.append([f"{model}, {file}", number(row["megabytes"]), *cosines, *_losses(metrics)])
    head = ["model, file", "MB", "1 − cosine, summary", "patches", "k-NN, points", "mIoU, points", "depth RMSE, %"]
    return {
        "table": markdown_table(head, lines),
        "largest": max(losses),
        "largest_text": number(max(losses), 2),
        "count": data["settings"]["count"],
        "made": made_on("int8_tasks"),
    }


def reparameterized() -> dict[str, Any]:
    """How many times as fast the run-time form is."""
    data = load("reparameterized")
    forms = ("fused, eager", "fused, onnx", "fused, openvino")
    lines = []
    for group in data["groups"]:
        row = {found["runtime"]: found for found in group["runtimes"]}
        ratios = [number(row[form]["speedup"]) for form in forms]
        lines.append([f"`{group['model']}`", number(row["eager"]["latency_ms"], 0), *ratios])
    head = ["model", "training form, ms", "fused, eager, ×", "fused, ONNX Runtime, ×", "fused, OpenVINO, ×"]
    return {
        "table": markdown_table(head, lines),
        "size": data["groups"][0]["size"][0],
        "made": made_on("reparameterized"),
    }


def _small(value: float) -> str:
    return f"{value:.0e}" if value else "0"


def _group(model: str, side: int) -> Group:
    for group in load("runtimes")["groups"]:
        if group["model"] == model and group["size"] == [side, side] and group["batch"] == 1:
            return {row["runtime"]: row for row in group["runtimes"]}
    raise LookupError(f"runtimes.json has no {model} at {side} px")


def _cells(row: Mapping[str, Any]) -> Iterator[str]:
    yield number(row["latency_ms"])
    yield (
        "1"
        if row["runtime"] == "eager"
        else f"{row['speedup']:.2f} ({row['speedup_low']:.2f}–{row['speedup_high']:.2f})"
    )
    yield f"{row['peak_fraction']:.2f}"


def _fastest(group: Group) -> str:
    """The name of the fastest runtime, or of all whose quartiles touch its own."""
    best = max(group.values(), key=lambda row: row["speedup"])
    level = [key for key, row in group.items() if row["speedup_high"] >= best["speedup_low"]]
    return " and ".join(RUNTIMES[key] for key in RUNTIMES if key in level)


def _ratio(group: Group) -> float:
    return max(row["speedup"] for row in group.values())


def _losses(metrics: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for key in ("knn/accuracy", "segmentation/mIoU", "depth/RMSE"):
        found = metrics[key]
        spread = f" ± {found['spread of loss']:.2f}" if key != "knn/accuracy" else ""
        sign = "" if found["loss"] < 0 or float(f"{found['loss']:.2f}") == 0 else "+"
        yield f"{sign}{number(found['loss'], 2)}{spread}"
