"""What int8 costs on tasks: real students, real pictures, every format that has int8.

    python benchmarks/int8_tasks.py --models NAME=SPEC ... --data DATA_FOLDER --work WORK_FOLDER

DATA_FOLDER holds the small real data sets (caltech101, camvid, rgbd_kitchen, coco). Per model and format: the
float32 file, int8, int8 with the most hurtful layers in float, and int8 weights with float activations; each by k-NN on
Caltech-101 val, linear segmentation on CamVid val and linear depth on half of the kitchen frames, against the model in
PyTorch. Probes are trained once per seed. Calibration pictures come from training splits only. A thin script over the
public API; run it again to continue where it stopped.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from eyespot import Encoder, load_encoder
from eyespot.deploy.calibration import calibration_batches
from eyespot.deploy.export import Int8, export
from eyespot.deploy.formats.int8 import first_layers
from eyespot.deploy.graph import exportable, trace
from eyespot.deploy.sensitivity import Layer, rank_layers
from eyespot.deploy.task_check import TaskCheck, task_check
from eyespot.files import atomic_write_text
from eyespot.report import machine_info

CALIBRATION = ("caltech101/train", "coco/train2017/images", "camvid/train/images")
HELD_OUT = ("caltech101/val", "coco/val2017/images", "camvid/val/images")
VARIANTS = ("int8", "int8 with fallback", "int8 weights", "float32")
PICTURES_OF_RANKING, PICTURES_OF_COSINE = 8, 24


def rounding(variant: str, hurtful: Sequence[str], args: argparse.Namespace) -> Int8 | None:
    """How a file is written; None is float32."""
    pictures = [str(args.data / part) for part in CALIBRATION]
    options: dict[str, dict[str, Any] | None] = {
        "float32": None,
        "int8": {"keep_float": ()},
        "int8 with fallback": {"keep_float": hurtful},
        "int8 weights": {"keep_float": (), "weights_only": True},
    }
    chosen = options[variant]
    return None if chosen is None else Int8(pictures=pictures, count=args.count, data=None, **chosen)


def ranked(encoder: Encoder, args: argparse.Namespace) -> dict[str, Any]:
    """All layers, the most hurtful first, and those that read the picture, which some formats leave in float anyway."""
    pictures = [str(args.data / part) for part in CALIBRATION]
    size = (args.image_size, args.image_size)
    graph = trace(exportable(encoder), size=size)
    ranking = rank_layers(graph, calibration_batches(pictures, PICTURES_OF_RANKING, 1, size, 0))
    return {"first": sorted(first_layers(graph)), "layers": [asdict(layer) for layer in ranking]}


def measured(before: Encoder, after: Encoder, args: argparse.Namespace) -> list[TaskCheck]:
    """One check per seed of the probes; features are extracted once."""
    data = {
        "knn": str(args.data / "caltech101"),
        "segmentation": f"camvid:{args.data / 'camvid'}",
        "depth": str(args.data / "rgbd_kitchen"),
    }
    return [
        task_check(before, after, data, tuple(data), args.image_size, args.limit, seed, folder=args.work / "evaluation")
        for seed in args.seeds
    ]


@torch.no_grad()
def cosines(before: Encoder, after: Encoder, args: argparse.Namespace) -> dict[str, float]:
    """Mean cosine on pictures that were not calibrated on."""
    pictures = [str(args.data / part) for part in HELD_OUT]
    images = calibration_batches(pictures, PICTURES_OF_COSINE, 8, (args.image_size, args.image_size), 1)
    pairs = [(before(batch), after(batch)) for batch in images]
    return {
        part: float(torch.cat([_cosine(getattr(a, part), getattr(b, part)) for a, b in pairs]).mean())
        for part in ("summary", "patches")
    }


def _cosine(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cosine_similarity(first, second, dim=1).flatten()


def entry(file: Path, checks: Sequence[TaskCheck], cosine: dict[str, float], int8: Int8 | None) -> dict[str, Any]:
    """What is kept of one file: per metric the mean over seeds, and how far the loss differs between them."""
    metrics = {}
    for rows in zip(*(check.losses for check in checks), strict=True):
        losses = [row.loss for row in rows]
        metrics[f"{rows[0].task}/{rows[0].metric.name}"] = {
            "before": mean(row.before for row in rows),
            "after": mean(row.after for row in rows),
            "loss": mean(losses),
            "unit of loss": "points" if rows[0].metric.unit == "%" else "%",
            "spread of loss": stdev(losses) if len(losses) > 1 else None,
        }
    size = sum(part.stat().st_size for part in file.parent.glob(f"{file.stem}.*"))
    kept = list(int8.keep_float or ()) if int8 else []
    return {"megabytes": round(size / 1e6, 2), "cosine": cosine, "layers in float": kept, "metrics": metrics}


def table(results: dict[str, Any]) -> list[str]:
    """Markdown lines: a row per file."""
    first = next(iter(results.values()))["files"]
    metrics = next(iter(first.values()))["metrics"]
    titles = [f"{name} loss, {value['unit of loss']}" for name, value in metrics.items()]
    lines = ["| " + " | ".join(["model", "file", "MB", "cosine summary", "patches", *titles]) + " |"]
    lines.append("|---|---" + "|---:" * (len(titles) + 3) + "|")
    for model, result in results.items():
        floats = [f"{value['before']:.4f}" for value in next(iter(result["files"].values()))["metrics"].values()]
        lines.append("| " + " | ".join([model, "PyTorch float32: the values", "", "", "", *floats]) + " |")
        for name, found in result["files"].items():
            cells = [f"{found['megabytes']}", *(f"{value:.5f}" for value in found["cosine"].values())]
            for value in found["metrics"].values():
                spread = value["spread of loss"]
                cells.append(f"{value['loss']:+.2f}" + (f" ± {spread:.2f}" if spread else ""))
            lines.append("| " + " | ".join([model, name, *cells]) + " |")
    return lines


def remembered(file: Path, make: Callable[[], Any]) -> Any:
    """What `make` gives, or gave when it was called before."""
    if not file.exists():
        print(file.stem, flush=True)
        atomic_write_text(file, json.dumps(make(), indent=1))
    return json.loads(file.read_text())


def run(name: str, spec: str, args: argparse.Namespace) -> dict[str, Any]:
    """The ranking of a model's layers, and what each of its files loses."""
    before = load_encoder(spec).eval()
    measured_files = args.work / "measured"
    known = remembered(measured_files / f"{name} layers.json", lambda: ranked(before, args))
    ranking = [Layer(**layer) for layer in known["layers"]]
    hurtful = [layer.name for layer in ranking if layer.name not in known["first"]][: args.keep]

    def measure(kind: str, variant: str) -> dict[str, Any]:
        int8, held_out = rounding(variant, hurtful, args), [str(args.data / part) for part in HELD_OUT]
        folder = args.work / f"{name} {kind} {variant}".replace(" ", "_")
        try:
            made = export(before, kind, folder, image_size=args.image_size, int8=int8, pictures=held_out)
        except ValueError as refused:  # not every format has every way
            print(f"refused: {refused}")
            return {"refused": str(refused)}
        assert made.spec is not None
        after = load_encoder(made.spec)
        return entry(made.file, measured(before, after, args), cosines(before, after, args), int8)

    every = {
        f"{kind} {how}": remembered(measured_files / f"{name} {kind} {how}.json", partial(measure, kind, how))
        for kind in args.formats
        for how in args.variants
    }
    files = {label: found for label, found in every.items() if "refused" not in found}
    return {
        "layers": len(ranking),
        "reading the picture": known["first"],
        "most hurtful layers": [{**asdict(layer), "damage": layer.damage} for layer in ranking[: args.shown]],
        "files": files,
        "refused": sorted(every.keys() - files),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", required=True, help="NAME=SPEC, e.g. 'student ViT-T=run/RUN'")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/int8_tasks"))
    parser.add_argument("--formats", nargs="+", default=["onnx", "openvino"])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--count", type=int, default=128, help="calibration pictures")
    parser.add_argument(
        "--keep",
        type=int,
        default=4,
        help="most hurtful layers that stay in float with fallback, beside those that read the picture",
    )
    parser.add_argument("--shown", type=int, default=8, help="layers of the ranking in the result")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--limit", type=int, help="pictures per split, for a quick look")
    args = parser.parse_args()
    (args.work / "measured").mkdir(parents=True, exist_ok=True)
    results = {name: run(name, spec, args) for name, _, spec in (model.partition("=") for model in args.models)}
    lines = table(results)
    print("\n".join(lines))
    kept = ("formats", "variants", "image_size", "count", "keep", "seeds", "limit")
    record = {
        "machine": machine_info(),
        "settings": {key: getattr(args, key) for key in kept} | {"calibration": CALIBRATION, "held out": HELD_OUT},
        "results": results,
        "table": lines,
    }
    if args.limit is None:
        atomic_write_text(Path(__file__).parent / "results" / "int8_tasks.json", json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
