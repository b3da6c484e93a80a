"""The smallest run that the command line can make, and what it leaves behind."""

from pathlib import Path
from typing import Any

import yaml

from eyespot.engine.metrics import read_lines

TINY = [
    *("--student.model", "timm/test_vit", "--steps", "2"),
    *("--stage1.batch-size", "4", "--stage1.student-sizes", "32", "--stage1.adapter-width", "8"),
    *("--stage2.batch-size", "4", "--stage2.student-sizes", "32", "--stage2.adapter-width", "8"),
    *("--stage3.batch-size", "4", "--stage3.student-sizes", "16", "32", "--stage3.adapter-width", "8"),
    *("--engine.accelerator", "cpu", "--engine.precision", "32-true", "--engine.log-every", "1"),
    *("--engine.no-tensorboard", "--engine.no-progress"),
]
SMALL_PROXY = ["--proxy", "timm/test_vit2", "--stage2.teacher-sizes", "32", "--stage3.teacher-sizes", "32", "48"]


def stages_trained(run: Path) -> dict[str, int]:
    return {line["stage"]: line["step"] for line in read_lines(run / "metrics.jsonl")}


def config_of(run: Path) -> dict[str, Any]:
    return yaml.safe_load((run / "config.yaml").read_text())
