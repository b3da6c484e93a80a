"""Which model goes into which format: every pair is exported at two sizes and compared with the original.

    python benchmarks/export_matrix.py                      # all of it, about ten minutes on two cores
    python benchmarks/export_matrix.py --formats litert     # adds to the results, e.g. from an environment of its own

Writes benchmarks/results/export_matrix.json and docs/deploy/tested-exports.md. Weights are random, norms and layer
scales included, so nothing is trained to be robust and nothing is hidden.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
import tyro

from eyespot.deploy import FORMATS, ExportError, export
from eyespot.encoders import Encoder, load_encoder
from eyespot.files import atomic_write_text
from eyespot.randomness import torch_generator

ROOT = Path(__file__).parent
RESULTS, PAGE = ROOT / "results" / "export_matrix.json", ROOT.parent / "docs" / "deploy" / "tested-exports.md"
MODELS = (
    *(f"vit_{size}_patch16_dinov3_qkvb" for size in ("tiny", "small", "base")),
    *("convnext_tiny", "mobilenetv4_conv_small", "fastvit_t8", "ghostnetv3_100"),
)
SIZES = ((224, 224), (256, 192))


@dataclass
class Settings:
    """What to try."""

    models: tuple[str, ...] = MODELS
    formats: tuple[str, ...] = tuple(FORMATS)


def main(settings: Settings) -> None:
    """Runs the pairs and merges them into what is there."""
    torch.set_num_threads(1)
    known = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    for model in settings.models:
        encoder = randomised(load_encoder(f"timm/{model}?pretrained=false"), model)
        for kind in settings.formats:
            for size in SIZES:
                entry = tried(encoder, kind, size)
                known[f"{model} {kind} {size[0]}x{size[1]}"] = entry
                print(model, kind, size, entry, flush=True)
                atomic_write_text(RESULTS, json.dumps(known, indent=1, sort_keys=True) + "\n")
    atomic_write_text(PAGE, page(known))


def randomised(encoder: Encoder, name: str) -> Encoder:
    """Every parameter is moved, and layer scales, which begin near zero and would hide their blocks, are raised."""
    generator = torch_generator("export matrix", name)
    with torch.no_grad():
        for weight in encoder.parameters():
            if weight.abs().max() < 0.01 and weight.abs().min() > 0:
                weight.copy_(0.5 + torch.rand(weight.shape, generator=generator))
            else:
                weight += 0.02 * torch.randn(weight.shape, generator=generator)
    return encoder


def tried(encoder: Encoder, kind: str, size: tuple[int, int]) -> dict[str, Any]:
    """One export: lowest cosine, largest difference, size of the file, seconds; or the reason why not."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = export(encoder, kind, Path(folder) / "out", image_size=size, say=lambda text: None)
        except (ExportError, ValueError, ImportError) as error:
            return {"failed": f"{type(error).__name__}: {error}", "date": str(date.today())}
        megabytes = (
            sum(
                file.stat().st_size
                for file in done.folder.rglob("*")
                if file.is_file() and file.name not in ("export.json", "reference.safetensors")
            )
            / 1e6
        )
        facts = json.loads((done.folder / "export.json").read_text())
    entry: dict[str, Any] = {"megabytes": round(megabytes, 1), "seconds": round(time.perf_counter() - start, 1)}
    if done.check is not None:
        entry |= {f"cosine {item.output}": item.cosine for item in done.check.agreements}
        entry |= {f"difference {item.output}": item.max_difference for item in done.check.agreements}
    return {**entry, "versions": facts["versions"], "date": str(date.today())}


def page(known: dict[str, Any]) -> str:
    """The results as a page of the documentation."""
    lines = [
        "# Tested exports",
        "",
        "Written by `benchmarks/export_matrix.py`: models with random weights, exported in float32 at 224x224 and",
        "256x192 pixels and compared with the original on toybox pictures. A number is the largest of 1 - cosine over",
        "summary, patches and both sizes (10^-4 is allowed); *converts* means that the file was written, but the",
        "format does not run on the machine that wrote it.",
        "",
        f"| model | {' | '.join(FORMATS)} |",
        f"|---|{'---:|' * len(FORMATS)}",
    ]
    for model in dict.fromkeys(key.split()[0] for key in sorted(known, key=lambda key: rank(key.split()[0]))):
        lines.append(f"| {model} | {' | '.join(cell(known, model, kind) for kind in FORMATS)} |")
    versions: dict[str, set[str]] = {}
    for entry in known.values():
        for library, version in entry.get("versions", {}).items():
            versions.setdefault(library, set()).add(version)
    told = ", ".join(f"{library} {' and '.join(sorted(found))}" for library, found in sorted(versions.items()))
    days = " to ".join(sorted({entry["date"] for entry in known.values()}))
    return "\n".join([*lines, "", f"Versions: {told}. Measured {days}.", ""])


def rank(model: str) -> int:
    """Order of the rows."""
    return MODELS.index(model) if model in MODELS else len(MODELS)


def cell(known: dict[str, Any], model: str, kind: str) -> str:
    """One pair in a few characters."""
    entries = [entry for key, entry in known.items() if key.split()[:2] == [model, kind]]
    if not entries:
        return "not tried"
    failed = [entry["failed"] for entry in entries if "failed" in entry]
    if failed:
        return f"no: {failed[0].splitlines()[0][:60]}"
    cosines = [value for entry in entries for name, value in entry.items() if name.startswith("cosine")]
    return f"{max(0.0, 1 - min(cosines)):.0e}" if cosines else "converts"


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
