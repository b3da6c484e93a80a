"""What teacher features from the cache cost a training: against live teachers, and against the student alone.

    python benchmarks/cached_training.py --teachers TEACHERS_FOLDER --data DATA_FOLDER

Stage 1 of the preset `laptop` (four real experts teach the proxy) on a few hundred real pictures, with the engine's own
loop and loader, one process and one thread. The arms take turns:

- alone: the student with its heads and losses, against target tensors that are ready in memory;
- bfloat16, int8, int8 with principal components: targets from the cache, read anew in every step;
- live: the experts look at every picture.

Measured per step, without the first ones: process CPU time (all threads) and wall time; beside it bytes per row on disk
and how far the loss of each step is from that of live teachers after the same steps. Files are read from the page
cache: how fast a disk is is no part of this.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from eyespot.config import build
from eyespot.data import DataConfig, PictureLoader
from eyespot.distill.cache import CacheConfig, CachedCommittee, verify
from eyespot.distill.cache.build import RowLoader, part_of
from eyespot.distill.cache.opening import cached_committee
from eyespot.distill.committee import Committee, load_committee
from eyespot.distill.features.feature_distillation import FeatureDistillation
from eyespot.distill.warm_start import new_encoder
from eyespot.encoders import Encoder
from eyespot.engine.config import EngineConfig
from eyespot.engine.metrics import read_lines
from eyespot.engine.trainer import Trainer
from eyespot.features import Features
from eyespot.files import atomic_write_text
from eyespot.randomness import seed_everything
from eyespot.recipes.eupe import EupeConfig
from eyespot.recipes.presets import read_settings
from eyespot.report import machine_info

EXPERTS = (
    "semantic_mobilenetv2_in1k.onnx",
    "segmentation_deeplabv3_voc.onnx",
    "depth_fastdepth_nyu.onnx",
    "keypoints_alike_n.onnx",
)
PICTURES = ("camvid/train/images", "coco/train2017/images", "coco/val2017/images")
STORES = {
    "bfloat16": CacheConfig(store="bfloat16"),
    "int8": CacheConfig(store="int8"),
    "int8, rank 64": CacheConfig(store="int8", rank=64),
}
UNTIMED = 2
"""First steps of a training, which pay for what is done once."""


@dataclass
class Setting:
    """What all arms share."""

    config: EupeConfig
    committee: Committee
    loader: PictureLoader
    fabric: Fabric


@dataclass
class Arm:
    """One way to get targets, and what was measured of it: a number per round, but for the losses of the last one."""

    committee: Any
    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)


class ReadyTargets(nn.Module):
    """A committee that has always just the tensors that are wanted."""

    def __init__(self, committee: Committee, features: dict[str, Features]) -> None:
        super().__init__()
        self._committee, self._features = (committee,), features

    def items(self) -> Any:
        return self._committee[0].items()

    def forward(self, batch: Mapping[str, Any], size: int | None = None) -> dict[str, Features]:
        return self._features


class TimedLoader:
    """The loader, noting CPU and wall time whenever the engine asks for a batch."""

    def __init__(self, loader: PictureLoader) -> None:
        self.loader = loader
        self.marks: list[tuple[float, float]] = []

    def batch(self, step: int) -> Any:
        return self.loader.batch(step)

    def fingerprint(self) -> str:
        return self.loader.fingerprint()

    def batches(self, start_step: int = 0) -> Iterator[Any]:
        made = self.loader.batches(start_step)
        for _ in itertools.count():
            if torch.is_grad_enabled():  # not in the pass over the data before training
                self.marks.append((cpu_seconds(), time.perf_counter()))
            yield next(made)


def cpu_seconds() -> float:
    """Of this process, all threads, and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def make_setting(args: argparse.Namespace) -> Setting:
    """The preset with the real experts and pictures."""
    settings = read_settings("eupe", ["laptop"])
    settings["teachers"] = [f"onnx/{args.teachers / file}" for file in EXPERTS]
    settings["data"] |= {"sources": [str(args.data / part) for part in PICTURES], "views": args.views}
    if args.student:
        settings["proxy"] = args.student
    config = build(EupeConfig, settings, "laptop")
    engine = replace(config.engine, precision=args.precision or config.engine.precision, accelerator="cpu")
    stage = replace(config.stage1, steps=args.steps, warmup_steps=0, statistics_steps=args.statistics_steps)
    config = replace(config, engine=engine, stage1=stage)
    committee = load_committee(config.teachers, config.max_grid)
    data: DataConfig = replace(config.data, size=224)
    fabric = Fabric(accelerator="cpu", devices=1, precision=engine.precision)
    return Setting(config, committee, PictureLoader(data, stage.batch_size), fabric)


