"""Speed: every loop does the same steps in its own process, all take turns, and ratios are taken within a round."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Literal

import numpy as np
from environments import all_versions
from job import Job, Losses
from pictures import picture_files
from PIL import Image
from running import Runner
from stopwatch import WARM_STEPS

from eyespot.files import atomic_write_text
from eyespot.report import machine_info

DIFFERENT_FILES = 256
FEWEST_FILES = 1024  # LightlyTrain wants more than its queue holds


@dataclass(frozen=True)
class Arm:
    """Somebody's loop, and the losses it computes; the loop by hand with the same losses is its floor."""

    who: str
    loop: str
    losses: Losses
    needs_files: bool = False

    @property
    def name(self) -> str:
        return f"{self.who}, {self.losses}"


FLOOR = "by hand"
ARMS = (
    Arm(FLOOR, "by_hand", "pooled"),
    Arm("timm", "timm_task", "pooled"),
    Arm("torchdistill", "torchdistill_box", "pooled"),
    Arm("eyespot", "ours", "pooled"),
    Arm(FLOOR, "by_hand", "similarity"),
    Arm("LightlyTrain", "lightly_v3", "similarity", needs_files=True),
    Arm("eyespot", "ours", "similarity"),
    Arm(FLOOR, "by_hand", "patches"),
    Arm("eyespot", "ours", "patches"),
)


@dataclass(frozen=True)
class Contest:
    """One setting in which the arms meet.

    Attributes:
        student, teacher: timm names; random weights.
        batch_size, size, precision: as in `Job`.
        views: how JPEG files are augmented, see `Job`; "" for pictures in memory.
        turn: steps per turn.
        rounds: turns of each arm.
    """

    student: str
    teacher: str
    batch_size: int
    size: int
    precision: Literal["32-true", "bf16-mixed"]
    views: Literal["crop", "colour", ""]
    turn: int
    rounds: int


SMALL: dict[str, Any] = {
    "student": "test_vit",
    "teacher": "test_vit2",
    "batch_size": 16,
    "size": 160,
    "turn": 8,
    "rounds": 10,
}
TINY: dict[str, Any] = {
    "student": "vit_tiny_patch16_dinov3_qkvb",
    "teacher": "vit_small_patch16_dinov3_qkvb",
    "batch_size": 16,
    "size": 112,
    "turn": 2,
    "rounds": 6,
}
CONTESTS = {
    "small, in memory": Contest(**SMALL, precision="32-true", views=""),
    "small, files": Contest(**SMALL, precision="32-true", views="crop"),
    "small, files and colours": Contest(**SMALL, precision="32-true", views="colour"),
    "ViT-T, files and colours": Contest(**TINY, precision="32-true", views="colour"),
    "ViT-T, files and colours, bf16": Contest(**TINY, precision="bf16-mixed", views="colour"),
}


def speed(envs: Path, pictures: Path | None, names: Sequence[str], rounds: float, output: Path) -> None:
    """Runs the contests and writes `output` (.json) and the table beside it (.md).

    Args:
        envs: the peers' environments.
        pictures: folder of JPEG files to read; None makes some.
        names: keys of `CONTESTS`.
        rounds: factor on the rounds of each contest.
        output: result file.
    """
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        for contest in names:
            print(contest, flush=True)
            results[contest] = run_contest(CONTESTS[contest], envs, pictures, rounds, Path(name) / contest)
            print("\n".join(table({contest: results[contest]})), flush=True)
    record = {
        "machine": machine_info(),
        "load": [round(value, 2) for value in os.getloadavg()],
        "versions": all_versions(envs),
        "pictures": "JPEG files made for this, 320x240" if pictures is None else "JPEG files of a folder",
        "warm_steps_per_turn": WARM_STEPS,
        "contests": results,
    }
    atomic_write_text(output, json.dumps(record, indent=1) + "\n")
    atomic_write_text(output.with_suffix(".md"), "\n".join(table(results)) + "\n")


