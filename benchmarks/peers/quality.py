"""Quality: the same student, teachers, pictures and steps; who passes on most of what the teachers know?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from environments import all_versions
from job import Job, Losses, build
from material import Material
from measures import measure
from ours import spec
from running import run
from safetensors.torch import save_file
from teachers import train_objects, train_scenes

from eyespot import Encoder, load_encoder
from eyespot.data.sets import open_image_folder, open_mask_folder
from eyespot.files import atomic_write_text
from eyespot.report import machine_info

STUDENT = "test_vit"
PROXY = "test_vit4"
TEACHERS = {"objects": "test_resnet", "scenes": "test_vit2"}
SIZE, DENSE_SIZE = 96, 160
RATES = {"pooled": 2e-3, "similarity": 2e-3, "patches": 2e-3}
QUEUE = 1024
UNTRAINED, PROXY_ARM = "untrained", "the proxy itself"


@dataclass(frozen=True)
class Arm:
    """A way to train the student."""

    name: str
    loop: str
    losses: Losses
    teachers: tuple[str, ...]
    standardizer: str = "channel"
    student: str = STUDENT


BOTH = ("objects", "scenes")
ARMS = (
    *(Arm(f"timm, {teacher}", "timm_task", "pooled", (teacher,)) for teacher in BOTH),
    *(Arm(f"torchdistill, {teacher}", "torchdistill_box", "pooled", (teacher,)) for teacher in BOTH),
    *(Arm(f"LightlyTrain, {teacher}", "lightly_v3", "similarity", (teacher,)) for teacher in BOTH),
    *(Arm(f"eyespot, {teacher}", "ours", "patches", (teacher,)) for teacher in BOTH),
    Arm("eyespot, both", "ours", "patches", BOTH),
    Arm("eyespot, both, no standardization", "ours", "patches", BOTH, standardizer="none"),
    Arm(PROXY_ARM, "ours", "patches", BOTH, student=PROXY),
    Arm("eyespot, both through a proxy", "ours", "patches", ("proxy",)),
)


@dataclass(frozen=True)
class Bench:
    """Everything that stays the same over the arms."""

    envs: Path
    work: Path
    material: Material
    steps: int
    batch_size: int

    def folder(self, arm: str, seed: int) -> Path:
        """Where an arm's training lies."""
        return self.work / f"{arm.replace(', ', '-').replace(' ', '_')}-{seed}"

    def weights(self, arm: str, seed: int) -> Path:
        """The student that an arm makes."""
        return self.folder(arm, seed) / "student.safetensors"


def quality(bench: Bench, teacher_steps: int, seeds: Sequence[int], output: Path) -> None:
    """Trains, measures and writes `output` (.json) and the table beside it (.md); goes on where it was interrupted."""
    torch.set_num_threads(1)
    bench.work.mkdir(parents=True, exist_ok=True)
    skill = train_teachers(bench, teacher_steps)
    rows: dict[str, list[dict[str, float]]] = {}
    for name, teacher in TEACHERS.items():
        rows[f"teacher {name}"] = [measured(bench, f"teacher {name}", 0, teacher, bench.work / f"{name}.safetensors")]
    for seed in seeds:
        make_start(bench, UNTRAINED, STUDENT, seed)
        rows.setdefault(UNTRAINED, []).append(measured(bench, UNTRAINED, seed, STUDENT, bench.weights(UNTRAINED, seed)))
        for arm in ARMS:
            seconds = trained(bench, arm, seed)
            result = measured(bench, arm.name, seed, arm.student, bench.weights(arm.name, seed))
            rows.setdefault(arm.name, []).append({**result, "cpu seconds": seconds["cpu"]})
            print(arm.name, seed, json.dumps(rows[arm.name][-1]), flush=True)
    record = {
        "machine": machine_info(),
        "versions": all_versions(bench.envs),
        "settings": settings(bench, teacher_steps, seeds),
        "teachers": skill,
        "rows": rows,
    }
    atomic_write_text(output, json.dumps(record, indent=1) + "\n")
    lines = "\n".join(table(rows))
    atomic_write_text(output.with_suffix(".md"), lines + "\n")
    print(lines)


