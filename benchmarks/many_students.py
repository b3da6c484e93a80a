"""What a further student costs when the teacher has looked anyway.

    python benchmarks/many_students.py

One step (forward, backward, clipping, AdamW) of three students together, against the same three alone with the
teacher's features at hand, and one pass of the teacher. Aim: together at most 1.1 times the sum of these. All take
turns in one process on one thread; process CPU time is compared, and ratios are taken within a round.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from torch import nn

from eyespot import load_encoder
from eyespot.distill.committee import Committee
from eyespot.distill.features.feature_distillation import FeatureDistillation
from eyespot.encoders import Encoder
from eyespot.encoders.naming import short_names
from eyespot.engine.config import OptimConfig
from eyespot.engine.optim import make_optimizer
from eyespot.features import Features
from eyespot.files import atomic_write_text
from eyespot.report import machine_info

STUDENTS = ["timm/vit_tiny_patch16_dinov3_qkvb", "timm/vit_small_patch16_dinov3_qkvb", "timm/convnext_tiny"]


class Ready(nn.Module):
    """A committee that has looked before."""

    def __init__(self, committee: Committee, seen: dict[str, Features]) -> None:
        super().__init__()
        self.teachers, self.seen = dict(committee.items()), seen

    def items(self) -> Iterable[tuple[str, Encoder]]:
        return self.teachers.items()

    def forward(self, batch: Mapping[str, Any], size: int | None = None) -> dict[str, Features]:
        return self.seen


def main(args: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    batch = {"images": torch.randint(0, 256, (args.batch, 3, args.size, args.size), dtype=torch.uint8), "step": 0}
    committee = Committee({"teacher": load_encoder(args.teacher, pretrained=False)})
    names = short_names(args.students)
    students = {name: load_encoder(spec, pretrained=False) for name, spec in zip(names, args.students, strict=True)}
    precision = torch.bfloat16 if args.precision == "bf16-mixed" else torch.float32
    with torch.autocast("cpu", precision, enabled=precision is torch.bfloat16):
        ready = Ready(committee, committee(batch, args.size))
        alone = {name: stepper({name: student}, ready, batch, args) for name, student in students.items()}
        together = stepper(students, committee, batch, args)
        arms = {"teacher pass": lambda: committee(batch, args.size), **alone, "together": together}
        rounds = [{name: cpu_seconds(arm) for name, arm in arms.items()} for _ in range(args.rounds + 1)][1:]
    parts = ["teacher pass", *names]
    ratios = [one["together"] / sum(one[part] for part in parts) for one in rounds]
    separate = [one["together"] / sum(one[name] + one["teacher pass"] for name in names) for one in rounds]
    result = {
        "students": args.students,
        "teacher": args.teacher,
        "setting": {name: getattr(args, name) for name in ("batch", "size", "rounds", "precision")},
        "cpu_seconds": {name: median(one[name] for one in rounds) for name in arms},
        "together_over_sum": {"median": median(ratios), "quartiles": quantiles(ratios, n=4)[::2]},
        "together_over_separate_runs": {"median": median(separate), "quartiles": quantiles(separate, n=4)[::2]},
        "machine": machine_info(),
    }
    print(json.dumps({key: value for key, value in result.items() if key != "machine"}, indent=1))
    atomic_write_text(args.output / "many_students.json", json.dumps(result, indent=1) + "\n")


def stepper(
    students: dict[str, Encoder], committee: Any, batch: Mapping[str, Any], args: argparse.Namespace
) -> Callable[[], None]:
    """A function that does one training step."""
    task = FeatureDistillation(
        students, committee, adapter_width=512, student_sizes=(args.size,), teacher_sizes=(args.size,)
    )
    task.prepare([{**batch, "step": 0}])
    task.train()
    optimizer = make_optimizer(task, OptimConfig(steps=1, batch_size=args.batch, learning_rate=1e-4))

    def step() -> None:
        task(batch)["loss"].backward()
        for weights in task.parts().values():
            nn.utils.clip_grad_norm_(weights, 3.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def cpu_seconds(work: Callable[[], Any]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--students", nargs="+", default=STUDENTS)
    parser.add_argument("--teacher", default="timm/vit_base_patch16_dinov3_qkvb")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--precision", choices=("32-true", "bf16-mixed"), default="bf16-mixed")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    main(parser.parse_args())