def run_contest(contest: Contest, envs: Path, pictures: Path | None, factor: float, folder: Path) -> dict[str, Any]:
    """All arms that can take part, in turns."""
    rounds = max(2, round(contest.rounds * factor))
    steps = rounds * (contest.turn + WARM_STEPS) + 1
    arms = [arm for arm in ARMS if contest.views or not arm.needs_files]
    files = folder / "pictures"
    link_pictures(pictures, files, max(FEWEST_FILES, steps * contest.batch_size) if contest.views else 0)
    jobs = {
        arm.name: Job(
            loop=arm.loop,
            losses=arm.losses,
            student=(contest.student, ""),
            teachers=((contest.teacher, ""),),
            size=contest.size,
            batch_size=contest.batch_size,
            steps=steps,
            learning_rate=1e-4,
            precision=contest.precision,
            pictures=str(files) if contest.views else "",
            views=contest.views or "crop",
            folder=str(folder / arm.name),
            timed=True,
        )
        for arm in arms
    }
    turns = take_turns(jobs, envs, contest.turn, rounds)
    return {"settings": asdict(contest) | {"rounds": rounds}, "arms": {arm.name: judged(arm, turns) for arm in arms}}


def take_turns(jobs: dict[str, Job], envs: Path, turn: int, rounds: int) -> dict[str, list[dict[str, float]]]:
    """Seconds per step of every job in every round."""
    runners = {}
    try:
        for name, job in jobs.items():
            runners[name] = Runner(job, envs)
        for runner in runners.values():
            runner.wait_until_ready()
        measured: dict[str, list[dict[str, float]]] = {name: [] for name in jobs}
        for _ in range(rounds):
            for name, runner in runners.items():
                measured[name].append(runner.measure(turn))
        return measured
    finally:
        for runner in runners.values():
            runner.stop()


def judged(arm: Arm, turns: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Medians of an arm, and its ratio to the floor of the same round."""
    own, floor = turns[arm.name], turns[f"{FLOOR}, {arm.losses}"]
    result: dict[str, Any] = {}
    for clock in ("cpu", "wall"):
        ratios = [mine[clock] / theirs[clock] for mine, theirs in zip(own, floor, strict=True)]
        result |= {
            f"{clock}_ms_per_step": round(median(turn[clock] for turn in own) * 1000, 2),
            f"{clock}_ratio": round(median(ratios), 3),
            f"{clock}_ratio_quartiles": [round(value, 3) for value in quantiles(ratios, n=4)[::2]],
        }
    return result


def link_pictures(source: Path | None, folder: Path, count: int) -> None:
    """`count` JPEG files in a folder: links to some that are there, or to `DIFFERENT_FILES` made for this."""
    if not count:
        return
    folder.mkdir(parents=True)
    originals = picture_files(source) if source else make_pictures(folder.parent / "made", DIFFERENT_FILES)
    for number in range(count):
        (folder / f"{number:06}.jpg").symlink_to(originals[number % len(originals)].resolve())


def make_pictures(folder: Path, count: int) -> list[Path]:
    """Smooth noise with some grain, as JPEG files of 320 x 240."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(generator.integers(0, 256, (15, 20, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((320, 240), Image.Resampling.BICUBIC), dtype=np.float32)
        grainy = (smooth + generator.normal(0, 6, smooth.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(grainy).save(folder / f"{number:04}.jpg", quality=90)
    return picture_files(folder)


def table(results: dict[str, Any]) -> list[str]:
    """Markdown, one row per arm and contest."""
    lines = [
        "| setting | losses | loop | CPU ms/step | to the loop by hand, CPU (quartiles) | wall ms/step | wall |",
        "|---|---|---|---|---|---|---|",
    ]
    for contest, result in results.items():
        for name, row in result["arms"].items():
            who, losses = name.split(", ")
            lines.append(f"| {contest} | {losses} | {who} | {' | '.join(cells(row))} |")
    return lines


def cells(row: dict[str, Any]) -> Iterable[str]:
    """What the table says of one arm."""
    low, high = row["cpu_ratio_quartiles"]
    yield f"{row['cpu_ms_per_step']:.1f}"
    yield f"{row['cpu_ratio']:.3f} ({low:.3f} to {high:.3f})"
    yield f"{row['wall_ms_per_step']:.1f}"
    yield f"{row['wall_ratio']:.3f}"
