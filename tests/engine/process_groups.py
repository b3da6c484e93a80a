"""Groups of real processes that train together over gloo, as torchrun would start them, but without its imports."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from toy_training import BATCH_SIZE, PLAIN, Crash, ToyTask, make_trainer, toy_optim

from eyespot.data import DataConfig, PictureLoader
from eyespot.data.loading.batch import Batch
from eyespot.engine.config import EngineConfig
from processes import start_process

RANK_FILE = "rank-{}.txt"


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
        return port


def start_group(size: int, work: Callable[..., None], folder: Path, *arguments: Any) -> list[Any]:
    """Starts `work(rank, size, folder, *arguments)` in `size` processes. What each ends with: `endings(folder)`."""
    port = free_port()
    return [start_process(_join_group, rank, size, port, work, folder, *arguments) for rank in range(size)]


def run_group(size: int, work: Callable[..., None], folder: Path, *arguments: Any) -> list[str]:
    """Runs a group to its end; returns what each process ended with."""
    folder.mkdir(parents=True, exist_ok=True)
    for process in start_group(size, work, folder, *arguments):
        process.join()
    return endings(folder, size)


def endings(folder: Path, size: int) -> list[str]:
    """ "done", or the error of each process, or "" if it had no time to say."""
    files = [folder / RANK_FILE.format(rank) for rank in range(size)]
    return [file.read_text() if file.exists() else "" for file in files]


def _join_group(rank: int, size: int, port: int, work: Callable[..., None], folder: Path, *arguments: Any) -> None:
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "GROUP_RANK": 0}
    os.environ.update({name: str(value) for name, value in names.items()})
    os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test"})
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "False"
    multiprocessing.set_start_method("fork", force=True)  # for data workers: a fork server would import all again
    os.dup2(os.open(folder / f"stderr-{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    file = folder / RANK_FILE.format(rank)
    file.unlink(missing_ok=True)
    try:
        work(rank, size, folder, *arguments)
    except BaseException as error:
        file.write_text(f"{type(error).__name__}: {error}")
        traceback.print_exc()
        error.__traceback__ = None  # it would keep data workers alive
        sys.exit(1)
    file.write_text("done")


def write_sources(folder: Path, pictures: int) -> None:
    """The same pictures as files and as WebDataset shards."""
    import tarfile

    (folder / "files").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(pictures):
        picture = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        picture.save(folder / f"files/{number:02d}.png")
    for shard, start in enumerate(range(0, pictures, 9)):
        with tarfile.open(folder / f"shard-{shard:02d}.tar", "w") as tar:
            for number in range(start, min(start + 9, pictures)):
                tar.add(folder / f"files/{number:02d}.png", f"{number:02d}.png")


class Recorder:
    """A loader that writes down which pictures it hands out, and fails before a step if it is told to."""

    def __init__(self, inner: PictureLoader, file: Path, fails_at: int | None) -> None:
        self.inner, self.file, self.fails_at = inner, file, fails_at
        self.batch, self.fingerprint = inner.batch, inner.fingerprint

    def batches(self, start_step: int = 0) -> Iterator[Batch]:
        for batch in self.inner.batches(start_step):
            if batch["step"] == self.fails_at:
                raise Crash
            if torch.is_grad_enabled():  # not in the pass over the data before training
                rows = zip(batch["source"].tolist(), batch["index"].tolist(), batch["view"].tolist(), strict=True)
                with open(self.file, "a") as file:
                    file.writelines(f"{batch['step']} {source} {index} {view}\n" for source, index, view in rows)
            yield batch


def loader(sources: list[str], rank: int, size: int, workers: int) -> PictureLoader:
    data = DataConfig(sources=sources, size=16, workers=workers, seed=1)
    return PictureLoader(data, BATCH_SIZE, rank, size)


def train(
    rank: int,
    size: int,
    folder: Path,
    sources: list[str],
    workers: int = 0,
    fails_at: int | None = None,
    engine: dict[str, Any] | None = None,
    optim: dict[str, Any] | None = None,
) -> None:
    """Trains the toy on real sources; checkpoints every two steps; the result is in `result.pt`.

    Without random draws inside, which would differ between processes by design.
    """
    settings = {"checkpoint_every": 2, **(engine or {})}
    task = ToyTask(dropout=0)
    trainer = make_trainer(
        folder,
        task=task,
        data=Recorder(loader(sources, rank, size, workers), folder / f"seen-{size}-{rank}.txt", fails_at),
        engine=EngineConfig(**{**PLAIN.__dict__, **settings}),
        optim=toy_optim(**(optim or {})),
    )
    student = trainer.train()["student"]
    if rank == 0:
        torch.save(student.state_dict(), folder / "result.pt")


def seen(folder: Path) -> dict[int, list[tuple[int, ...]]]:
    """(source, index, view) of every picture by step, of all processes together, in the order of the processes."""
    found: dict[int, list[tuple[int, ...]]] = {}
    for file in sorted(folder.glob("seen-*.txt")):
        for line in file.read_text().splitlines():
            step, *row = map(int, line.split())
            found.setdefault(step, []).append(tuple(row))
    return found