def fill(setting: Setting, caches: Mapping[str, CachedCommittee]) -> tuple[float, dict[str, Features]]:
    """Fills all caches from one pass over every row; its CPU seconds per row, and the features of one batch."""
    rows = part_of(next(iter(caches.values())).rows.count, 0, 1)
    seconds, batch_size = 0.0, setting.config.stage1.batch_size
    features: dict[str, Features] = {}
    first: dict[str, Features] = {}
    for cache in caches.values():
        cache.look = lambda name, images: features[name]  # type: ignore[method-assign]
    for batch in RowLoader(setting.loader, next(iter(caches.values())), rows, batch_size):
        start = cpu_seconds()
        with setting.fabric.autocast():
            features.update(setting.committee(batch))
            seconds += cpu_seconds() - start
            for cache in caches.values():
                cache(batch)
        first = first or dict(features)
    for cache in caches.values():
        cache.flush()
        del cache.look
    return seconds / len(rows), first


def train(setting: Setting, arm: Arm, folder: Path) -> None:
    """One training of an arm; notes time per step and losses."""
    config, stage = setting.config, setting.config.stage1
    setting.loader.extra_entries = arm.committee.extra_entries if isinstance(arm.committee, CachedCommittee) else None
    assert config.proxy is not None
    student: Encoder = new_encoder(config.proxy, 0, "proxy")
    seed_everything(0, "heads")
    task = FeatureDistillation(
        student,
        arm.committee,
        adapter_width=stage.adapter_width,
        student_sizes=stage.student_sizes,
        standardizer=config.standardizer,
        statistics_steps=stage.statistics_steps,
    )
    engine: EngineConfig = replace(config.engine, progress=False, tensorboard=False, log_every=1)
    timed = TimedLoader(setting.loader)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        metrics = Path(place) / "metrics.jsonl"
        Trainer(
            setting.fabric,
            task,
            timed,
            optim=stage,
            engine=engine,
            folder=Path(place),
            metrics_path=metrics,
            stage="cached",
            seed=0,
        ).train()
        arm.losses = [line["loss"] for line in read_lines(metrics)]
    (cpu, wall), (cpu_end, wall_end) = timed.marks[UNTIMED], timed.marks[-1]
    steps = len(timed.marks) - 1 - UNTIMED
    arm.cpu.append((cpu_end - cpu) / steps)
    arm.wall.append((wall_end - wall) / steps)


def row_bytes(cache: CachedCommittee) -> dict[str, int]:
    """Bytes per row of each teacher."""
    return {name: one.codec.layout.record_bytes for name, one in cache.caches.items() if one.codec}


def measured(setting: Setting, name: str, arm: Arm, arms: Mapping[str, Arm]) -> dict[str, Any]:
    """One arm's line: medians over the rounds, ratios within a round, and the spread of these."""
    ratios = [own / alone for own, alone in zip(arm.cpu, arms["alone"].cpu, strict=True)]
    faster = [live / own for own, live in zip(arm.cpu, arms["live"].cpu, strict=True)]
    away = [abs(own / live - 1) for own, live in zip(arm.losses, arms["live"].losses, strict=True)]
    cached = isinstance(arm.committee, CachedCommittee)
    kept = {n: one.kept_variance for n, one in arm.committee.caches.items()} if cached else {}
    return {
        "cpu_ms_per_step": {"median": 1000 * median(arm.cpu), "rounds": [1000 * value for value in arm.cpu]},
        "wall_ms_per_step": {"median": 1000 * median(arm.wall), "rounds": [1000 * value for value in arm.wall]},
        "times_student_alone": {"median": median(ratios), "smallest": min(ratios), "largest": max(ratios)},
        "times_faster_than_live": {"median": median(faster), "smallest": min(faster), "largest": max(faster)},
        "bytes_per_row": row_bytes(arm.committee) if cached else None,
        "kept_variance": kept if any(kept.values()) else None,
        "reading_cpu_ms_per_picture": reading(setting, arm.committee) if cached else None,
        "loss_off_live": None if name == "alone" else {"mean": mean(away), "largest": max(away)},
    }


def reading(setting: Setting, cache: CachedCommittee) -> dict[str, float]:
    """CPU milliseconds per picture, over all teachers: to read and check rows (a data worker), to decode them."""
    extra_entries, batch = cache.extra_entries, setting.loader.batch(0)
    ids = [batch[key] for key in ("source", "index", "view")]
    entries: dict[str, Any] = {}

    def read() -> None:
        entries.update(extra_entries(*ids))

    def decode() -> None:
        cache({**batch, **entries})

    costs = {name: cpu_of(work) / len(ids[0]) for name, work in (("read", read), ("decode", decode))}
    return {name: 1000 * seconds for name, seconds in costs.items()}


