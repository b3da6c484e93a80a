"""The command line of `benchmarks/classifiers.py`."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from arms import Bench
from experiments import EXPERIMENTS, train_teacher

RESULTS = Path(__file__).parents[1] / "results"


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks/classifiers.py")
    parser.add_argument("experiment", choices=["teacher", *EXPERIMENTS])
    parser.add_argument("--shared", type=Path, required=True, help="folder with teachers/ and data/")
    parser.add_argument("--work", type=Path, required=True, help="folder for runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the number of steps")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, help="JSON file; benchmarks/results/classifiers_EXPERIMENT.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    bench = Bench(args.shared.resolve(), args.work.resolve(), tuple(args.seeds), args.scale)
    if args.experiment == "teacher":
        print(train_teacher(bench))
    else:
        output = args.output or RESULTS / f"classifiers_{args.experiment}.json"
        bench.publish(EXPERIMENTS[args.experiment](bench), output)


if __name__ == "__main__":
    main()
