"""What extraction adds to the bare forward pass, and how much memory the features of many pictures need.

    python benchmarks/extraction_speed.py [--model timm/vit_tiny_patch16_dinov3_qkvb] [--size 224] [--pairs 8]

Speed: the same pictures (uint8, in memory, at the encoder's size) through `eyespot.evaluate.extract`, to memory and to
disk, and through the model alone, in turn, in one process; process CPU time, because other work may share the machine.
Memory: the largest resident set of a process of its own that extracts the dense features of many pictures of ADE20K's
size to disk and then trains and measures a linear segmentation probe on them.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles

import torch

from eyespot import Encoder, load_encoder
from eyespot.data.labelled.base import Pictures
from eyespot.data.sets import DensePictures, SegmentationData
from eyespot.evaluate import FeatureBank, evaluate, extract
from eyespot.files import atomic_write_text
from eyespot.report import machine_info

ADE20K_SIZE = (512, 683)


def cpu_seconds(work: object) -> float:
    start = time.process_time()
    work()  # type: ignore[operator]
    return time.process_time() - start


def bare(encoder: Encoder, images: torch.Tensor, batch_size: int) -> None:
    with torch.inference_mode():
        for part in images.split(batch_size):
            encoder(part.float() / 255)


def speed(encoder: Encoder, size: int, count: int, batch_size: int, pairs: int) -> dict[str, dict[str, float]]:
    """Throughput of extraction as a share of the bare forward pass: median and quartiles over pairs."""
    images = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)
    bare(encoder, images[:batch_size], batch_size)
    shares: dict[str, list[float]] = {"to memory": [], "to disk": []}
    for _ in range(pairs):
        for place, found in shares.items():
            with tempfile.TemporaryDirectory() as folder:
                target = Path(folder) if place == "to disk" else None
                alone = cpu_seconds(lambda: bare(encoder, images, batch_size))
                whole = cpu_seconds(lambda target=target: extract(encoder, images, batch_size, size, folder=target))
                found.append(alone / whole)
    result = {}
    for place, found in shares.items():
        low, _, high = quantiles(found, n=4)
        result[place] = {"median": round(median(found), 3), "low": round(low, 3), "high": round(high, 3)}
    return result


class Noise(Pictures):
    """Many pictures that need no memory: noise that follows from the picture's number."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def read(self, start: int, stop: int, size: tuple[int, int]) -> torch.Tensor:
        generator = torch.Generator().manual_seed(start)
        return torch.rand(stop - start, 3, *size, generator=generator)

    def fingerprint(self) -> str:
        return f"noise {self.count}"


class Masks(list):  # type: ignore[type-arg]
    """As many label maps of ADE20K's size, made when they are looked at."""

    def __init__(self, count: int) -> None:
        super().__init__(range(count))

    def __getitem__(self, index: int) -> torch.Tensor:  # type: ignore[override]
        return torch.full(ADE20K_SIZE, index % 150, dtype=torch.int16)

    def fingerprint(self) -> str:
        return f"masks {len(self)}"


def dense_memory(count: int, width: int, side: int) -> None:
    """Peak memory of this process: a linear segmentation on maps [width, side/16, side/16] of `count` pictures."""
    encoder = load_encoder(
        f"timm/vit_tiny_patch16_dinov3_qkvb?depth=1&embed_dim={width}&num_heads={width // 64}", pretrained=False
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    train, val = (DensePictures(Noise(number), Masks(number)) for number in (count * 9 // 10, count // 10))
    with tempfile.TemporaryDirectory() as folder:
        table = evaluate(
            {"noise": encoder},
            ["segmentation"],
            {"segmentation": SegmentationData(train, val, 150)},
            size=side,
            batch_size=16,
            folder=folder,
        )
        stored = sum(file.stat().st_size for file in Path(folder).rglob("patches.*"))
    assert FeatureBank(encoder).size is None and table.rows
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"GiB before": before / 2**20, "GiB at the peak": peak / 2**20, "GiB on disk": stored / 2**30}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="timm/vit_tiny_patch16_dinov3_qkvb")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--pictures", type=int, default=192)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--memory-pictures", type=int, default=2000)
    parser.add_argument("--memory-worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.memory_worker:
        dense_memory(args.memory_pictures, 768, 512)
        return
    encoder = load_encoder(args.model, pretrained=False)
    command = [sys.executable, __file__, "--memory-worker", "--memory-pictures", str(args.memory_pictures)]
    memory = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    record = {
        "machine": machine_info(),
        "settings": {key: value for key, value in vars(args).items() if key != "memory_worker"},
        "share of the bare forward throughput": speed(encoder, args.size, args.pictures, args.batch_size, args.pairs),
        "dense features of ADE20K-size pictures, ViT-B width at 512 px": {k: round(v, 2) for k, v in memory.items()},
    }
    print(json.dumps(record, indent=1))
    atomic_write_text(Path(__file__).parent / "results" / "extraction_speed.json", json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
