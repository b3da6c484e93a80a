"""EUPE on real pictures with real experts: the full recipe against its two ablations, at equal student steps.

    python benchmarks/eupe_real.py --teachers TEACHERS_FOLDER --data DATA_FOLDER --work WORK_FOLDER

TEACHERS_FOLDER holds the experts as ONNX files (semantic, segmentation, depth), DATA_FOLDER the small real data sets
(caltech101, tiny_imagenet, camvid, coco, rgbd_kitchen). Per seed and arm: distil with the preset `laptop`, then measure
k-NN on Caltech-101 val, linear segmentation on CamVid val, linear depth on half of the kitchen frames and matching
between kitchen frames; beside them each expert, each proxy and the untrained student. A thin script over the public
API; run it again to continue where it stopped.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from eyespot import Encoder, load_encoder
from eyespot.config import build
from eyespot.distill.warm_start import new_encoder
from eyespot.evaluate import ResultTable, evaluate
from eyespot.files import atomic_write_text
from eyespot.recipes.eupe import EupeConfig, distill
from eyespot.recipes.presets import read_settings
from eyespot.report import machine_info, read_metrics

EXPERTS = {
    "semantic": "semantic_mobilenetv2_in1k.onnx?license=apache-2.0",
    "segmentation": "segmentation_deeplabv3_voc.onnx?license=apache-2.0",
    "depth": "depth_fastdepth_nyu.onnx?license=mit",
}
PICTURES = (
    "caltech101/train",
    "caltech101/unlabeled",
    "tiny_imagenet/train",
    "camvid/train/images",
    "coco/train2017/images",
    "coco/val2017/images",
)
PLACES = ("teachers", "data", "work", "proxies")
ARMS = ("full", "direct", "no_multires")


def arm_config(arm: str, seed: int, args: argparse.Namespace) -> EupeConfig:
    """The preset with this arm's change; every arm trains its student for the same number of steps."""
    settings = read_settings("eupe", [args.preset] if arm == "full" else [args.preset, arm])
    settings["teachers"] = [f"onnx/{args.teachers / file}" for file in EXPERTS.values()]
    settings["data"]["sources"] = [str(args.data / part) for part in PICTURES]
    settings |= {"seed": seed, "cache": {"folder": str(args.work / "teacher-cache")}}
    settings["student"]["model"] = args.student
    config = build(EupeConfig, settings, args.preset)
    if args.scale != 1:
        config = scaled(config, args.scale)
    if args.proxies and config.proxy is not None:
        config = replace(config, proxy=f"run/{args.proxies}/full-seed{seed}/stage-1-proxy")
    if arm == "full":
        return config
    full = arm_config("full", seed, args)
    config = replace(config, stage2=replace(config.stage2, steps=full.stage2.steps + full.stage3.steps))
    # The proxy is the same for the same seed, so it is trained once.
    if config.proxy is None or args.proxies:
        return config
    return replace(config, proxy=f"run/{run_folder('full', seed, args)}/stage-1-proxy")


def scaled(config: EupeConfig, factor: float) -> EupeConfig:
    """The same configuration with every stage `factor` times as long."""
    stages = {name: getattr(config, name) for name in ("stage1", "stage2", "stage3")}
    longer = {name: replace(stage, steps=round(stage.steps * factor)) for name, stage in stages.items()}
    return replace(config, **longer)


def run_folder(arm: str, seed: int, args: argparse.Namespace) -> Path:
    return args.work / f"{arm}-seed{seed}"


def measure(models: dict[str, Encoder | str], args: argparse.Namespace) -> ResultTable:
    """Every model by the same protocols; what was measured before is read back."""
    tables = []
    for name, model in models.items():
        file = args.work / "measured" / f"{name}.json"
        if not file.exists():
            print(f"measuring {name}", flush=True)
            encoder = load_encoder(model) if isinstance(model, str) else model
            atomic_write_text(file, measure_one(name, encoder, args).to_json())
        tables.append(ResultTable.from_json(file.read_text()))
    rows = {name: row for table in tables for name, row in table.rows.items()}
    return ResultTable(tables[0].columns, rows, tables[0].settings)


