"""What probes in the background cost a training: steps while a probe runs against steps without one, side by side.

    python benchmarks/probe_overhead.py

One training of a student from one teacher, pictures already decoded in memory, float32, with a probe every so many
steps, so that stretches with and without a probe take turns in one process: `ratio_while_probing` compares wall times.
It is 1 where a CPU core is free for the probe, and about 2 where the training has one core in all, or others use the
machine (`load` tells how many). What a probe costs lies between two bounds that do not depend on that: with a core
free, only the copy of the model (`best`); with none, the probe's CPU time as well (`worst`).
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from eyespot import load_encoder
from eyespot.engine.callbacks import Students
from eyespot.engine.config import EngineConfig, OptimConfig
from eyespot.engine.trainer import Trainer
from eyespot.evaluate.config import ProbesConfig
from eyespot.evaluate.during_training import Probes, StageProbes, read_probes
from eyespot.files import atomic_write_text
from eyespot.report import machine_info
from step_overhead import make_task


class TimedProbes(StageProbes):
    """Notes how long a training waits for a probe to start."""

    def __init__(self, probes: Probes) -> None:
        super().__init__(probes, "overhead")
        probes.open_data()
        self.waits: list[float] = []

    def after_step(self, step: int, students: Students) -> None:
        start = time.perf_counter()
        super().after_step(step, students)
        if self._last == step:
            self.waits.append(time.perf_counter() - start)


class OneBatch:
    """The same batch for every step. A step lasts from handing out a batch until the next one is asked for."""

    def __init__(self, images: Tensor, probes: TimedProbes) -> None:
        self.images, self.probes = images, probes
        self.alone: list[float] = []
        self.alone_cpu: list[float] = []
        self.probing: list[float] = []

    def batch(self, step: int) -> dict[str, Any]:
        return {"images": self.images, "step": step}

    def batches(self, start_step: int = 0) -> Iterator[dict[str, Any]]:
        for step in range(start_step, 10**9):
            start, start_cpu, before = time.perf_counter(), time.process_time(), self.probes.busy
            yield self.batch(step)
            if torch.is_grad_enabled() and before == self.probes.busy:  # a training step, with or without a probe
                (self.probing if before else self.alone).append(time.perf_counter() - start)
                self.alone_cpu += [] if before else [time.process_time() - start_cpu]

    def fingerprint(self) -> str:
        return "in memory"


def train(args: argparse.Namespace, folder: Path) -> tuple[OneBatch, TimedProbes]:
    """The engine's own loop, with probes."""
    config = ProbesConfig(every=args.every, data=[args.data], limit=args.limit)
    probes = TimedProbes(Probes(config, folder / "probes.jsonl", args.size))
    generator = torch.Generator().manual_seed(0)
    shape = (args.batch_size, 3, args.size, args.size)
    data = OneBatch(torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator), probes)
    Trainer(
        Fabric(accelerator="auto", devices=1),
        make_task(args),
        data,
        optim=OptimConfig(steps=args.steps, batch_size=args.batch_size, learning_rate=1e-4),
        engine=EngineConfig(precision="32-true", progress=False, log_every=10, checkpoint_every=10**6),
        folder=folder,
        metrics_path=folder / "metrics.jsonl",
        stage="overhead",
        seed=0,
        callbacks=[probes],
    ).train()
    return data, probes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", default="timm/vit_tiny_patch16_dinov3_qkvb")
    parser.add_argument("--teacher", default="timm/vit_small_patch16_dinov3_qkvb")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--adapter-width", type=int, default=512)
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--every", type=int, default=40, help="steps between probes, here")
    parser.add_argument("--usual", type=int, default=500, help="steps between probes, for the bounds")
    parser.add_argument("--data", default="toybox")
    parser.add_argument("--limit", type=int, default=150)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of the training")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        data, probes = train(args, Path(name))
        seconds = mean(line["seconds"] for line in read_probes(Path(name) / "probes.jsonl")["overhead"])
    start = time.process_time()
    probes.probes.measure(load_encoder(args.student, pretrained=False).eval())
    probe_cpu, step_cpu, copy = time.process_time() - start, median(data.alone_cpu), median(probes.waits[1:])
    record = {
        "machine": machine_info(),
        "load": round(load, 1),
        "settings": vars(args),
        "step_ms": round(median(data.alone) * 1000, 1),
        "step_cpu_ms": round(step_cpu * 1000, 1),
        "first_copy_ms": round(probes.waits[0] * 1000, 1),
        "copy_ms": round(copy * 1000, 1),
        "probe_seconds": round(seconds, 1),
        "probe_cpu_seconds": round(probe_cpu, 2),
        "ratio_while_probing": round(median(data.probing) / median(data.alone), 3),
        "steps_alone_and_probing": [len(data.alone), len(data.probing)],
        f"ratio_with_a_probe_every_{args.usual}_steps": {
            "best": round(1 + copy / (args.usual * median(data.alone)), 5),
            "worst": round(1 + (copy + probe_cpu) / (args.usual * step_cpu), 5),
        },
    }
    print(json.dumps(record, indent=1))
    atomic_write_text(Path(__file__).parent / "results" / "probe_overhead.json", json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
