"""One table for all: who leads where? Experts made by others, students of `eupe_real.py`, an untrained student.

    python benchmarks/universal.py --teachers TEACHERS_FOLDER --data DATA_FOLDER --students NAME=RUN ... --work FOLDER

TEACHERS_FOLDER holds the experts as ONNX files (semantic, segmentation, depth, keypoints), DATA_FOLDER the small real
data sets (caltech101, camvid, rgbd_kitchen). A thin script over `eyespot.evaluate`; run it again to continue.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from eyespot import Encoder
from eyespot.distill.warm_start import new_encoder
from eyespot.evaluate import ResultTable, evaluate, shown_progress
from eyespot.files import atomic_write_text
from eyespot.report import machine_info

EXPERTS = {
    "semantic": "semantic_mobilenetv2_in1k.onnx",
    "segmentation": "segmentation_deeplabv3_voc.onnx",
    "depth": "depth_fastdepth_nyu.onnx",
    "keypoints": "keypoints_alike_n.onnx",
}
UNTRAINED = "timm/vit_tiny_patch16_dinov3_qkvb"
PICTURE_TASKS, DENSE_TASKS = ("knn", "linear", "few_shot"), ("segmentation", "depth", "normals", "correspondence")
LEADS = {
    "semantic": ["knn/accuracy", "linear/accuracy", "few_shot/accuracy"],
    "segmentation": ["segmentation/mIoU"],
    "depth": ["depth/RMSE"],
    "keypoints": ["correspondence/PCK@0.1", "correspondence/PCK@0.05"],
}


def measured(models: dict[str, str | Encoder], args: argparse.Namespace) -> ResultTable:
    """Tasks on whole pictures at one size, dense ones at another; the same for all that take any size."""
    kitchen = str(args.data / "rgbd_kitchen")
    data = dict.fromkeys(PICTURE_TASKS, str(args.data / "caltech101"))
    dense = {"segmentation": f"camvid:{args.data / 'camvid'}", **dict.fromkeys(DENSE_TASKS[1:], kitchen)}
    with shown_progress() as progress:
        small = evaluate(models, PICTURE_TASKS, data, args.picture_size, progress=progress, folder=args.work)
        large = evaluate(models, DENSE_TASKS, dense, args.dense_size, progress=progress, folder=args.work, timing=True)
    keys = [column.key for column in large.columns if column.task == "cost"]
    columns = [*large.columns[: len(keys)], *small.columns[2:], *large.columns[len(keys) :]]
    rows = {name: {**small.rows[name], **large.rows[name]} for name in models}
    return ResultTable(columns, rows, {"sizes": {"pictures": args.picture_size, "dense, cost": args.dense_size}})


def leaders(table: ResultTable) -> dict[str, dict[str, object]]:
    """For each expert's own metrics: its rank among the experts, and who is first."""
    found: dict[str, dict[str, object]] = {}
    metrics = {column.key: column.metric for column in table.columns}
    for expert, keys in LEADS.items():
        for key in keys:
            order = sorted(
                EXPERTS, key=lambda name: table.rows[name][key] or 0.0, reverse=metrics[key].higher_is_better
            )
            found[key] = {"expert": expert, "first of the experts": order[0], "its rank": order.index(expert) + 1}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teachers", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/universal"))
    parser.add_argument("--students", nargs="*", default=[], help="NAME=RUN, e.g. 'student, ViT-T=runs/full-seed0'")
    parser.add_argument("--picture-size", type=int, default=112)
    parser.add_argument("--dense-size", type=int, default=224)
    args = parser.parse_args()
    models: dict[str, str | Encoder] = {name: f"onnx/{args.teachers / file}" for name, file in EXPERTS.items()}
    models["untrained ViT-T"] = new_encoder(UNTRAINED, 0, "student").eval()
    for entry in args.students:
        name, _, run = entry.partition("=")
        models[name] = f"run/{run}"
    table = measured(models, args)
    table.print()
    record = {
        "machine": machine_info(),
        "leaders": leaders(table),
        "table": json.loads(table.to_json()),
        "markdown": table.to_markdown().splitlines(),
    }
    print(json.dumps(record["leaders"], indent=1))
    atomic_write_text(Path(__file__).parent / "results" / "universal.json", json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
