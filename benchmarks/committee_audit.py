"""Does the audit foresee what a training shows? Four real experts, audited, then left out one by one of EUPE runs.

    python benchmarks/committee_audit.py --shared SHARED [--work FOLDER] [--quick]

SHARED holds teachers/ (four experts as ONNX files) and data/ (small real data sets). First `eyespot audit`, then the
recipe EUPE with the presets laptop and direct (one stage, no proxy): the whole committee, and the committee without
each expert, for every seed. Each student is measured at every expert's home task: k-NN on Caltech-101 (semantic),
linear segmentation on CamVid, linear depth and matching on kitchen frames (depth, keypoints). The table puts the
audit's interference of u on t beside what leaving u out did to t's home task. Run it again to continue where it
stopped; --quick does a few steps of everything, to see that it works.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

from scipy.stats import spearmanr

from eyespot import load_encoder
from eyespot.audit import AuditConfig, CommitteeAudit, Interference, audit
from eyespot.audit.config import VIEW
from eyespot.audit.markdown import markdown_of, share
from eyespot.audit.result import judge
from eyespot.config import build
from eyespot.data import DataConfig
from eyespot.distill.warm_start import new_encoder
from eyespot.engine.config import EngineConfig
from eyespot.evaluate import ResultTable, evaluate
from eyespot.files import atomic_write_text
from eyespot.recipes.eupe import EupeConfig, distill
from eyespot.recipes.presets import read_settings
from eyespot.report import machine_info

ROOT = Path(__file__).resolve().parent.parent
EXPERTS = {
    "semantic": "semantic_mobilenetv2_in1k.onnx",
    "segmentation": "segmentation_deeplabv3_voc.onnx",
    "depth": "depth_fastdepth_nyu.onnx",
    "keypoints": "keypoints_alike_n.onnx",
}
HOME = {
    "semantic": "knn/accuracy",
    "segmentation": "segmentation/mIoU",
    "depth": "depth/RMSE",
    "keypoints": "correspondence/PCK@0.1",
}
PICTURES = (
    "caltech101/train",
    "caltech101/unlabeled",
    "tiny_imagenet/train",
    "camvid/train/images",
    "coco/train2017/images",
    "coco/val2017/images",
)
STUDENT = "timm/vit_tiny_patch16_dinov3_qkvb"
WHOLE = "all"


class Clock:
    """Minutes of every part that was computed, kept in a file, so that a continued benchmark knows its whole cost."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.minutes: dict[str, float] = json.loads(file.read_text()) if file.exists() else {}

    def run(self, part: str, work: Callable[[], Any]) -> Any:
        start = time.monotonic()
        made = work()
        # A part that was there already is read back in no time and keeps the minutes it once took.
        self.minutes[part] = max(self.minutes.get(part, 0.0), (time.monotonic() - start) / 60)
        atomic_write_text(self.file, json.dumps(self.minutes, indent=1))
        print(f"{part}: {self.minutes[part]:.1f} min", flush=True)
        return made


def expert_specs(args: argparse.Namespace) -> dict[str, str]:
    """The experts, through OpenVINO in bfloat16 where it is installed: two to four times as fast."""
    runtime, options = args.runtime, ""
    if runtime == "auto":
        runtime = "openvino" if importlib.util.find_spec("openvino") else "onnx"
    if runtime == "openvino":
        options = "?precision=bf16"
    return {name: f"{runtime}/{args.shared / 'teachers' / file}{options}" for name, file in EXPERTS.items()}


def sources(args: argparse.Namespace) -> list[str]:
    return [str(args.shared / "data" / part) for part in PICTURES]


def audited(args: argparse.Namespace) -> CommitteeAudit:
    """The audit of all experts."""
    config = AuditConfig(
        student=STUDENT,
        steps=args.audit_steps,
        seeds=tuple(args.seeds),
        held_out=args.held_out,
        engine=EngineConfig(tensorboard=False),
    )
    teachers = {name: load_encoder(spec) for name, spec in expert_specs(args).items()}
    data = DataConfig(sources=sources(args), view=VIEW)
    return audit(teachers, data, config, args.work / "audit", say=lambda line: print(line, flush=True))


