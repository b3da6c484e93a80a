"""Which runtime is fastest for EUPE's six models? Random weights: speed does not depend on them.

    python benchmarks/runtimes.py --work FOLDER --rehearse     # makes and checks all exports; writes no results
    python benchmarks/runtimes.py --work FOLDER [--models vit_tiny convnext_tiny] [--sizes 256 512]

Every model at 256 and 512 px, one picture at a time, two threads, and the smallest also eight pictures at a time. The
second command takes about a quarter of an hour for all models and wants a machine that does nothing else. It can be run
in parts: what a part measures takes the place of what `results/runtimes.json` held of the same models and sizes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from eyespot.deploy.benchmark import BenchmarkTable, Row, benchmark
from eyespot.deploy.benchmark.plot import write_plot
from eyespot.files import atomic_write_text

MODELS = {
    "vit_tiny": "vit_tiny_patch16_dinov3_qkvb",
    "vit_small": "vit_small_patch16_dinov3_qkvb",
    "vit_base": "vit_base_patch16_dinov3_qkvb",
    "convnext_tiny": "convnext_tiny",
    "convnext_small": "convnext_small",
    "convnext_base": "convnext_base",
}
SPECS = {short: f"timm/{name}?pretrained=false" for short, name in MODELS.items()}
RUNTIMES = (
    "eager",
    "compile",
    "onnx",
    "onnx-int8",
    "openvino",
    "openvino-bf16",
    "openvino-int8",
    "executorch",
    "executorch-int8",
)
IN_BATCHES, BATCH, BATCH_SIZE = "vit_tiny", 8, 256
GOAL = 3.0  # times as fast as eager, by the best runtime, for the smallest ViT at 256 px

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "runtimes.json"
PICTURE = HERE.parent / "docs" / "images" / "runtimes.png"


def place(row: Row) -> tuple[int, tuple[int, int], int]:
    group = row.group
    return list(SPECS.values()).index(group.model), group.size, group.batch


def record(table: BenchmarkTable) -> BenchmarkTable:
    """Puts new results among those that are there, in the order of the models."""
    if RESULTS.is_file():
        table = BenchmarkTable.from_json(RESULTS.read_text(encoding="utf-8")).merged(table)
    table = BenchmarkTable(sorted(table.rows, key=place), table.machine, table.settings)
    atomic_write_text(RESULTS, table.to_json())
    atomic_write_text(RESULTS.with_suffix(".md"), f"# Runtimes\n\n{table.to_markdown()}")
    write_plot(table, PICTURE)
    return table


def say_goal(table: BenchmarkTable) -> None:
    for group in table.groups:
        best = table.fastest(group)
        if (group.model, group.size, group.batch) == (SPECS["vit_tiny"], (256, 256), 1) and best and best.speedup:
            met = "met" if best.speedup >= GOAL else "missed"
            print(f"ViT-T at 256 px: {best.runtime} is {best.speedup:.2f} times as fast as eager; goal {GOAL}: {met}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/runtimes"), help="folder for exports and logs")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--sizes", nargs="+", type=int, default=[256, 512])
    parser.add_argument("--runtimes", nargs="+", default=list(RUNTIMES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--rehearse", action="store_true", help="one run each, to have all exports; no results")
    args = parser.parse_args()
    rounds, runs = (1, 1) if args.rehearse else (args.rounds, 5)
    for model in args.models:
        work = [(size, 1) for size in args.sizes]
        if model == IN_BATCHES and BATCH_SIZE in args.sizes:
            work.append((BATCH_SIZE, BATCH))
        for size, batch in work:
            table = benchmark(
                [SPECS[model]],
                args.runtimes,
                [size],
                args.threads,
                [batch],
                args.work,
                rounds=rounds,
                runs=runs,
                progress=lambda what, done, total: print(what, flush=True),
            )
            table.print()
            if not args.rehearse:
                say_goal(record(table))


if __name__ == "__main__":
    main()
