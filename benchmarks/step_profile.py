"""Where the CPU time of a training step goes, part by part.

    python benchmarks/step_profile.py [--shared FOLDER]

The engine's real loop, one thread, at the sizes of the preset `laptop`: batch 32, views of 224 as the experts want
them, a student at 112, real pictures read in the training process, real experts. Nothing in the package is changed:
every part is timed from outside, through hooks and wrappers, and each moment is charged to the innermost part that is
running, so that the parts add up to the whole; `rest of the loop` is what no part claims. Beside it stands the same
training without the instruments. Process CPU time, so that other work on the machine disturbs little; medians over the
steps. On a CPU there is no transfer to a device.

--shared, EYESPOT_SHARED or ../shared beside the checkout holds pictures and experts; without them the toybox and
untrained teachers stand in.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import wraps
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any, Literal
from unittest.mock import patch

import torch
from PIL import Image
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

import eyespot.data.loading.pictures
import eyespot.distill.features.learner
import eyespot.distill.features.losses
import eyespot.engine.trainer
from eyespot import load_encoder
from eyespot.data import DataConfig, PictureLoader, PictureSource, ViewConfig, open_source
from eyespot.distill.cache import CachedCommittee
from eyespot.distill.committee import Committee, load_committee
from eyespot.distill.features.feature_distillation import FeatureDistillation
from eyespot.distill.features.heads import TeacherAdapter
from eyespot.distill.features.standardizers import FeatureStandardizer
from eyespot.engine.config import EngineConfig, OptimConfig
from eyespot.engine.strategy import start_fabric
from eyespot.engine.trainer import Trainer
from eyespot.files import atomic_write_text
from eyespot.report import machine_info

ROOT = Path(__file__).resolve().parent.parent
EXPERTS = ("semantic_mobilenetv2_in1k", "segmentation_deeplabv3_voc", "depth_fastdepth_nyu")
PICTURES = ("caltech101/train", "camvid/train/images", "coco/train2017/images", "coco/val2017/images")
VIT, CNN = "timm/vit_tiny_patch16_dinov3_qkvb", "timm/resnet18?output_stride=16"
VIEW, SIZE, BATCH, PER_SOURCE = 224, 112, 32, 48
REST = "rest of the loop"
PARTS = (
    "read and decode",
    "draw view",
    "view: crop, resize, colour",
    "read cached features",
    "collate",
    "teachers: resize pictures, decode cached features",
    "teachers: forward",
    "standardizers",
    "student: resize pictures",
    "student: forward",
    "heads: forward",
    "losses",
    "backward",
    "gradient norm and clip",
    "optimiser",
    "moving average",
    "log lines",
    REST,
)

Seconds = dict[str, float]


@dataclass(frozen=True)
class Arm:
    """One setting to profile."""

    student: str
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    cached: bool = True
    compile: bool = False

    @property
    def name(self) -> str:
        """For the tables."""
        words = ["ViT-T" if self.student == VIT else "ResNet-18"]
        words += ["channels last"] if "channels_last" in self.student else []
        words += ["float32" if self.precision == "32-true" else "bfloat16"]
        words += ["cached teachers" if self.cached else "live teachers"]
        return ", ".join([*words, "compiled"] if self.compile else words)


ARMS = (
    Arm(VIT, cached=False),
    Arm(VIT, "bf16-mixed", cached=False),
    Arm(VIT),
    Arm(VIT, "bf16-mixed"),
    Arm(VIT, compile=True),
    Arm(VIT, "bf16-mixed", compile=True),
    Arm(CNN),
    Arm(CNN + "&channels_last=true"),
    Arm(CNN, "bf16-mixed"),
    Arm(CNN + "&channels_last=true", "bf16-mixed"),
    Arm(CNN + "&channels_last=true", compile=True),
    Arm(CNN + "&channels_last=true", "bf16-mixed", compile=True),
)


class StopWatch:
    """Charges every moment to the innermost part that is running.

    Attributes:
        steps: CPU seconds of every part, one dict per finished step.
    """

    def __init__(self) -> None:
        self.steps: list[Seconds] = []
        self._step: Seconds = {}
        self._stack = [REST]
        self._mark = time.process_time()

    def enter(self, part: str) -> None:
        """The part begins; what was running waits."""
        self._charge()
        self._stack.append(part)

    def leave(self) -> None:
        """It ends."""
        self._charge()
        self._stack.pop()

    def next_step(self) -> None:
        """Closes the account of a step and opens the next."""
        self._charge()
        self.steps.append(self._step)
        self._step = {}

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, charged to a part."""

        @wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.enter(part)
            try:
                return function(*args, **kwargs)
            finally:
                self.leave()

        return wrapped

    def hook(self, part: str, module: nn.Module) -> None:
        """Charges a module's forward to a part."""
        module.register_forward_pre_hook(lambda *_: self.enter(part))
        module.register_forward_hook(lambda *_: self.leave())

    def _charge(self) -> None:
        now = time.process_time()
        self._step[self._stack[-1]] = self._step.get(self._stack[-1], 0.0) + now - self._mark
        self._mark = now