def trained(left_out: str, seed: int, args: argparse.Namespace) -> Path:
    """Folder of the recipe's student of all experts but one (or of all)."""
    settings = read_settings("eupe", ["laptop", "direct"])
    settings["teachers"] = [spec for name, spec in expert_specs(args).items() if name != left_out]
    settings["data"]["sources"] = sources(args)  # one order and one set of views for all seeds: features are kept once
    settings["student"]["model"] = STUDENT
    settings |= {"seed": seed, "steps": args.run_steps, "cache": {"folder": str(args.work / "features")}}
    settings["engine"]["tensorboard"] = False
    return distill(build(EupeConfig, settings, "laptop + direct"), args.work / run_name(left_out, seed))


def run_name(left_out: str, seed: int) -> str:
    return f"{WHOLE if left_out == WHOLE else f'without-{left_out}'}-seed{seed}"


def measured(name: str, model: Any, args: argparse.Namespace) -> dict[str, float | None]:
    """A model at every expert's home task; read back if it was measured before."""
    file = args.work / "measured" / f"{name}.json"
    if not file.exists():
        data, limit = args.shared / "data", args.limit
        kitchen = str(data / "rgbd_kitchen")
        dense = {"segmentation": str(data / "camvid"), "depth": kitchen, "correspondence": kitchen}
        models = {name: model}
        tables = [
            evaluate(models, ["knn"], {"knn": str(data / "caltech101")}, size=args.picture_size, limit=limit),
            evaluate(models, list(dense), dense, size=args.dense_size, limit=limit),
        ]
        row = {key: value for table in tables for key, value in table.rows[name].items()}
        columns = {column.key: column for table in tables for column in table.columns}
        atomic_write_text(file, ResultTable(list(columns.values()), {name: row}).to_json())
    return ResultTable.from_json(file.read_text()).rows[name]


def harm(rows: dict[str, dict[str, float | None]], on: str, of: str, seeds: list[int]) -> Interference:
    """How much worse t's home task is because of u, a share of what it is without u, per seed; positive is harm."""
    key, values = HOME[on], []
    for seed in seeds:
        whole, without = (rows[run_name(left_out, seed)][key] for left_out in (WHOLE, of))
        assert whole is not None and without is not None
        change = (whole - without) / without
        values.append(change if key == "depth/RMSE" else -change)
    return Interference(tuple(values))


def compared(found: CommitteeAudit, rows: dict[str, dict[str, float | None]], seeds: list[int]) -> dict[str, Any]:
    """Audit beside run, for every ordered pair and every two experts."""
    ordered = []
    for on, of in itertools.permutations(EXPERTS, 2):
        ordered.append({"on": on, "of": of, "audit": found.interference(on, of), "run": harm(rows, on, of, seeds)})
    lines = ["| on | because of | audit: loss | run: home task, worse by | same sign |", "|---|---|---:|---:|---|"]
    for entry in ordered:
        same = (entry["audit"].mean > 0) == (entry["run"].mean > 0)
        lines.append(
            f"| {entry['on']} | {entry['of']} | {share(entry['audit'])} | {share(entry['run'])} | "
            f"{'yes' if same else 'no'} |"
        )
    verdicts = ["| experts | audit | run | agree |", "|---|---|---|---|"]
    agreements = []
    for verdict in found.verdicts:
        both = [harm(rows, *pair, seeds).values for pair in itertools.permutations((verdict.first, verdict.second))]
        mutual = Interference(tuple(mean(pair) for pair in zip(*both, strict=True)))
        word = judge(mutual.mean, mutual.spread, found.tolerance)
        agreements.append(word == verdict.word)
        foreseen = share(found.mutual(verdict.first, verdict.second))
        verdicts.append(
            f"| {verdict.first}, {verdict.second} | {verdict.word} ({foreseen}) | {word} ({share(mutual)}) | "
            f"{'yes' if agreements[-1] else 'no'} |"
        )
    rank = spearmanr([entry["audit"].mean for entry in ordered], [entry["run"].mean for entry in ordered])
    signs = sum((entry["audit"].mean > 0) == (entry["run"].mean > 0) for entry in ordered)
    return {
        "pairs": [{**entry, "audit": entry["audit"].values, "run": entry["run"].values} for entry in ordered],
        "same_sign": f"{signs} of {len(ordered)}",
        "verdicts_agree": f"{sum(agreements)} of {len(agreements)}",
        "spearman": {"rho": float(rank.statistic), "p": float(rank.pvalue)},
        "tables": [*verdicts, "", *lines],
    }


