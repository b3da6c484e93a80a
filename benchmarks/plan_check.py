"""Does `eyespot plan` tell the truth? It predicts the laptop preset's steps, and then they are run and measured.

    python benchmarks/plan_check.py [--output benchmarks/results]

Each stage runs in a process of its own, one thread, random weights, random pictures already in memory: operations per
step (torch's counter on the real step), what autograd keeps, the growth of the process's memory, CPU seconds per step
of teachers and of students, and their share of the matrix peak measured in the same process. As a forecast that does
not know its own answer, stage 3's seconds are predicted from the utilisation that stage 2 reached.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch

from eyespot import load_encoder
from eyespot.config import build
from eyespot.deploy.benchmark.peak import MatrixPeak
from eyespot.distill.committee import Committee
from eyespot.distill.features.feature_distillation import FeatureDistillation
from eyespot.engine.config import EngineConfig
from eyespot.engine.optim import make_optimizer
from eyespot.engine.units import checkpoint_activations
from eyespot.files import atomic_write_text
from eyespot.flops import flop_counter
from eyespot.plan.memory import WEIGHT_BYTES
from eyespot.plan.passes import ShapedStage
from eyespot.plan.shapes import ShapeWorld
from eyespot.recipes import RECIPES
from eyespot.recipes.presets import read_settings
from eyespot.report import machine_info
from eyespot.runs.outline import StageOutline

TEACHER = "timm/vit_tiny_patch16_dinov3_qkvb?pretrained=false"
CASES = [
    ("stage-1-proxy", "32-true", False),
    ("stage-2-student", "32-true", False),
    ("stage-2-student", "32-true", True),
    ("stage-3-multires", "32-true", False),
    ("stage-2-student", "bf16-mixed", False),
    ("stage-3-multires", "bf16-mixed", False),
]
"""Stage, precision, activation checkpointing."""
ROUNDS = 3
MIB = 2**20


def outlines() -> list[StageOutline]:
    """The laptop preset's stages, with a ViT-T as the one expert."""
    recipe = RECIPES["eupe"]
    settings = read_settings("eupe", ["laptop"]) | {"teachers": [TEACHER]}
    return list(recipe.outline(build(recipe.config_class, settings, "laptop")))


class Case:
    """One stage: as shapes, and as real models."""

    def __init__(self, name: str, precision: Any, checkpointing: bool) -> None:
        made: dict[str, str] = {}
        for outline in outlines():
            if outline.name == name:
                break
            made[outline.name] = outline.students["student"]
        self.config = outline.config
        self.engine = EngineConfig(precision=precision, activation_checkpointing=checkpointing)
        self.shaped = ShapedStage(ShapeWorld(), outline, made, self.engine, "channel")
        pairs = list(self.config.student_sizes)
        self.sizes = [(side, side if self.config.teacher_sizes else None) for side in pairs]
        teachers = {key: load_encoder(model.spec) for key, model in self.shaped.teachers.items()}
        self.committee = Committee(teachers, outline.max_grid)
        self.task = FeatureDistillation(
            {key: load_encoder(spec) for key, spec in outline.students.items()},
            self.committee,
            adapter_width=self.config.adapter_width,
            student_sizes=self.config.student_sizes,
            teacher_sizes=self.config.teacher_sizes,
        ).train()
        if checkpointing:
            checkpoint_activations(self.task)
        self.optimizer = make_optimizer(self.task, self.config)
        view = (self.config.batch_size, 3, self.shaped.view, self.shaped.view)
        self.batch = {"images": torch.randint(0, 256, view, dtype=torch.uint8), "step": 0}

    def set_sizes(self, size: int, teacher_size: int | None) -> None:
        self.task.student_sizes = (size,)
        self.task.teacher_sizes = () if teacher_size is None else (teacher_size,)

    def forward(self) -> torch.Tensor:
        bfloat16 = self.engine.precision == "bf16-mixed"
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
            return self.task(self.batch)["loss"]

    def step(self) -> None:
        self.forward().backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def look(self) -> None:
        bfloat16 = self.engine.precision == "bf16-mixed"
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
            self.committee(self.batch, self.task.sizes(0)[1])


def measure(name: str, precision: str, checkpointing: bool) -> dict[str, Any]:
    case = Case(name, precision, checkpointing)
    memory = memory_of(case)
    peak = (MatrixPeak().measure()["bfloat16" if precision == "bf16-mixed" else "float32"] or 0.0) * 1e9
    rows = [row_of(case, *sizes) for sizes in case.sizes]
    mean = {key: fmean(row[key] for row in rows) for key in rows[0]}
    return {
        "stage": name,
        "precision": precision,
        "checkpointing": checkpointing,
        "sizes": case.sizes,
        "peak_gflops": peak / 1e9,
        **memory,
        **mean,
        "teacher_utilisation": mean["teacher_flops"] / mean["teacher_seconds"] / peak,
        "training_utilisation": mean["student_flops"] / mean["student_seconds"] / peak,
    }


def row_of(case: Case, size: int, teacher_size: int | None) -> dict[str, float]:
    """Operations and CPU seconds of a whole step at one size."""
    case.set_sizes(size, teacher_size)
    count = case.config.batch_size
    learn, look = case.shaped.student_pass(count, size, teacher_size), case.shaped.teacher_pass(count, teacher_size)
    with flop_counter() as counter:
        case.step()
    turns = [(cpu_seconds(case.look), cpu_seconds(case.step)) for _ in range(ROUNDS)]
    teacher_seconds = median(turn[0] for turn in turns)
    step_seconds = median(turn[1] for turn in turns)
    teacher_flops = count * sum(look.flops.values())
    student_flops = count * (learn.forward_flops + learn.backward_flops)
    return {
        "predicted_flops": teacher_flops + student_flops,
        "counted_flops": counter.get_total_flops(),
        "teacher_flops": teacher_flops,
        "student_flops": student_flops,
        "teacher_seconds": teacher_seconds,
        "student_seconds": step_seconds - teacher_seconds,
        "step_seconds": step_seconds,
    }


