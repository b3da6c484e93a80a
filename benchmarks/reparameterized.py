"""What does re-parameterisation save? A student as it trains, fused, and fused in other runtimes, side by side.

    python benchmarks/reparameterized.py --work FOLDER [--models ghostnetv3_100 mobilenetv2_100] [--rounds 20]

One picture at a time. All forms of a model take turns, each in a process of its own as in `eyespot benchmark`, and
ratios to the training form are taken within rounds. Random weights: speed does not depend on them. Writes
results/reparameterized.json and .md, in which the models of this call take the place of what was there; --output names
another place, for rehearsals.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from eyespot.deploy.benchmark import RUNTIMES, BenchmarkTable, Row
from eyespot.deploy.benchmark.contest import TimingPlan, compete
from eyespot.deploy.benchmark.energy import POWERCAP
from eyespot.deploy.benchmark.exports import export_folder, prepare
from eyespot.deploy.benchmark.loading import Target
from eyespot.deploy.benchmark.runtimes import BASELINE, library_versions
from eyespot.deploy.benchmark.timed_models import read_timed_model
from eyespot.files import atomic_write_text
from eyespot.report import machine_info

SHUFFLENET = "python/eyespot.encoders.shufflenet:shufflenet_v2"
MODELS = {
    "ghostnetv3_050": "timm/ghostnetv3_050?pretrained=false",
    "ghostnetv3_100": "timm/ghostnetv3_100?pretrained=false",
    "ghostnetv3_130": "timm/ghostnetv3_130?pretrained=false",
    "mobilenetv2_100": "timm/mobilenetv2_100?pretrained=false&branches=3",
    "shufflenetv2_100": f"{SHUFFLENET}?width=1.0&branches=3",
}
FUSED_IN = ("eager", "onnx", "openvino")
RESULTS = Path(__file__).parent / "results" / "reparameterized"


def contest(model: str, size: int, plan: TimingPlan, say: Callable[[str], None]) -> list[Row]:
    """The training form in eager torch, called `eager`, and the fused form in several runtimes, `fused, NAME`."""
    group = read_timed_model(model, [size], [1]).groups[0]
    targets = [Target(model, RUNTIMES[BASELINE], 1, group.size)]
    timed = read_timed_model(f"{model}&fused=true", [size], [1])
    skipped = []
    for runtime in (RUNTIMES[name] for name in FUSED_IN):
        named = replace(runtime, name=f"fused, {runtime.name}")
        if runtime.missing:
            skipped.append(Row(group, named.name, "skipped", runtime.missing, runtime.precision))
            continue
        folder = export_folder(plan.folder / "exports", timed.weights, runtime, timed.groups[0], plan.threads)
        if folder:
            say(f"export for {runtime.name}")
        file = prepare(timed.groups[0], runtime, folder) if folder else None
        targets.append(Target(timed.model, named, 1, group.size, file))
    return [*compete(group, targets, plan, peak=dict, say=say).values(), *skipped]


def record(table: BenchmarkTable, output: Path) -> None:
    """Puts new results among those that are there."""
    file = output.with_suffix(".json")
    if file.is_file():
        table = BenchmarkTable.from_json(file.read_text(encoding="utf-8")).merged(table)
    atomic_write_text(file, table.to_json())
    head = "# Training form and run-time form\n\n`eager` is the form that trains; speed-ups are over it.\n\n"
    atomic_write_text(output.with_suffix(".md"), head + table.to_markdown())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/reparameterized"), help="folder for exports and logs")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--size", type=int, default=224, help="pixels a side")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--runs", type=int, default=5, help="most timed runs in a round")
    parser.add_argument("--output", type=Path, default=RESULTS, help="where to, without suffix")
    args = parser.parse_args()
    plan = TimingPlan(args.threads, args.rounds, args.runs, 0.3, args.work, Path(POWERCAP))
    settings = {"threads": args.threads, "rounds": args.rounds, "runs": args.runs, "turn_seconds": plan.turn_seconds}
    machine = {**machine_info(), "libraries": library_versions()}
    for name in args.models:
        rows = contest(MODELS[name], args.size, plan, lambda what, name=name: print(f"{name}: {what}", flush=True))
        table = BenchmarkTable(rows, machine, settings)
        table.print()
        record(table, args.output)


if __name__ == "__main__":
    main()