def settings(bench: Bench, teacher_steps: int, seeds: Sequence[int]) -> dict[str, Any]:
    """What the arms share."""
    return {
        "material": bench.material.name,
        "student": STUDENT,
        "proxy": PROXY,
        "teachers": TEACHERS,
        "size": SIZE,
        "dense probe size": DENSE_SIZE,
        "steps": bench.steps,
        "batch_size": bench.batch_size,
        "learning rates": RATES,
        "teacher steps": teacher_steps,
        "seeds": list(seeds),
    }


def train_teachers(bench: Bench, steps: int) -> dict[str, float]:
    """Both teachers, unless they are there; their accuracies on held-out pictures."""
    known = bench.work / "teachers.json"
    if not known.exists():
        objects = open_image_folder(bench.material.objects)
        scenes = open_mask_folder(bench.material.scenes)
        files = {name: bench.work / f"{name}.safetensors" for name in TEACHERS}
        skill = {
            "objects": train_objects(TEACHERS["objects"], objects, SIZE, steps, files["objects"]),
            "scenes": train_scenes(TEACHERS["scenes"], scenes, SIZE, steps, files["scenes"]),
        }
        atomic_write_text(known, json.dumps(skill))
    read: dict[str, float] = json.loads(known.read_text())
    print("teachers", read, flush=True)
    return read


def make_start(bench: Bench, name: str, model: str, seed: int) -> Path:
    """Random weights that every arm starts from."""
    file = bench.weights(name, seed)
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(seed)
        save_file({key: value.contiguous() for key, value in build(model, "").state_dict().items()}, file)
    return file


def trained(bench: Bench, arm: Arm, seed: int) -> dict[str, float]:
    """Trains an arm unless that is done; "cpu" and "wall" seconds."""
    output = bench.weights(arm.name, seed)
    seconds = output.with_suffix(".json")
    if seconds.exists():
        found: dict[str, float] = json.loads(seconds.read_text())
        return found
    known = {name: (model, str(bench.work / f"{name}.safetensors")) for name, model in TEACHERS.items()}
    known["proxy"] = (PROXY, str(bench.weights(PROXY_ARM, seed)))
    start = UNTRAINED if arm.student == STUDENT else f"{UNTRAINED} proxy"
    job = Job(
        loop=arm.loop,
        losses=arm.losses,
        student=(arm.student, str(make_start(bench, start, arm.student, seed))),
        teachers=tuple(known[name] for name in arm.teachers),
        size=SIZE,
        batch_size=bench.batch_size,
        steps=bench.steps,
        learning_rate=RATES[arm.losses],
        pictures=str(bench.material.pictures),
        folder=str(bench.folder(arm.name, seed)),
        output=str(output),
        seed=seed,
        queue=QUEUE,
        standardizer=arm.standardizer,
    )
    return run(job, bench.envs)


def measured(bench: Bench, name: str, seed: int, model: str, weights: Path) -> dict[str, float]:
    """`measure` of a model, unless that is done."""
    file = bench.work / "measured" / f"{name}-{seed}.json"
    if not file.exists():
        data = open_image_folder(bench.material.objects)
        teachers = {key: encoder(other, bench.work / f"{key}.safetensors") for key, other in TEACHERS.items()}
        labelled = (str(bench.material.objects), str(bench.material.scenes))
        pictures = (data.train.pictures, data.val.pictures)
        values = measure(encoder(model, weights), teachers, pictures, labelled, (SIZE, DENSE_SIZE))
        file.parent.mkdir(exist_ok=True)
        atomic_write_text(file, json.dumps(values))
    found: dict[str, float] = json.loads(file.read_text())
    return found


def encoder(model: str, weights: Path) -> Encoder:
    """A model with these weights, ready to be measured."""
    return load_encoder(spec(model, str(weights))).eval()


def table(rows: dict[str, list[dict[str, float]]]) -> list[str]:
    """Markdown: mean ± standard deviation over the seeds of each arm."""
    keys = list(dict.fromkeys(key for results in rows.values() for result in results for key in result))
    lines = ["| arm | " + " | ".join(keys) + " | seeds |", "|---" * (len(keys) + 2) + "|"]
    for name, results in rows.items():
        cells = [cell([result[key] for result in results if key in result]) for key in keys]
        lines.append(f"| {name} | {' | '.join(cells)} | {len(results)} |")
    return lines


def cell(values: Sequence[float]) -> str:
    """Mean and spread."""
    if not values:
        return "–"
    digits = 1 if max(values) > 2 else 3
    spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{spread}"