class WatchedLoader:
    """A loader whose steps are counted: one lasts from asking for a batch until the next one is asked for."""

    def __init__(self, loader: PictureLoader, watch: StopWatch) -> None:
        self.batch, self.fingerprint = loader.batch, loader.fingerprint
        self._loader, self._watch = loader, watch

    def batches(self, start_step: int = 0) -> Iterator[Any]:
        """The loader's."""
        made = self._loader.batches(start_step)
        while True:
            self._watch.next_step()
            self._watch.enter("collate")
            batch = next(made)
            self._watch.leave()
            yield batch


class Few:
    """The first pictures of a source, so that they soon come again."""

    def __init__(self, source: PictureSource) -> None:
        self.name, self.classes = source.name, source.classes
        self.picture_name, self.label, self.fingerprint = source.picture_name, source.label, source.fingerprint
        self._source = source

    def __len__(self) -> int:
        return min(PER_SOURCE, len(self._source))

    def read(self, index: int) -> Image.Image:
        """The source's."""
        return self._source.read(index)


@contextmanager
def instruments(watch: StopWatch, trainer: Trainer, task: FeatureDistillation, loader: PictureLoader) -> Iterator[None]:
    """Times every part of the loop for as long as the context lasts."""
    watch.hook("teachers: resize pictures, decode cached features", task.committee)
    for _, teacher in task.committee.items():
        watch.hook("teachers: forward", teacher)
    for student in task.students.values():
        watch.hook("student: forward", student)
    for module in task.modules():
        if isinstance(module, FeatureStandardizer | TeacherAdapter):
            watch.hook("standardizers" if isinstance(module, FeatureStandardizer) else "heads: forward", module)
    if loader.extra_entries is not None:
        loader.extra_entries = watch.timed("read cached features", loader.extra_entries)
    places: list[tuple[Any, str, str]] = [
        (eyespot.data.loading.pictures, "draw_view", "draw view"),
        (eyespot.data.loading.pictures, "apply_view", "view: crop, resize, colour"),
        (eyespot.distill.features.learner, "resize_pictures", "student: resize pictures"),
        (eyespot.distill.features.losses.FeatureLoss, "__call__", "losses"),
        (eyespot.engine.trainer.MovingAverage, "update", "moving average"),
        (eyespot.engine.trainer.RunLog, "write", "log lines"),
        (trainer.fabric, "backward", "backward"),
        (torch.nn.utils, "get_total_norm", "gradient norm and clip"),
        (torch.nn.utils, "clip_grads_with_norm_", "gradient norm and clip"),
        *((source, "read", "read and decode") for source in loader.sources),
    ]
    hooks = [
        register_optimizer_step_pre_hook(lambda *_: watch.enter("optimiser")),
        register_optimizer_step_post_hook(lambda *_: watch.leave()),
    ]
    with ExitStack() as stack:
        for owner, name, part in places:
            stack.enter_context(patch.object(owner, name, watch.timed(part, getattr(owner, name))))
        yield
    for hook in hooks:
        hook.remove()


def shared_folder(given: Path | None) -> Path | None:
    """Where real pictures and experts are; None if they are not there."""
    folder = given or Path(os.environ.get("EYESPOT_SHARED") or ROOT.parent / "shared")
    return folder.resolve() if (folder / "teachers").is_dir() and (folder / "data").is_dir() else None


def experts(shared: Path | None) -> Committee:
    """The teachers of every arm."""
    if shared is None:
        return load_committee(["timm/test_vit?pretrained=false", "timm/test_convnext?pretrained=false"])
    return load_committee([f"onnx/{shared}/teachers/{name}.onnx?threads=1" for name in EXPERTS], max_grid=14)


def pictures(shared: Path | None) -> PictureLoader:
    """Views as in the preset `laptop`."""
    specs = [f"{shared}/data/{part}" for part in PICTURES] if shared else [f"toybox:{4 * PER_SOURCE}@{VIEW}"]
    config = DataConfig(sources=specs, size=VIEW, views=1, view=ViewConfig(scale=(0.3, 1.0), blur=0, solarize=0))
    return PictureLoader(config, BATCH, sources=[Few(open_source(spec, 4 * VIEW)) for spec in specs])