def home_table(rows: dict[str, dict[str, float | None]], seeds: list[int]) -> list[str]:
    """Every student at every home task, mean over seeds."""
    lines = ["| model | " + " | ".join(HOME.values()) + " |", "|---" + "|---:" * len(HOME) + "|"]
    groups = {f"expert {name}": [f"expert {name}"] for name in EXPERTS}
    groups |= {"untrained student": [f"untrained {seed}" for seed in seeds]}
    for left_out in (WHOLE, *EXPERTS):
        groups[run_name(left_out, 0).removesuffix("-seed0")] = [run_name(left_out, seed) for seed in seeds]
    for name, members in groups.items():
        cells = [f"{mean(rows[member][key] or 0.0 for member in members):.3f}" for key in HOME.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    args = parsed()
    students = len(args.seeds) * (1 + len(EXPERTS))
    print(
        f"audit: {len(args.seeds)} seeds x 9 students x {args.audit_steps} steps of 16 pictures; runs: {students} "
        f"students x {args.run_steps} steps of 32 pictures, experts' features kept (about 5 GB); then "
        f"{students + len(EXPERTS) + len(args.seeds)} models are measured",
        flush=True,
    )
    clock = Clock(args.work / "minutes.json")
    found = clock.run("audit", lambda: audited(args))
    print(markdown_of(found), flush=True)
    models: dict[str, Any] = {f"expert {name}": spec for name, spec in expert_specs(args).items()}
    for seed, left_out in itertools.product(args.seeds, (WHOLE, *EXPERTS)):
        folder = clock.run(f"train {run_name(left_out, seed)}", lambda: trained(left_out, seed, args))  # noqa: B023
        models[run_name(left_out, seed)] = f"run/{folder}"
    for seed in args.seeds:
        models[f"untrained {seed}"] = new_encoder(STUDENT, seed, "student").eval()
    rows = {name: clock.run(f"measure {name}", lambda: measured(name, model, args)) for name, model in models.items()}  # noqa: B023
    result = compared(found, rows, args.seeds)
    lines = [*home_table(rows, args.seeds), "", *result.pop("tables")]
    lines += ["", f"Same sign: {result['same_sign']}; verdicts agree: {result['verdicts_agree']}; "]
    lines[-1] += f"rank correlation {result['spearman']['rho']:.2f} (p {result['spearman']['p']:.2f}); "
    lines[-1] += f"cost: {sum(clock.minutes.values()):.0f} min."
    print("\n".join(lines))
    write(found, rows, result, lines, clock, args)


def write(
    found: CommitteeAudit,
    rows: dict[str, dict[str, float | None]],
    result: dict[str, Any],
    lines: list[str],
    clock: Clock,
    args: argparse.Namespace,
) -> None:
    """The record, without paths of this machine."""
    settings = {key: value for key, value in vars(args).items() if key not in ("shared", "work", "output")}
    facts = json.loads(found.to_json())
    facts["settings"] |= {"teachers": EXPERTS, "data": list(PICTURES)}
    record = {
        "machine": machine_info(),
        "settings": settings,
        "minutes": clock.minutes,
        **result,
        "rows": rows,
        "audit": facts,
    }
    atomic_write_text(args.output / "committee_audit.json", json.dumps(record, indent=1) + "\n")
    text = "\n".join(["# Does the audit foresee what a training shows?", "", *lines, "", markdown_of(found)])
    atomic_write_text(args.output / "committee_audit.md", text)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = Path(os.environ.get("EYESPOT_SHARED", ROOT.parent / "shared"))
    parser.add_argument("--shared", type=Path, default=shared)
    parser.add_argument("--work", type=Path, default=Path("runs/committee_audit"))
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--runtime", choices=("auto", "openvino", "onnx"), default="auto")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--audit-steps", type=int, default=300)
    parser.add_argument("--held-out", type=int, default=256)
    parser.add_argument("--run-steps", type=int, default=900)
    parser.add_argument("--picture-size", type=int, default=112)
    parser.add_argument("--dense-size", type=int, default=224)
    parser.add_argument("--limit", type=int, help="at most so many pictures per split in the measurements")
    parser.add_argument("--quick", action="store_true", help="a few steps of everything; its numbers mean nothing")
    args = parser.parse_args()
    if args.quick:
        args.audit_steps, args.run_steps, args.held_out, args.limit, args.seeds = 3, 3, 16, 24, [0, 1]
        args.output = args.work
    return args


if __name__ == "__main__":
    main()
