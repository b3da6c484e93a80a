"""The engine of runs that take seconds: one CPU, float32, every step logged, a checkpoint every second one."""

from typing import Any

TINY_ENGINE: dict[str, Any] = {
    "accelerator": "cpu",
    "precision": "32-true",
    "log_every": 1,
    "checkpoint_every": 2,
    "tensorboard": False,
    "progress": False,
}