def profile(arm: Arm, shared: Path | None, steps: int, cache: Path, watched: bool) -> list[Seconds]:
    """CPU seconds of every part in every step of a short training."""
    loader, committee, watch = pictures(shared), experts(shared), StopWatch()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seen: Committee | CachedCommittee = committee
        if arm.cached:
            seen = filled_cache(committee, loader, cache, steps)
        torch.manual_seed(0)
        student = load_encoder(arm.student, pretrained=False)
        task = FeatureDistillation(student, seen, adapter_width=512, student_sizes=(SIZE,), statistics_steps=1)
        engine = EngineConfig(
            accelerator="cpu", precision=arm.precision, compile=arm.compile, log_every=10, progress=False
        )
        trainer = Trainer(
            start_fabric(engine),
            task,
            WatchedLoader(loader, watch),
            optim=OptimConfig(
                steps=steps, batch_size=BATCH, learning_rate=1e-3, weight_decay=0.05, clip_norm=3.0, ema_decay=0.99
            ),
            engine=engine,
            folder=folder / "stage",
            metrics_path=folder / "metrics.jsonl",
            stage="profile",
            seed=0,
        )
        with instruments(watch, trainer, task, loader) if watched else ExitStack():
            trainer.train()
    # The accounts before the pass over the data, before training and of two steps that warm up are left out.
    return watch.steps[4:]


def filled_cache(committee: Committee, loader: PictureLoader, folder: Path, steps: int) -> CachedCommittee:
    """A cache that holds everything that a training of so many steps will ask for."""
    cached = CachedCommittee(
        committee, folder, setting={}, source_lengths=[len(source) for source in loader.sources], views=1
    )
    for batch in islice(loader.batches(), steps):
        cached(batch)
    cached.flush()
    loader.extra_entries = cached.extra_entries
    return cached


def milliseconds(steps: list[Seconds]) -> dict[str, float]:
    """Each part's median over the steps."""
    return {part: round(median(step.get(part, 0.0) for step in steps) * 1000, 1) for part in PARTS}


def table(records: list[dict[str, Any]]) -> str:
    """One column per arm; parts in milliseconds and as shares of the whole."""
    lines = []
    for start in range(0, len(records), 4):
        group = records[start : start + 4]
        lines += ["| part of a step, ms CPU (share) | " + " | ".join(record["name"] for record in group) + " |"]
        lines += ["|---" * (len(group) + 1) + "|"]
        for part in PARTS:
            cells = [
                f"{record['parts'][part]:.1f} ({record['parts'][part] / record['sum_ms']:.1%})" for record in group
            ]
            lines.append(f"| {part} | " + " | ".join(cells) + " |")
        lines.append("| **sum of the parts** | " + " | ".join(f"**{record['sum_ms']:.1f}**" for record in group) + " |")
        lines.append(
            "| the same step without instruments | "
            + " | ".join(f"{record['plain_ms']:.1f}" for record in group)
            + " |"
        )
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, help="folder with teachers/ and data/")
    parser.add_argument("--steps", type=int, default=14, help="per arm; the first two are not counted")
    parser.add_argument("--arms", type=int, nargs="+", help="numbers of the arms to run, from 0; all by default")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "step_profile")
    args = parser.parse_args()
    torch.set_num_threads(1)
    shared = shared_folder(args.shared)
    records = []
    with tempfile.TemporaryDirectory() as cache:
        for arm in [ARMS[number] for number in args.arms] if args.arms else ARMS:
            parts = milliseconds(profile(arm, shared, args.steps, Path(cache), watched=True))
            plain = median(sum(step.values()) for step in profile(arm, shared, args.steps, Path(cache), watched=False))
            sums = {"sum_ms": round(sum(parts.values()), 1), "plain_ms": round(plain * 1000, 1)}
            records.append({"name": arm.name, **asdict(arm), "parts": parts, **sums})
            print(table(records[-1:]), flush=True)
    what = f"real pictures ({', '.join(PICTURES)}), experts {', '.join(EXPERTS)}" if shared else "toybox"
    machine = machine_info()
    facts = {"machine": machine, "data": what, "batch": BATCH, "view": VIEW, "student_size": SIZE, "arms": records}
    atomic_write_text(args.output.with_suffix(".json"), json.dumps(facts, indent=1) + "\n")
    head = f"# Where a step's time goes\n\n{machine['cpu']}, one thread, torch {machine['torch']}, {machine['date']}. "
    head += f"Batch {BATCH}, views of {VIEW}, student at {SIZE}; {what}.\n\n"
    atomic_write_text(args.output.with_suffix(".md"), head + table(records))


if __name__ == "__main__":
    main()
