"""What the engine adds to a step: CPU time of a step of ours against the same step written by hand.

    python benchmarks/step_overhead.py

Both do the teacher's forward, the student's forward and backward, both losses and an AdamW step on the same pictures,
already decoded in memory, one thread, float32. They take turns in one process, and process CPU time is compared, so
that other work on the machine disturbs both alike. What data loading adds per picture is measured beside it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from PIL import Image
from torch import Tensor

from eyespot import load_encoder
from eyespot.data import DataConfig, PictureLoader
from eyespot.distill.committee import Committee
from eyespot.distill.features.feature_distillation import FeatureDistillation
from eyespot.engine.config import EngineConfig, OptimConfig
from eyespot.engine.optim import make_optimizer
from eyespot.engine.trainer import Trainer
from eyespot.files import atomic_write_text
from eyespot.report import machine_info


class TakingTurns:
    """The same decoded batch for every step of the engine; between two of its steps, one step by hand.

    The engine runs its real loop. A step of it lasts from handing out a batch until the next one is asked for.
    """

    def __init__(self, images: Tensor, by_hand: Callable[[], None]) -> None:
        self.images, self.by_hand = images, by_hand
        self.engine_times: list[float] = []
        self.hand_times: list[float] = []

    def batch(self, step: int) -> dict[str, Any]:
        return {"images": self.images, "step": step}

    def batches(self, start_step: int = 0) -> Iterator[dict[str, Any]]:
        for step in itertools.count(start_step):
            start = time.process_time()
            yield self.batch(step)
            if torch.is_grad_enabled():  # not in the pass over the data before training
                self.engine_times.append(time.process_time() - start)
                self.hand_times.append(cpu_seconds(self.by_hand))

    def fingerprint(self) -> str:
        return "in memory"


def make_task(args: argparse.Namespace) -> FeatureDistillation:
    torch.manual_seed(0)
    teacher = load_encoder(args.teacher, pretrained=False)
    student = load_encoder(args.student, pretrained=False)
    return FeatureDistillation(
        student,
        Committee({"teacher": teacher}),
        adapter_width=args.adapter_width,
        student_sizes=(args.size,),
        teacher_sizes=(args.size,),
        standardizer="channel",
    )


def by_hand(args: argparse.Namespace, images: Tensor) -> Callable[[], None]:
    """One step in plain torch: no engine, no Task.forward, no logging."""
    task = make_task(args)
    teacher, student = task.committee.teachers["teacher"], task.learners["student"].encoder.train()
    head = task.learners["student"].heads["teacher"]
    optimizer = make_optimizer(task, OptimConfig(steps=1, batch_size=1, learning_rate=1e-4))

    def step() -> None:
        pictures = images.float() / 255
        with torch.no_grad():
            target = teacher.model.forward_features((pictures - teacher.mean) / teacher.std)
        tokens = student.model.forward_features((pictures - student.mean) / student.std)
        summary, patches = head.summary(tokens[:, 0]), head.patch(tokens[:, student.model.num_prefix_tokens :])
        goal = target[:, teacher.model.num_prefix_tokens :]
        loss = 1 - F.cosine_similarity(summary, target[:, 0], dim=1).mean()
        loss = loss + 0.9 * (1 - F.cosine_similarity(patches, goal, dim=2).mean())
        loss = loss + 0.1 * F.smooth_l1_loss(patches, goal)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def run_engine(args: argparse.Namespace, data: TakingTurns, folder: Path) -> None:
    """The engine's own loop, logging and all."""
    Trainer(
        Fabric(accelerator="cpu", devices=1),
        make_task(args),
        data,
        optim=OptimConfig(steps=args.steps, batch_size=args.batch_size, learning_rate=1e-4),
        engine=EngineConfig(precision="32-true", progress=False, log_every=10),
        folder=folder,
        metrics_path=folder / "metrics.jsonl",
        stage="overhead",
        seed=0,
    ).train()


def cpu_seconds(work: Callable[[], None]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def loading_cost(args: argparse.Namespace, folder: Path) -> float:
    """CPU milliseconds to read, decode and augment one JPEG of 320 x 240 into a view."""
    generator = torch.Generator().manual_seed(1)
    for number in range(64):
        coarse = torch.rand(1, 3, 30, 40, generator=generator)
        pixels = F.interpolate(coarse, size=(240, 320), mode="bicubic").clamp(0, 1)[0]
        array = (pixels * 255).byte().permute(1, 2, 0).numpy()
        Image.fromarray(array).save(folder / f"{number}.jpg", quality=90)
    loader = PictureLoader(DataConfig(sources=[str(folder)], size=args.size), batch_size=64)
    loader.batch(0)
    return min(cpu_seconds(lambda: loader.batch(1)) for _ in range(5)) / 64 * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", default="timm/vit_tiny_patch16_dinov3_qkvb")
    parser.add_argument("--teacher", default="timm/vit_small_patch16_dinov3_qkvb")
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--adapter-width", type=int, default=512)
    parser.add_argument("--steps", type=int, default=40)
    args = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    shape = (args.batch_size, 3, args.size, args.size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    data = TakingTurns(images, by_hand(args, images))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run_engine(args, data, folder / "run")
        (folder / "pictures").mkdir()
        loading = loading_cost(args, folder / "pictures")
    warm_up = args.steps // 5
    pairs = list(zip(data.hand_times[warm_up:], data.engine_times[warm_up:], strict=True))
    ratios = sorted(ours / floor for floor, ours in pairs)
    record = {
        "machine": machine_info(),
        "settings": vars(args),
        "by_hand_ms": round(median(floor for floor, _ in pairs) * 1000, 1),
        "engine_ms": round(median(ours for _, ours in pairs) * 1000, 1),
        "ratio_median": round(median(ratios), 3),
        "ratio_quartiles": [round(value, 3) for value in quantiles(ratios, n=4)[::2]],
        "loading_ms_per_picture": round(loading, 2),
    }
    print(json.dumps(record, indent=1))
    atomic_write_text(Path(__file__).parent / "results" / "step_overhead.json", json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
