"""eyespot beside its peers: speed and quality, each in its own process and environment. See docs/peers.md.

    python benchmarks/peers setup --envs ENVS
    python benchmarks/peers speed --envs ENVS
    python benchmarks/peers quality --envs ENVS [--data DATA]

Modules of this folder import each other by their plain names, since parts of it run where eyespot is not installed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import environments
import material
from quality import Bench, quality
from speed import CONTESTS, speed

RESULTS = Path(__file__).parents[1] / "results"


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks/peers")
    verbs = parser.add_subparsers(dest="verb", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--envs", type=Path, required=True, help="folder of the peers' environments")
    verbs.add_parser("setup", parents=[common], help="make the environments")
    timing = verbs.add_parser("speed", parents=[common], help="CPU and wall time per step")
    timing.add_argument("--pictures", type=Path, help="folder of JPEG files; made if not given")
    timing.add_argument("--contests", nargs="+", choices=CONTESTS, default=list(CONTESTS))
    timing.add_argument("--rounds", type=float, default=1.0, help="factor on the number of rounds")
    timing.add_argument("--output", type=Path, default=RESULTS / "peers_speed.json")
    worth = verbs.add_parser("quality", parents=[common], help="what the students are worth")
    worth.add_argument("--data", type=Path, help="folder of real data sets; without it, the toybox")
    worth.add_argument("--work", type=Path, default=Path("runs/peers_quality"))
    worth.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    worth.add_argument("--steps", type=int, default=200)
    worth.add_argument("--teacher-steps", type=int, default=600)
    worth.add_argument("--batch-size", type=int, default=64)
    worth.add_argument("--output", type=Path, default=RESULTS / "peers_quality.json")
    args = parser.parse_args()
    if args.verb == "setup":
        environments.setup(args.envs)
    elif args.verb == "quality":
        work = args.work.resolve()
        what = material.real(args.data, work) if args.data else material.toybox(work)
        bench = Bench(args.envs, work, what, args.steps, args.batch_size)
        quality(bench, args.teacher_steps, args.seeds, args.output)
    else:
        speed(args.envs, args.pictures, args.contests, args.rounds, args.output)


if __name__ == "__main__":
    main()
