"""Makes the stored runs of this folder; see README.md. To be run with the version whose behaviour is to be held.

    PYTHONPATH=OLD/src:tests python tests/old_runs/make.py

Everything is made in a temporary folder by relative paths, on the CPU in float32 with one thread, and copied here.
"""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import shutil
import signal
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from eyespot import __version__, load_classifier, load_encoder
from eyespot.cli import main
from eyespot.encoders import save_encoder
from eyespot.engine.metrics import RunLog
from eyespot.recipes import RECIPES
from eyespot.recipes.presets import build, merged, preset_names
from old_runs.evidence import answers, digests, has_classes, machine

HERE = Path(__file__).parent
KINDS = ("cross", "disc", "stripes")
VIT = "timm/vit_tiny_patch16_224?embed_dim=16&depth={}&num_heads=2&mlp_ratio=1&patch_size=8&img_size=32"
RESNET = "timm/test_resnet?channels=8,8,8,8&stem_width=8"
CONVNEXT = "timm/test_convnext?dims=8,8,8,16"
EFFICIENTNET = "timm/test_efficientnet?channel_multiplier=0.25&branches=2"
STEPS = 6

ENGINE = {
    "accelerator": "cpu",
    "precision": "32-true",
    "log_every": 1,
    "checkpoint_every": 2,
    "tensorboard": False,
    "progress": False,
}
OPTIM = {"steps": STEPS, "batch_size": 4, "learning_rate": 2e-3, "warmup_steps": 1}
PICTURES = {"sources": ["pictures/train"], "seed": 1}


def eupe(**changes: Any) -> dict[str, Any]:
    stage = {**OPTIM, "adapter_width": 8, "statistics_steps": 2, "clip_norm": 1.0, "ema_decay": 0.9}
    settings: dict[str, Any] = {
        "teachers": ["python/teachers.py:what", "python/teachers.py:where"],
        "data": PICTURES,
        "proxy": VIT.format(3),
        "student": {"model": VIT.format(2)},
        "stage1": {**stage, "student_sizes": [48]},
        "stage2": {**stage, "student_sizes": [32], "teacher_sizes": [32]},
        "stage3": {**stage, "student_sizes": [16, 32], "teacher_sizes": [32, 48]},
        "engine": ENGINE,
    }
    return merged(settings, changes)


def classifier(model: str, method: str | list[str], **changes: Any) -> dict[str, Any]:
    settings = {
        "teacher": "run/models/resnet",
        "data": PICTURES,
        "test": "pictures",
        "student": {"model": [model], "method": method},
        "training": OPTIM,
        "student_size": 32,
        "teacher_size": 32,
        "engine": ENGINE,
    }
    return merged(settings, changes)


def sak() -> dict[str, Any]:
    return {
        "teachers": ["run/models/vit", "run/models/resnet"],
        "data": PICTURES,
        "labelled": {"source": "toybox:4@32?tasks=segmentation+depth+normals", "view": {"size": [32, 32]}},
        "student": {"model": VIT.format(4)},
        "stage1": {**OPTIM, "student_size": 32},
        "stage2": {**OPTIM, "batch_size": 2, "schedule": "polynomial"},
        "engine": ENGINE,
    }


SETTINGS: dict[str, dict[str, Any]] = {
    "eupe": eupe(),
    "vanilla_kd": classifier(
        RESNET,
        "kd",
        mix={"mixup": 0.2, "cutmix": 1.0},
        data={"view": {"randaugment": "rand-m5-mstd0.5"}},
        training={"optimizer": "lamb"},
    ),
    "ofa_kd": classifier(CONVNEXT, ["ofa", "kd"]),
    "ghostnet_v3": classifier(EFFICIENTNET, "kd", training={"ema_decay": 0.9}),
    "sak": sak(),
}
CACHED = eupe(proxy=None, stage2={"teacher_sizes": []}, stage3={"steps": 0}, data={"views": 2})
CACHED["cache"] = {"folder": "cached/cache"}

EVALUATE = [
    *("evaluate", "run/recipes/eupe", "--size", "32", "--no-timing"),
    *("--data", "knn=pictures", "segmentation=toybox:8@32", "depth=toybox:8@32"),
]


def make(folder: Path) -> None:
    """Everything, into an empty folder that is the current one."""
    shutil.copy(HERE / "teachers.py", folder)
    write_pictures(folder / "pictures")
    write_models(folder / "models")
    for recipe, settings in SETTINGS.items():
        distill(recipe, settings, f"recipes/{recipe}")
    interrupted("eupe", "stage-2-student", stop)
    interrupted("vanilla_kd", "stage-1-distillation", kill)
    interrupted("sak", "stage-2-tasks", stop)
    distill("eupe", CACHED, "cached")
    main(["cache", "eupe", "--config", "cached/config.yaml"])
    main([*EVALUATE, "--output", "evaluation"])
    (folder / "evaluation/command.json").write_text(json.dumps({"version": __version__, "command": EVALUATE}) + "\n")
    for run in (*folder.glob("recipes/*"), folder / "cached"):
        (run / "digests.json").write_text(json.dumps(digests(run), indent=1) + "\n")
        drop_stages(run)
    write_features(folder)
    write_presets(folder / "presets")
    for page in folder.rglob("report.html"):
        page.unlink()
    (folder / "machine.json").write_text(json.dumps(machine(), indent=1) + "\n")


