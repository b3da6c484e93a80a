"""Which runtime a frozen teacher runs fastest in: eager torch, torch.compile, ONNX Runtime, OpenVINO.

    python benchmarks/teacher_runtimes.py [--shared FOLDER]

The same networks with the same weights on the same batch of 32, one thread, in turns in one process; process CPU time,
the best of the rounds. A ViT-S and a ResNet-18 stand for teachers that exist in torch (a proxy, say); they are written
by `eyespot export` for the other runtimes. The experts of --shared (EYESPOT_SHARED, or ../shared beside the checkout)
exist as ONNX files only; OpenVINO reads those as well. `agreement` is the mean cosine similarity of their patches with
those of the first column.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyespot import Encoder, load_encoder
from eyespot.data import DataConfig, PictureLoader
from eyespot.deploy import export
from eyespot.encoders.runtimes.openvino import import_openvino
from eyespot.features import Features
from eyespot.files import atomic_write_text
from eyespot.report import machine_info

ROOT = Path(__file__).resolve().parent.parent
BATCH = 32
NETWORKS = {
    "ViT-S, 112 px": ("timm/vit_small_patch16_dinov3_qkvb", 112),
    "ViT-S, 224 px": ("timm/vit_small_patch16_dinov3_qkvb", 224),
    "ResNet-18, stride 16, 112 px": ("timm/resnet18?output_stride=16", 112),
    "ResNet-18, stride 16, channels last, 112 px": ("timm/resnet18?output_stride=16&channels_last=true", 112),
}
EXPERTS = ("semantic_mobilenetv2_in1k", "segmentation_deeplabv3_voc", "depth_fastdepth_nyu")

ClassifierOutput = Callable[[Tensor], Features]


def in_torch(encoder: Encoder, bfloat16: bool) -> ClassifierOutput:
    """An encoder as a committee calls it."""

    def look(images: Tensor) -> Features:
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16), torch.no_grad():
            return encoder(images)

    return look


def ways_of_torch(spec: str, size: int, folder: Path) -> dict[str, ClassifierOutput]:
    """A network of timm in every runtime."""
    torch.manual_seed(0)
    encoder = load_encoder(spec, pretrained=False).eval()
    compiled = load_encoder(spec, pretrained=False).eval()
    compiled.load_state_dict(encoder.state_dict())
    assert isinstance(compiled.model, nn.Module)
    compiled.model.compile()
    ways = {"eager float32": in_torch(encoder, False), "eager bfloat16": in_torch(encoder, True)}
    ways |= {"compile float32": in_torch(compiled, False), "compile bfloat16": in_torch(compiled, True)}
    for format in ("onnx", "openvino"):
        export(encoder, format, folder / format, image_size=size, batch=BATCH, say=lambda line: None)
    ways["onnxruntime float32"] = in_torch(load_encoder(f"onnx/{folder / 'onnx' / 'model.onnx'}?threads=1"), False)
    return ways | in_openvino(folder / "openvino" / "model.xml")


def ways_of_expert(file: Path, folder: Path) -> dict[str, ClassifierOutput]:
    """An expert's ONNX file in the two runtimes that read it."""
    openvino = import_openvino()
    openvino.save_model(openvino.convert_model(str(file)), str(folder / "model.xml"), compress_to_fp16=False)
    return {"onnxruntime float32": in_torch(load_encoder(f"onnx/{file}?threads=1"), False)} | in_openvino(
        folder / "model.xml"
    )


def in_openvino(file: Path) -> dict[str, ClassifierOutput]:
    """An OpenVINO file in both precisions."""
    return {
        f"openvino {name}": in_torch(load_encoder(f"openvino/{file}?threads=1&precision={precision}"), False)
        for name, precision in (("float32", "f32"), ("bfloat16", "bf16"))
    }


def measure(ways: dict[str, ClassifierOutput], images: Tensor, rounds: int) -> dict[str, dict[str, float]]:
    """CPU milliseconds per picture and agreement of patches, by way."""
    seen = {name: look(images).float() for name, look in ways.items()}
    first = next(iter(seen.values()))
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds):
        for name, look in ways.items():
            start = time.process_time()
            look(images)
            best[name] = min(best[name], time.process_time() - start)
    return {
        name: {
            "ms_per_picture": round(best[name] / len(images) * 1000, 2),
            "agreement": round(float(F.cosine_similarity(seen[name].patches, first.patches, dim=1).mean()), 5),
        }
        for name in ways
    }


def table(results: dict[str, dict[str, dict[str, float]]]) -> str:
    """A row per network; the fastest in bold."""
    ways = list(dict.fromkeys(way for row in results.values() for way in row))
    lines = ["| ms CPU per picture (agreement) | " + " | ".join(ways) + " |", "|---" * (len(ways) + 1) + "|"]
    for network, row in results.items():
        fastest = min(row, key=lambda way: row[way]["ms_per_picture"])
        cells = []
        for way in ways:
            text = f"{row[way]['ms_per_picture']:.1f} ({row[way]['agreement']:.4f})" if way in row else "–"
            cells.append(f"**{text}**" if way == fastest else text)
        lines.append(f"| {network} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, help="folder with teachers/ and data/")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "teacher_runtimes")
    args = parser.parse_args()
    torch.set_num_threads(1)
    shared = args.shared or Path(os.environ.get("EYESPOT_SHARED") or ROOT.parent / "shared")
    real = shared / "data" / "coco" / "train2017" / "images"
    source = str(real) if real.is_dir() else "toybox"
    results = {}
    for network, (spec, size) in NETWORKS.items():
        images = PictureLoader(DataConfig(sources=[source], size=size), BATCH).batch(0)["images"].float() / 255
        with tempfile.TemporaryDirectory() as name:
            results[network] = measure(ways_of_torch(spec, size, Path(name)), images, args.rounds)
        print(table({network: results[network]}), flush=True)
    for expert in EXPERTS:
        file = shared / "teachers" / f"{expert}.onnx"
        if not file.exists():
            continue
        images = PictureLoader(DataConfig(sources=[source], size=224), BATCH).batch(0)["images"].float() / 255
        with tempfile.TemporaryDirectory() as name:
            results[f"{expert}, 224 px"] = measure(ways_of_expert(file, Path(name)), images, args.rounds)
        print(table({expert: results[f"{expert}, 224 px"]}), flush=True)
    machine: dict[str, Any] = machine_info()
    record = {"machine": machine, "batch": BATCH, "results": results}
    atomic_write_text(args.output.with_suffix(".json"), json.dumps(record, indent=1) + "\n")
    head = f"# Runtimes of frozen teachers\n\n{machine['cpu']}, one thread, torch {machine['torch']}, batch {BATCH}, "
    atomic_write_text(args.output.with_suffix(".md"), f"{head}{machine['date']}.\n\n{table(results)}")


if __name__ == "__main__":
    main()
