"""An hour of training under siege: killed, starved of disk, its files damaged, at random moments. Is anything lost?

    python benchmarks/soak.py --minutes 60 --output benchmarks/results/soak.md

Runs `eyespot distill eupe` (the command line, all three stages, a teacher cache, data workers) on real pictures with
real experts and strikes again and again. After every event all that was finished before must still be there, the
message must name the cause, no process may stay behind, and the same command must continue. Beside it the same
configuration runs undisturbed: at the end weights and losses must be equal bit for bit. When a run is finished before
the time is up, a new one begins. Run folder and cache lie on a small file system in memory, mounted for the purpose
(that takes root; without it the disk is not filled). Linux only; one thread per process.

The pictures and experts are looked for in --shared, in EYESPOT_SHARED, or in ../shared beside the checkout; without
them the toybox and untrained teachers stand in.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from eyespot.files import atomic_write_text
from eyespot.report import machine_info
from soak_events import KINDS, Scene
from soak_program import Program
from soak_siege import Siege
from soak_state import State, differences, digest, look

ROOT = Path(__file__).resolve().parent.parent
EXPERTS = ("semantic_mobilenetv2_in1k", "depth_fastdepth_nyu")
PICTURES = (
    "caltech101/train",
    "caltech101/unlabeled",
    "camvid/train/images",
    "coco/train2017/images",
    "coco/val2017/images",
)
KEEP = 2
WORKERS = (2, 2, 1, 0)
"""Data workers of successive starts, over and over; a run may change them."""


def configuration(args: argparse.Namespace) -> dict[str, Any]:
    """What is trained: small enough that much can happen in an hour, with everything that a real run has."""
    shared = args.shared
    stage = {"batch_size": 16, "learning_rate": 1e-3, "warmup_steps": 20, "weight_decay": 0.05, "clip_norm": 3.0}
    stage |= {"adapter_width": 256, "statistics_steps": 5}
    first, second, third = ({**stage, "steps": steps} for steps in args.steps)
    return {
        "teachers": [f"onnx/{shared}/teachers/{name}.onnx" for name in EXPERTS]
        if shared
        else ["timm/test_vit?pretrained=false", "timm/test_convnext?pretrained=false"],
        "data": {
            "sources": [f"{shared}/data/{part}" for part in PICTURES] if shared else ["toybox:400@128"],
            "views": 2,
        },
        "proxy": "timm/resnet18?output_stride=16&channels_last=true",
        "student": {"model": "timm/vit_tiny_patch16_dinov3_qkvb"},
        "max_grid": 7,
        "stage1": {**first, "student_sizes": [96]},
        "stage2": {**second, "student_sizes": [96], "teacher_sizes": [96]},
        "stage3": {**third, "student_sizes": [64, 96, 128], "teacher_sizes": [64, 96, 128], "ema_decay": 0.99},
        # Every step has a line of its own, so that lines are equal wherever a run was interrupted.
        "engine": {
            "accelerator": "cpu",
            "precision": "32-true",
            "log_every": 1,
            "checkpoint_every": args.checkpoint_every,
            "keep_checkpoints": KEEP,
        },
    }


def start(args: argparse.Namespace, place: Path, workers: int, words: Path) -> Program:
    """The command that is disturbed, and its twin in peace."""
    # Behind the watcher in line for the processor, so that a write of a few milliseconds is seen.
    command = [
        "nice",
        "-n",
        "10",
        sys.executable,
        "-m",
        "eyespot",
        "distill",
        "eupe",
        "--config",
        str(args.work / "soak.yaml"),
    ]
    command += ["--cache.folder", str(place / "cache"), "--data.workers", str(workers), "--output", str(place / "run")]
    environment = {**os.environ, "PYTHONPATH": str(args.work / "sources"), "OMP_NUM_THREADS": "1"}
    return Program(command, words, environment)


@contextmanager
def small_disk(place: Path, megabytes: int) -> Iterator[bool]:
    """A file system in memory at `place`; False if mounting is not allowed, then it is a plain folder."""
    place.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(place)]
    mounted = bool(shutil.which("mount")) and subprocess.run(mount, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(place)], check=True)


def sources(work: Path) -> str:
    """A copy of the package, so that edits meanwhile disturb nothing; says which sources these are."""
    shutil.copytree(
        ROOT / "src" / "eyespot", work / "sources" / "eyespot", ignore=shutil.ignore_patterns("__pycache__")
    )
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    described = subprocess.run(git, capture_output=True, text=True).stdout.strip() or "no repository"
    return f"{described}, hash of all source files {digest(work / 'sources')}"


def verdict(siege: Siege, undisturbed: State | None) -> list[str]:
    """Lines on what came of it."""
    faults = [f"{entry.kind} at {entry.where}: {fault}" for entry in siege.log for fault in entry.faults]
    lines = [f"- Events: {sum(entry.kind != 'none' for entry in siege.log)} in {siege.minute:.0f} minutes."]
    lines += [f"- Lost or wrong: {'; '.join(faults) or 'nothing'}."]
    if undisturbed is None:
        return [*lines, "- The undisturbed run is still under way."]
    for number, result in enumerate(siege.results, start=1):
        different = differences(result, undisturbed)
        lines.append(
            f"- Run {number} against the undisturbed one: "
            + ("DIFFERENT: " + ", ".join(different) if different else "equal to the last bit")
            + f" ({len(result.models)} files of weights, {sum(map(len, result.metrics.values()))} lines of losses)."
        )
    return lines


def write_log(siege: Siege, args: argparse.Namespace, facts: dict[str, Any], undisturbed: State | None = None) -> None:
    """The log as Markdown."""
    kinds = Counter(entry.kind for entry in siege.log if entry.kind != "none")
    wrong = Counter(entry.kind for entry in siege.log if entry.faults)
    lines = ["# Training under siege", "", *verdict(siege, undisturbed), "", "| | |", "|---|---|"]
    lines += [f"| {key} | {value} |" for key, value in facts.items()]
    lines += ["", "| event | times | of these with something lost or wrong |", "|---|---|---|"]
    lines += [f"| {kind} | {count} | {wrong[kind]} |" for kind, count in sorted(kinds.items())]
    lines += ["", "| minute | last step | what was done | what the program did and said | verdict |", "|---" * 5 + "|"]
    lines += [
        f"| {entry.minute:.1f} | {entry.where} | {entry.deed} | {entry.answer.replace('|', '/')} | "
        f"{'; '.join(entry.faults) or 'nothing lost'} |"
        for entry in siege.log
    ]
    atomic_write_text(args.output, "\n".join(lines) + "\n")


def besiege(args: argparse.Namespace, facts: dict[str, Any]) -> bool:
    """The whole benchmark in a fresh work folder; whether nothing was lost and all is equal."""
    facts["sources"] = sources(args.work)
    atomic_write_text(args.work / "soak.yaml", yaml.safe_dump(configuration(args)))
    place = args.work / "disk"
    started: list[Program] = []

    def start_again() -> Program:
        number = len(started)
        started.append(start(args, place, WORKERS[number % len(WORKERS)], args.work / "words" / f"{number:03d}.txt"))
        return started[-1]

    def note(siege: Siege) -> None:
        entry = siege.log[-1]
        print(f"{entry.minute:6.1f} {entry.where}: {entry.deed} -> {entry.answer} -> {entry.faults}", flush=True)
        write_log(siege, args, facts)

    with small_disk(place, args.disk) as mounted:
        facts["disk"] = f"{args.disk} MiB in memory" if mounted else "mounting is not allowed here: never filled"
        twin = start(args, args.work / "undisturbed", 1, args.work / "words" / "undisturbed.txt")
        try:
            disk = place if mounted else None
            scene = Scene(place / "run", place / "cache", disk, random.Random(args.seed), start_again)
            kinds = [kind for kind in KINDS if not args.kinds or kind.name in args.kinds]
            siege = Siege(scene, args.minutes, args.gap, KEEP, kinds, note)
            siege.hold_out()
            if twin.wait() != 0:
                raise RuntimeError(f"the undisturbed run failed: {twin.last_words()}")
        finally:
            for program in (twin, *started):
                program.end()
    undisturbed = look(args.work / "undisturbed" / "run", args.work / "undisturbed" / "cache")
    write_log(siege, args, facts, undisturbed)
    print("\n".join(verdict(siege, undisturbed)))
    whole = bool(siege.results) and not any(differences(result, undisturbed) for result in siege.results)
    return whole and not any(entry.faults for entry in siege.log)


def shared_folder(given: Path | None) -> Path | None:
    """Where real pictures and experts are; None if they are not there."""
    folder = given or Path(os.environ.get("EYESPOT_SHARED") or ROOT.parent / "shared")
    return folder.resolve() if (folder / "teachers").is_dir() and (folder / "data").is_dir() else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0, help="how long the training is disturbed")
    parser.add_argument("--gap", type=float, default=45.0, help="mean CPU seconds of training before an event")
    parser.add_argument("--steps", type=int, nargs=3, default=[500, 500, 250], help="of the three stages")
    parser.add_argument("--checkpoint-every", type=int, default=10)
    parser.add_argument("--disk", type=int, default=1536, help="MiB of the small file system")
    parser.add_argument("--shared", type=Path, help="folder with teachers/ and data/")
    parser.add_argument("--seed", type=int, default=0, help="names kinds and moments of the events")
    parser.add_argument("--kinds", nargs="+", choices=[kind.name for kind in KINDS], help="only these kinds of events")
    parser.add_argument("--work", type=Path, help="folder for all files, kept afterwards; a temporary one by default")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "soak.md")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that the disk is unmounted again
    args.shared = shared_folder(args.shared)
    facts: dict[str, Any] = {
        "command": f"`python benchmarks/soak.py --minutes {args.minutes:g} --gap {args.gap:g} --steps "
        f"{' '.join(map(str, args.steps))} --checkpoint-every {args.checkpoint_every} --seed {args.seed}`",
        "data": f"{', '.join(PICTURES)}; experts {', '.join(EXPERTS)}" if args.shared else "toybox, untrained teachers",
        **machine_info(),
    }
    if args.work:
        args.work = args.work.resolve()
        args.work.mkdir(parents=True)
        fine = besiege(args, facts)
    else:
        with tempfile.TemporaryDirectory(prefix="soak-") as name:
            args.work = Path(name)
            fine = besiege(args, facts)
    raise SystemExit(0 if fine else 1)


if __name__ == "__main__":
    main()
