"""What devices can do: memory, peak of matrix products, and which share of the peak a training reaches."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from eyespot.config import build
from eyespot.files import read_yaml
from eyespot.specs import suggestion

GIB = 2**30
TERA = 1e12

GPU_TEACHER_UTILISATION, GPU_TRAINING_UTILISATION = 0.45, 0.35
"""Assumed, not measured by us: eager PyTorch with autocast and fused attention on large transformers. Small models and
small micro-batches reach less, `engine.compile` more."""

CPU_TEACHER_UTILISATION, CPU_TRAINING_UTILISATION = 0.60, 0.30
"""Between what `benchmarks/plan_check.py` measured: 31 % (ViT-T) to 94 % (ResNet-18), and 22 % to 46 %."""


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Hardware:
    """One device.

    Attributes are also the keys of a user's own YAML file.
    """

    name: str
    """What tables call it."""
    memory_gib: float = Field(gt=0)
    """Its memory in GiB."""
    bf16_tflops: float = Field(gt=0)
    """Peak of dense bfloat16 matrix products with float32 sums, 10^12 operations a second."""
    fp32_tflops: float = Field(gt=0)
    """The same in float32 (not TF32, which PyTorch leaves off)."""
    teacher_utilisation: float = Field(default=GPU_TEACHER_UTILISATION, gt=0, le=1)
    """Share of the peak that a frozen teacher's forward pass reaches."""
    training_utilisation: float = Field(default=GPU_TRAINING_UTILISATION, gt=0, le=1)
    """Share of the peak that a student's forward and backward pass reach."""
    source: str = "given by the user"
    """Where memory and peaks are from."""

    def peak(self, bfloat16: bool) -> float:
        """Operations a second of matrix products."""
        return (self.bf16_tflops if bfloat16 else self.fp32_tflops) * TERA

    @property
    def memory_bytes(self) -> int:
        """Its memory in bytes."""
        return int(self.memory_gib * GIB)


HARDWARE = {
    key: Hardware(name=name, memory_gib=memory, bf16_tflops=bf16, fp32_tflops=fp32, source=source)
    for key, name, memory, bf16, fp32, source in (
        ("a100-40", "NVIDIA A100 40 GB", 40, 312, 19.5, "NVIDIA A100 data sheet"),
        ("a100", "NVIDIA A100 80 GB", 80, 312, 19.5, "NVIDIA A100 data sheet"),
        ("h100-pcie", "NVIDIA H100 PCIe", 80, 756, 51, "NVIDIA H100 data sheet, half of the value with sparsity"),
        ("h100", "NVIDIA H100 SXM", 80, 989, 67, "NVIDIA H100 data sheet, half of the value with sparsity"),
        ("h200", "NVIDIA H200 SXM", 141, 989, 67, "NVIDIA H200 data sheet, half of the value with sparsity"),
        ("b200", "NVIDIA B200 (HGX)", 180, 2250, 75, "NVIDIA HGX B200 data sheet, half of the value with sparsity"),
        ("l4", "NVIDIA L4", 24, 121, 30.3, "NVIDIA L4 data sheet, half of the value with sparsity"),
        ("l40s", "NVIDIA L40S", 48, 362, 91.6, "NVIDIA L40S data sheet"),
        ("rtx4090", "NVIDIA GeForce RTX 4090", 24, 165.2, 82.6, "NVIDIA Ada GPU architecture, appendix"),
    )
}


def find_hardware(name: str) -> Hardware:
    """The device of that name, this machine's processor ("cpu"), or one from a YAML file.

    Raises:
        ValueError: no such device (names the nearest), or a file that describes none.
        FileNotFoundError: no such file.
    """
    if name == "cpu":
        return this_processor()
    if name.endswith((".yaml", ".yml")):
        return _from_file(Path(name))
    if name not in HARDWARE:
        hint = suggestion(name, ["cpu", *HARDWARE], cutoff=0.4)
        raise ValueError(f"no hardware {name!r}; {hint} (your own: a YAML file with {', '.join(_required())})")
    return HARDWARE[name]


def this_processor() -> Hardware:
    """This machine's processor with as many threads as torch has now; its matrix peak is measured, in seconds."""
    from eyespot.deploy.benchmark.peak import MatrixPeak

    peak = MatrixPeak().measure()
    single = peak["float32"] or 1.0
    return Hardware(
        name=f"this processor, {torch.get_num_threads()} threads",
        memory_gib=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB,
        bf16_tflops=(peak["bfloat16"] or single) / 1e3,
        fp32_tflops=single / 1e3,
        teacher_utilisation=CPU_TEACHER_UTILISATION,
        training_utilisation=CPU_TRAINING_UTILISATION,
        source="matrix products, measured now",
    )


def _from_file(path: Path) -> Hardware:
    if not path.is_file():
        raise FileNotFoundError(f"no hardware file {path}; it holds {', '.join(_required())}")
    content: Any = read_yaml(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold settings (key: value): {', '.join(_required())}")
    return build(Hardware, content, str(path))


def _required() -> list[str]:
    return ["name", "memory_gib", "bf16_tflops", "fp32_tflops"]