def cpu_seconds(run: Callable[[], None]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def memory_of(case: Case) -> dict[str, float]:
    """What the largest step takes beside models, moments and pictures: predicted, kept by autograd, resident."""
    size, teacher_size = max(case.sizes, key=lambda sizes: sizes[0])
    case.set_sizes(size, teacher_size)
    count = case.config.batch_size
    learn, look = case.shaped.student_pass(count, size, teacher_size), case.shaped.teacher_pass(count, teacher_size)
    weights = case.shaped.trained_parameters * WEIGHT_BYTES
    whole = case.batch["images"]
    case.batch["images"] = whole[:2].clone()
    case.step()  # what libraries take once is not the step's; the moments are there from now on
    case.batch["images"] = whole
    growth = peak_growth(lambda: (case.step(), case.step()))
    return {
        "predicted_activation_mib": learn.activation_bytes / MIB,
        "kept_by_autograd_mib": float("nan") if case.engine.activation_checkpointing else saved_bytes(case) / MIB,
        "predicted_growth_mib": (weights + max(learn.peak_bytes, look.peak_bytes)) / MIB,
        "growth_mib": growth / MIB,
    }


def saved_bytes(case: Case) -> int:
    own = {tensor.untyped_storage()._cdata for tensor in [*case.task.parameters(), *case.task.buffers()]}
    kept: dict[int, torch.UntypedStorage] = {}

    def see(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage()._cdata not in own:
            kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(see, lambda tensor: tensor):
        loss = case.forward()
    del loss
    return sum(storage.nbytes() for storage in kept.values())


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def peak_growth(run: Callable[[], object]) -> int:
    """Largest resident memory while something runs, looked at every millisecond, beyond that before."""
    before, most, done = resident_bytes(), 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.001):
            most = max(most, resident_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    run()
    done.set()
    watcher.join()
    return most - before


def forecast(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Stage 3's seconds by stage 2's utilisation, and whether they came true."""
    found = []
    for precision in ("32-true", "bf16-mixed"):
        second, third = (
            next(
                row
                for row in rows
                if (row["stage"], row["precision"], row["checkpointing"]) == (stage, precision, False)
            )
            for stage in ("stage-2-student", "stage-3-multires")
        )
        peak = third["peak_gflops"] * 1e9
        predicted = third["teacher_flops"] / (peak * second["teacher_utilisation"])
        predicted += third["student_flops"] / (peak * second["training_utilisation"])
        found.append({"precision": precision, "predicted_seconds": predicted, "seconds": third["step_seconds"]})
    return found


def markdown(result: dict[str, Any]) -> str:
    machine = result["machine"]
    lines = [
        "# What `eyespot plan` predicts, and what comes out",
        "",
        f"{machine['cpu']}, one thread, torch {machine['torch']}, {machine['date']}. Laptop preset, 32 pictures a step,"
        " expert ViT-T/16 at 256 pixels; sizes of stage 3 averaged. Seconds are CPU seconds, medians of "
        f"{ROUNDS} steps; the matrix peak is measured in the same process.",
        "",
        "| stage | precision | GFLOP a step: predicted | counted | s a step | peak GFLOP/s | teachers reach | training "
        "reaches | activations MiB: predicted | kept | growth MiB: predicted | measured |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in result["rows"]:
        name = row["stage"] + (", checkpointed" if row["checkpointing"] else "")
        kept = "" if row["checkpointing"] else f"{row['kept_by_autograd_mib']:.1f}"
        lines.append(
            f"| {name} | {row['precision']} | {row['predicted_flops'] / 1e9:.2f} | {row['counted_flops'] / 1e9:.2f} | "
            f"{row['step_seconds']:.3f} | {row['peak_gflops']:.0f} | {row['teacher_utilisation']:.0%} | "
            f"{row['training_utilisation']:.0%} | {row['predicted_activation_mib']:.1f} | {kept} | "
            f"{row['predicted_growth_mib']:.0f} | {row['growth_mib']:.0f} |"
        )
    lines += ["", "Stage 3's seconds a step, predicted from the utilisation that stage 2 reached:", ""]
    for row in result["forecast"]:
        ratio = f"{row['seconds'] / row['predicted_seconds']:.2f} x"
        predicted, seconds = f"{row['predicted_seconds']:.3f}", f"{row['seconds']:.3f}"
        lines.append(f"- {row['precision']}: predicted {predicted}, measured {seconds} ({ratio})")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--case", type=int, help=argparse.SUPPRESS)
    known = parser.parse_args()
    torch.set_num_threads(1)
    if known.case is not None:
        print(json.dumps(measure(*CASES[known.case])))
        return
    rows = []
    for number in range(len(CASES)):
        done = subprocess.run(
            [sys.executable, __file__, "--case", str(number)], check=True, stdout=subprocess.PIPE, text=True
        )
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(f"{rows[-1]['stage']} {rows[-1]['precision']}: {rows[-1]['step_seconds']:.3f} s", flush=True)
    result = {"machine": machine_info(), "teacher": TEACHER, "rows": rows, "forecast": forecast(rows)}
    atomic_write_text(known.output / "plan_check.json", json.dumps(result, indent=1))
    atomic_write_text(known.output / "plan_check.md", markdown(result))


if __name__ == "__main__":
    main()
