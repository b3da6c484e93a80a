"""What is compared between the runs of an older version and those of today; nothing here depends on eyespot."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

CLOCK = ("seconds", "pictures_per_second")
WEIGHT_FILES = ("model.safetensors", "adapters.safetensors")


def machine() -> dict[str, str]:
    """What decides about the last bits of a number: the libraries that compute, and the processor they choose for."""
    libraries = {name: version(name) for name in ("torch", "torchvision", "timm", "numpy", "pillow")}
    return {**libraries, "capability": torch.backends.cpu.get_cpu_capability(), "processor": _processor()}


def losses(run: Path) -> list[dict[str, Any]]:
    """Every line of a run's metrics.jsonl without what a clock says."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in line.items() if key not in CLOCK} for line in lines]


def tensors(folder: Path) -> dict[str, Tensor]:
    """Weights of a model folder, adapters included."""
    found: dict[str, Tensor] = {}
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            found |= {f"{name.partition('.')[0]}/{key}": value for key, value in load_file(folder / name).items()}
    return found


def digest(values: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and numbers."""
    total = hashlib.sha256()
    for name, value in sorted(values.items()):
        total.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        total.update(value.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def digests(run: Path) -> dict[str, str]:
    """Digest by folder of every model in a run."""
    folders = sorted({file.parent for file in run.rglob("model.safetensors")})
    return {folder.relative_to(run).as_posix(): digest(tensors(folder)) for folder in folders}


def facts(folder: Path) -> dict[str, Any]:
    """A model folder's config.json without the machine and the day."""
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["eyespot"].pop("machine", None)
    return config


def card(folder: Path) -> str:
    """A model folder's card without the versions, the machine and the day."""
    lines = (folder / "README.md").read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if not line.startswith(("- versions:", "- machine:", "- date:")))


def has_classes(folder: Path) -> bool:
    """Whether the model in a folder was saved with a class head."""
    return bool(facts(folder)["eyespot"].get("num_classes"))


@torch.no_grad()
def answers(model: Any) -> dict[str, Tensor]:
    """All that a model says of two pictures: features, logits, and the tasks' own heads."""
    features = model(images())
    said = {"summary": features.summary, "patches": features.patches, "logits": features.logits}
    if hasattr(model, "predict"):
        said |= {task: answer[..., ::8, ::8] for task, answer in model.predict(images()).items()}
    return {name: value.contiguous() for name, value in said.items() if value is not None}


def images() -> Tensor:
    """Two pictures [2, 3, 64, 64] in [0, 1], the same under any version of torch."""
    numbers = torch.arange(2 * 3 * 64 * 64).reshape(2, 3, 64, 64)
    return (numbers * 7919 % 256).float() / 255


def _processor() -> str:
    file = Path("/proc/cpuinfo")
    if not file.is_file():
        return platform.processor()
    wanted = ("model name", "cpu family", "model")
    pairs = [line.partition(":")[::2] for line in file.read_text().split("\n\n")[0].splitlines()]
    facts = {key.strip(): value.strip() for key, value in pairs}
    return ", ".join(facts[key] for key in wanted if key in facts)
