"""The fuzz of tests/fuzz for as long as one likes: is there a file or a word that eyespot answers wrongly?

    python benchmarks/fuzz.py --minutes 60 --seed 1 --output benchmarks/results/fuzz.json
    python benchmarks/fuzz.py --subject labels --again "labels 1 4711"

Cases are drawn in child processes with a limit of memory; a child that says nothing for `--guard` seconds hangs, one
that ends by itself has crashed, and both are failures of the case that it was at. Every failure is printed with the
seed that draws its case again. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import select
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SUBJECTS = {
    "labels": 3000,
    "pictures": 1500,
    "shards": 2000,
    "sets": 200,
    "settings": 150,
    "saved": 150,
    "onnx": 500,
    "trainings": 5,
}
"""Subject -> cases in a round, about ten seconds of each."""
KINDS = ("right", "refused", "skipped", "FAILURE")
MEMORY = 12 << 30
"""Bytes of address space of a child; torch alone reserves several GiB."""


def main() -> None:
    args = arguments()
    sys.path[:0] = [str(ROOT / "tests" / part) for part in ("fuzz", "helpers", ".")]
    if args.child is not None:
        child(args.child, args.seed, args.first, args.count)
        return
    if args.again:
        print(try_again(args.subject[0], args.again))
        return
    counts, failures = run(args)
    found = {name: {kind: counts[name][kind] for kind in KINDS} for name in args.subject}
    print(json.dumps(found, indent=1))
    if args.output:
        write(args, found, failures)
    raise SystemExit(1 if failures else 0)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--subject", nargs="+", choices=SUBJECTS, default=list(SUBJECTS))
    parser.add_argument("--guard", type=float, default=120, help="seconds after which a case counts as hanging")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--again", help="a seed that was printed: tries that case alone, in this process")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


def run(args: argparse.Namespace) -> tuple[dict[str, Counter[str]], list[dict[str, str]]]:
    """Rounds over all subjects until the time is up."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in args.subject}
    failures: list[dict[str, str]] = []
    end, done = time.monotonic() + 60 * args.minutes, Counter[str]()
    while time.monotonic() < end:
        for name in args.subject:
            wanted = done[name] + SUBJECTS[name]
            while done[name] < wanted and time.monotonic() < end:
                for line in answers(name, args, done[name], wanted - done[name]):
                    done[name] += 1
                    counts[name][line["outcome"].partition(":")[0]] += 1
                    if line["outcome"].startswith("FAILURE"):
                        failures.append({"subject": name, **line})
                        print(json.dumps(failures[-1], indent=1), flush=True)
    return counts, failures


def answers(name: str, args: argparse.Namespace, first: int, count: int) -> list[dict[str, str]]:
    """What a child says of `count` cases; of fewer, if it hangs or ends too soon: that is the last answer."""
    words = [sys.executable, __file__, "--child", name, "--seed", args.seed, "--first", first, "--count", count]
    found: list[dict[str, str]] = []
    with subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        reason = ""
        while not reason and len(found) < count:
            if not select.select([process.stdout], [], [], args.guard)[0]:
                process.kill()
                reason = f"FAILURE: nothing for {args.guard:g} s, it hangs"
            elif line := process.stdout.readline():
                found.append(json.loads(line))
            else:
                reason = f"FAILURE: the process ended by itself ({process.wait()})"
    if reason:
        found.append({"seed": seed_of(name, args.seed, first + len(found)), "case": "", "outcome": reason})
    return found


def seed_of(name: str, seed: int, number: int) -> str:
    return f"{name} {seed} {number}"


def child(name: str, seed: int, first: int, count: int) -> None:
    """Tries cases and prints a line of JSON for each."""
    import torch
    from fuzzing import check_case

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    subject = import_module(f"fuzz_{name}").draw
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    out = os.fdopen(os.dup(1), "w", buffering=1)
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        for number in range(first, first + count):
            drawn = seed_of(name, seed, number)
            case, found = check_case(subject, drawn, folder / "case")
            out.write(json.dumps({"seed": drawn, "case": case[:500], "outcome": found[:1500]}) + "\n")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def try_again(name: str, seed: str) -> str:
    """One case in this process: its words and its outcome."""
    from fuzzing import check_case

    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        return "\n".join(check_case(import_module(f"fuzz_{name}").draw, seed, Path(folder) / "case"))


def write(args: argparse.Namespace, found: dict[str, Any], failures: list[dict[str, str]]) -> None:
    from eyespot.files import atomic_write_text
    from eyespot.report import machine_info

    content = {"minutes": args.minutes, "seed": args.seed, "cases": found, "failures": failures}
    atomic_write_text(args.output, json.dumps({**content, "machine": machine_info()}, indent=1) + "\n")
    print(f"written: {args.output}")


if __name__ == "__main__":
    main()