def measure_one(name: str, encoder: Encoder, args: argparse.Namespace) -> ResultTable:
    """k-NN on small pictures, dense tasks on larger ones; the same sizes for all that take any."""
    kitchen = str(args.data / "rgbd_kitchen")
    dense_data = {"segmentation": str(args.data / "camvid"), "depth": kitchen, "correspondence": kitchen}
    small = evaluate({name: encoder}, ["knn"], {"knn": str(args.data / "caltech101")}, size=args.picture_size)
    dense = evaluate({name: encoder}, list(dense_data), dense_data, size=args.dense_size)
    sizes = {"size of knn": args.picture_size, "size of dense tasks": args.dense_size}
    return ResultTable(
        [*small.columns, *dense.columns[1:]],
        {name: {**dense.rows[name], **small.rows[name]}},
        {**small.settings, **sizes},
    )


def minutes(folder: Path) -> dict[str, float]:
    """Training time of each stage of a run."""
    return {stage: lines[-1]["seconds"] / 60 for stage, lines in read_metrics(folder / "metrics.jsonl").items()}


def spread_table(table: ResultTable, groups: dict[str, list[str]]) -> list[str]:
    """Markdown lines: mean ± standard deviation over the rows of each group."""
    columns = table.shown()
    lines = ["| model | " + " | ".join(f"{c.task} {c.metric.name}" for c in columns) + " | seeds |"]
    lines.append("|---" * (len(columns) + 2) + "|")
    for group, names in groups.items():
        cells = []
        for column in columns:
            values = [value for name in names if (value := table.rows[name].get(column.key)) is not None]
            text = f"{mean(values):.3f}" if values else "–"
            cells.append(text + (f" ± {stdev(values):.3f}" if len(values) > 1 else ""))
        lines.append(f"| {group} | " + " | ".join(cells) + f" | {len(names)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teachers", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/eupe_real"))
    parser.add_argument("--preset", default="laptop")
    parser.add_argument("--student", default="timm/vit_tiny_patch16_dinov3_qkvb")
    parser.add_argument("--proxies", type=Path, help="work folder of another call, whose proxies to use again")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the steps of every stage")
    parser.add_argument("--picture-size", type=int, default=112)
    parser.add_argument("--dense-size", type=int, default=224)
    parser.add_argument("--name", default="eupe_real", help="of the result files in benchmarks/results")
    args = parser.parse_args()

    models: dict[str, Encoder | str] = {
        f"expert {name}": f"onnx/{args.teachers / file}" for name, file in EXPERTS.items()
    }
    groups = {name: [name] for name in models}
    times: dict[str, Any] = {}
    for seed in args.seeds:
        untrained = f"untrained {seed}"
        models[untrained] = new_encoder(args.student, seed, "student").eval()
        groups.setdefault("untrained student", []).append(untrained)
        for arm in args.arms:
            folder = run_folder(arm, seed, args)
            models[f"{arm} {seed}"] = f"run/{distill(arm_config(arm, seed, args), folder)}"
            groups.setdefault(f"student, {arm}", []).append(f"{arm} {seed}")
            times[f"{arm} {seed}"] = minutes(folder)
        if "full" in args.arms and not args.proxies:
            models[f"proxy {seed}"] = f"run/{run_folder('full', seed, args)}/stage-1-proxy"
            groups.setdefault("proxy", []).append(f"proxy {seed}")
    table = measure(models, args)
    table.print()
    lines = spread_table(table, groups)
    print("\n".join(lines))
    # Results speak of the data, not of where somebody keeps them.
    settings = json.loads(table.to_json().replace(str(args.data), "DATA"))["settings"]
    table = ResultTable(table.columns, table.rows, settings)
    record = {
        "machine": machine_info(),
        "settings": {key: str(value) for key, value in vars(args).items() if key not in PLACES},
        "minutes": times,
        "table": json.loads(table.to_json()),
        "summary": lines,
    }
    atomic_write_text(Path(__file__).parent / "results" / f"{args.name}.json", json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
