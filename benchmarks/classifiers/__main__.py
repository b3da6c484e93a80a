"""Classifiers on small real pictures: does a teacher help, which method helps most, what do branches give?

    python benchmarks/classifiers teacher   --shared SHARED --work WORK     # once, for all others
    python benchmarks/classifiers methods   --shared SHARED --work WORK     # VanillaKD: KD, DKD, DIST and none
    python benchmarks/classifiers families  --shared SHARED --work WORK     # OFA-KD: a token student of a CNN
    python benchmarks/classifiers branches  --shared SHARED --work WORK     # GhostNetV3: its ingredients
    python benchmarks/classifiers unlabelled --shared SHARED --work WORK    # an ONNX file teaches without labels

SHARED holds teachers/ (the semantic expert as an ONNX file) and data/ (Caltech-101: 71 classes, 26 training and 8
validation pictures each, 112 px). An interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from arms import Bench
from experiments import EXPERIMENTS, train_teacher

RESULTS = Path(__file__).parents[1] / "results"


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks/classifiers")
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