def distill(recipe: str, settings: dict[str, Any], output: str) -> None:
    config = build(RECIPES[recipe].config_class, settings, recipe)
    RECIPES[recipe].distill(config, output)


def interrupted(recipe: str, stage: str, how: Callable[[], None]) -> None:
    """A run of which a process of its own is left in the middle of a stage."""
    output = f"interrupted/{recipe}"
    process = multiprocessing.get_context("fork").Process(target=_left, args=(recipe, output, stage, how))
    process.start()
    process.join()
    assert process.exitcode != 0 and not Path(output, "student").exists()
    for finished in Path(output).glob("*/model"):  # what it needs no more
        shutil.rmtree(finished.parent / "checkpoints")
    for older in sorted(Path(output, stage, "checkpoints").iterdir())[:-1]:
        shutil.rmtree(older)
    with tarfile.open(f"{output}.tar.xz", "w:xz") as archive:  # the format of checkpoints is nine parts air
        archive.add(output, recipe, filter=_anonymous)
    shutil.rmtree(output)


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    return entry


def _left(recipe: str, output: str, stage: str, how: Callable[[], None]) -> None:
    write = RunLog.write

    def write_and_leave(log: RunLog, step: int, values: dict[str, float]) -> None:
        write(log, step, values)
        if (log.stage, step) == (stage, STEPS // 2):
            how()

    RunLog.write = write_and_leave  # type: ignore[method-assign]
    distill(recipe, SETTINGS[recipe], output)


def stop() -> None:
    """As Ctrl-C does: a checkpoint of this step, and the end."""
    os.kill(os.getpid(), signal.SIGINT)


def kill() -> None:
    """As a machine that fails does: the last checkpoint is the one before."""
    os.kill(os.getpid(), signal.SIGKILL)


def write_pictures(folder: Path) -> None:
    """Coarse random pictures of three classes, losslessly, so that they weigh little."""
    draws = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for kind in KINDS:
            (folder / split / kind).mkdir(parents=True)
            for number in range(count):
                coarse = draws.integers(0, 256, (5, 6, 3), dtype=np.uint8)
                Image.fromarray(coarse.repeat(8, 0).repeat(8, 1)).save(folder / split / kind / f"{number}.png")


def write_models(folder: Path) -> None:
    """Teachers with random weights, and a model of one's own with a linear class head."""
    torch.manual_seed(0)
    save_encoder(load_encoder(f"{VIT.format(4)}&pretrained=false"), folder / "vit", license="apache-2.0")
    save_encoder(load_classifier(f"{RESNET}&pretrained=false", 3, KINDS), folder / "resnet", license="mit")
    save_encoder(load_classifier("python/teachers.py:where", 3, KINDS), folder / "own")


def write_features(folder: Path) -> None:
    """Of every saved model, what it says of two pictures."""
    found = {}
    for file in sorted(folder.rglob("model.safetensors")):
        place = file.parent.relative_to(folder).as_posix()
        if place.startswith(("models", "recipes")):
            load = load_classifier if has_classes(file.parent) else load_encoder
            found |= {f"{place}:{name}": value for name, value in answers(load(f"run/{place}").eval()).items()}
    save_file(found, folder / "features.safetensors")


def write_presets(folder: Path) -> None:
    """What `eyespot recipes NAME --preset PRESET` prints."""
    for recipe in SETTINGS:
        (folder / recipe).mkdir(parents=True, exist_ok=True)
        for preset in preset_names(recipe):
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                main(["recipes", recipe, "--preset", preset])
            (folder / recipe / f"{preset}.yaml").write_text(printed.getvalue())


def drop_stages(run: Path) -> None:
    """Removes the stages of a finished run, of which the digests are kept, but for a model that trains in branches."""
    for stage in run.glob("stage-*"):
        shutil.rmtree(stage / "checkpoints" if run.name == "ghostnet_v3" else stage)


@contextlib.contextmanager
def empty_folder() -> Iterator[Path]:
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield Path(folder)
        finally:
            os.chdir(before)


def replace(names: Iterable[str], made: Path) -> None:
    for name in names:
        old, new = HERE / name, made / name
        if old.is_dir():
            shutil.rmtree(old)
        if new.is_dir():
            shutil.copytree(new, old)
        else:
            shutil.copy(new, old)


if __name__ == "__main__":
    torch.set_num_threads(1)
    with empty_folder() as made:
        make(made)
        replace((path.name for path in made.iterdir()), made)