def cpu_of(work: Callable[[], None], times: int = 10) -> float:
    """CPU seconds of a call, the median of several after one to warm up."""
    found = []
    for _ in range(times + 1):
        start = cpu_seconds()
        work()
        found.append(cpu_seconds() - start)
    return median(found[1:])


def as_table(lines: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Markdown."""
    columns = (
        "targets",
        "CPU ms a step",
        "times the student alone",
        "times faster than live",
        "kB a row",
        "ms to read, to decode a picture",
        "loss off live, mean (largest)",
    )
    table = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for name, line in lines.items():
        alone, live = line["times_student_alone"], line["times_faster_than_live"]
        size = sum(line["bytes_per_row"].values()) / 1000 if line["bytes_per_row"] else 0
        off, reads = line["loss_off_live"], line["reading_cpu_ms_per_picture"]
        cells = (
            name,
            f"{line['cpu_ms_per_step']['median']:.0f}",
            f"{alone['median']:.3f} ({alone['smallest']:.3f} to {alone['largest']:.3f})",
            f"{live['median']:.2f} ({live['smallest']:.2f} to {live['largest']:.2f})",
            f"{size:.0f}" if size else "–",
            f"{reads['read']:.2f}, {reads['decode']:.2f}" if reads else "–",
            f"{off['mean']:.2%} ({off['largest']:.2%})" if off else "–",
        )
        table.append("| " + " | ".join(cells) + " |")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teachers", type=Path, required=True, help="folder with the four ONNX files")
    parser.add_argument("--data", type=Path, required=True, help="folder with camvid and coco")
    parser.add_argument("--work", type=Path, default=Path("runs/cached_training"))
    parser.add_argument("--student", help="trained in place of the preset's proxy, e.g. timm/vit_tiny_patch16_224")
    parser.add_argument("--precision", choices=("32-true", "bf16-mixed"), help="the preset's by default")
    parser.add_argument("--views", type=int, default=1)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--statistics-steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--name", default="cached_training", help="of the result files in benchmarks/results")
    args = parser.parse_args()
    missing = [str(path) for path in (*(args.teachers / e for e in EXPERTS), args.data) if not path.exists()]
    if missing:
        sys.exit("nothing measured, since these are not there: " + ", ".join(missing))
    torch.set_num_threads(1)
    args.work.mkdir(parents=True, exist_ok=True)
    setting = make_setting(args)
    precision = setting.config.engine.precision
    with tempfile.TemporaryDirectory(dir=args.work) as place:
        caches = {
            name: cached_committee(setting.committee, setting.loader, replace(how, folder=f"{place}/{name}"), precision)
            for name, how in STORES.items()
        }
        look, ready = fill(setting, caches)
        checked = verify(caches["bfloat16"], setting.loader, setting.fabric, 16)
        arms = {"alone": Arm(ReadyTargets(setting.committee, ready))}
        arms |= {name: Arm(cache) for name, cache in caches.items()} | {"live": Arm(setting.committee)}
        for number in range(args.rounds):
            for name, arm in arms.items():
                train(setting, arm, args.work)
                print(f"round {number + 1}, {name}: {1000 * arm.cpu[-1]:.0f} ms CPU a step", flush=True)
        setting.loader.extra_entries = None
        lines = {name: measured(setting, name, arm, arms) for name, arm in arms.items()}
    table = as_table(lines)
    print("\n".join(table))
    settings = {key: value for key, value in vars(args).items() if key not in ("teachers", "data", "work", "name")}
    record = {
        "machine": machine_info(),
        "settings": settings | {"experts": EXPERTS, "pictures": PICTURES, "student": setting.config.proxy},
        "stage": asdict(setting.config.stage1) | {"precision": precision},
        "rows": setting.loader.picture_count * args.views,
        "experts_cpu_ms_per_picture": 1000 * look,
        "verified": {"rows": checked.compared, "identical": checked.identical, "of": checked.features},
        "arms": lines,
    }
    results = Path(__file__).parent / "results"
    atomic_write_text(results / f"{args.name}.json", json.dumps(record, indent=1) + "\n")
    heading = [
        "# Training from the cache",
        "",
        f"`benchmarks/cached_training.py`; all numbers: `{args.name}.json`.",
        "",
    ]
    atomic_write_text(results / f"{args.name}.md", "\n".join([*heading, *table, ""]))


if __name__ == "__main__":
    main()
