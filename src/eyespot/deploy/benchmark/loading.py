"""Opening a model by a runtime, ready to be timed; happens in a worker."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from eyespot.deploy.benchmark.runtimes import Runtime
from eyespot.encoders import Encoder
from eyespot.encoders.frozen import load_frozen
from eyespot.encoders.runtimes.exported import FileEncoder, Session
from eyespot.encoders.runtimes.openvino import import_openvino

OUTPUTS = ("summary", "patches")
COMPILE = "compile"


@dataclass(frozen=True)
class Target:
    """What a worker is to run.

    Attributes:
        model: spec of the model.
        runtime: by which it runs.
        batch: pictures per run.
        size: (height, width) in pixels.
        file: what was prepared for this runtime: its exported file, or the folder of torch.compile's cache; None if it
            runs the model as it is.
    """

    model: str
    runtime: Runtime
    batch: int
    size: tuple[int, int]
    file: Path | None = None


def seeded_encoder(spec: str) -> Encoder:
    """The model; if it has random weights, the same ones in every process."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return load_frozen(spec)


def import_library(runtime: Runtime) -> None:
    """Imports what the runtime needs, so that neither load time nor memory counts it."""
    if runtime.format:
        importlib.import_module(f"eyespot.encoders.runtimes.{runtime.format}")
    if runtime.format == "openvino":
        import_openvino()
    elif runtime.library:
        importlib.import_module(runtime.library)


def open_target(target: Target) -> tuple[Callable[[], object], int]:
    """Loads what is to be timed.

    Returns:
        What runs it once on a batch of noise, and its size in bytes: of its file, or of its weights.

    Raises:
        ValueError: a file that takes other batches.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(target.batch, 3, *target.size, generator=generator)
    runtime = target.runtime
    if target.file is not None and runtime.format:
        source = importlib.import_module(f"eyespot.encoders.runtimes.{runtime.format}")
        session = source.open_session(target.file, torch.get_num_threads(), **runtime.options)
        return _run_of(session, OUTPUTS, images), sum(map(bytes_of_file, session.files))
    encoder = seeded_encoder(target.model)
    if isinstance(encoder, FileEncoder):
        names = tuple(name for name in encoder.outputs if name != "mean")
        return _run_of(encoder.session, names, images), sum(map(bytes_of_file, encoder.files))
    size = sum(value.numel() * value.element_size() for value in encoder.state_dict().values())
    work = encoder.named_outputs
    model = _compiled(work, target.file) if runtime.name == COMPILE else work
    half = runtime.precision == "bfloat16"

    @torch.inference_mode()
    def run() -> object:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            return model(images)

    return run, size


def _compiled(work: Callable[[Tensor], object], cache: Path | None) -> Callable[[Tensor], object]:
    """The model through torch.compile, whose cache of compiled code is in the folder `cache`."""
    if cache is not None:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache.absolute())
    from torch._inductor import config

    config.compile_threads = 1  # a pool of compilers would outlive the compilation
    compiled: Callable[[Tensor], object] = torch.compile(work, dynamic=False)
    return compiled


def _run_of(session: Session, names: tuple[str, ...], images: Tensor) -> Callable[[], object]:
    if session.taken.batch not in (None, len(images)):
        raise ValueError(f"the file takes batches of {session.taken.batch} only, not of {len(images)}")
    return lambda: session.run(images, names)


def bytes_of_file(file: Path) -> int:
    """Size of a file, or of all that is in a folder (formats that are one)."""
    parts = file.rglob("*") if file.is_dir() else [file]
    return sum(part.stat().st_size for part in parts if part.is_file())
