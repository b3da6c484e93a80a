"""What can happen to a training in an hour: each kind of event, and what the program should do about it."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from soak_program import Program
from soak_state import State, finished_checkpoints, look, shards, under_way

PATIENCE = 900.0
"""Seconds in which a program that cannot go on must have ended."""

WATCH = 180.0
"""Seconds to wait for the beginning of a write."""


@dataclass(frozen=True)
class Scene:
    """Where it happens.

    Attributes:
        run: the run folder.
        cache: the teacher cache.
        disk: the small file system that both are on; None if it is not a file system of its own.
        rng: names every random choice.
        start: starts the same command again.
    """

    run: Path
    cache: Path
    disk: Path | None
    rng: random.Random
    start: Callable[[], Program]


@dataclass
class Deed:
    """What an event did.

    Attributes:
        what: in words.
        before: what was finished at that moment.
        program: which is to be judged.
        exits: exit codes that are right; None if the program is to go on.
        says: regular expression that what it says must match, naming the cause; None if it can say nothing.
        forgiven: shards that were damaged on purpose.
    """

    what: str
    before: State
    program: Program
    exits: tuple[int, ...] | None
    says: str | None = None
    forgiven: tuple[str, ...] = ()


def kill(scene: Scene, program: Program) -> Deed:
    """SIGKILL at any moment, be it at startup."""
    before = _struck(scene, program, program.pid, signal.SIGKILL)
    return Deed("SIGKILL of the main process", before, program, (-signal.SIGKILL,))


def kill_worker(scene: Scene, program: Program) -> Deed:
    """SIGKILL of one data worker, as the system does when memory runs out."""
    before = _struck(scene, program, scene.rng.choice(program.data_workers()), signal.SIGKILL)
    return Deed("SIGKILL of a data worker", before, program, (1,), r"worker.*(died|killed)")


def terminate(scene: Scene, program: Program) -> Deed:
    """SIGTERM, as a scheduler sends it: a checkpoint and a clean end. Before and between trainings it just ends."""
    before = _struck(scene, program, program.pid, signal.SIGTERM)
    program.wait(PATIENCE)
    trained = bool(re.search(r"stopped at step \d+; the same command continues", program.said()))
    return Deed("SIGTERM", before, program, (130,) if trained else (-signal.SIGTERM,))


def fill_disk(scene: Scene, program: Program) -> Deed:
    """A ballast file that leaves nothing, or up to some hundred KiB; freed when the program has ended."""
    assert scene.disk is not None
    left = scene.rng.choice((0, scene.rng.randrange(400 * 1024)))
    ballast = scene.disk / "ballast"
    with program.held():
        with open(ballast, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, shutil.disk_usage(scene.disk).free - left))
        before = look(scene.run, scene.cache)
    program.wait(PATIENCE)
    ballast.unlink()
    what = f"disk filled, {left // 1024} KiB left"
    return Deed(what, before, program, (1,), r"(?i)no space left|disk full|make room")


def flip_byte(scene: Scene, program: Program) -> Deed:
    """One byte of a finished cache shard changes while it is in use."""
    with program.held():
        before = look(scene.run, scene.cache)
        shard = scene.rng.choice(shards(scene.cache))
        place = scene.rng.randrange(shard.stat().st_size)
        with open(shard, "r+b") as file:
            file.seek(place)
            (byte,) = file.read(1)
            file.seek(place)
            file.write(bytes((byte ^ 1 << scene.rng.randrange(8),)))
    until(lambda: shard.name in program.said() or not program.alive, WATCH)
    what = f"bit flipped in byte {place} of cache shard {shard.name}"
    return Deed(what, before, program, None, None, (str(shard.relative_to(scene.cache)),))


def cut_checkpoint(scene: Scene, program: Program) -> Deed:
    """The newest checkpoint loses its end. The next start must name it; it is deleted as the message says."""
    _struck(scene, program, program.pid, signal.SIGKILL)
    program.wait()
    program.leftovers()
    stage = under_way(scene.run)
    assert stage is not None
    newest = finished_checkpoints(stage)[-1]
    victim = newest if newest.is_file() else max(newest.rglob("*"), key=lambda file: file.stat().st_size)
    kept = scene.rng.randrange(victim.stat().st_size)
    os.truncate(victim, kept)
    again = scene.start()
    again.wait(PATIENCE)
    shutil.rmtree(newest) if newest.is_dir() else newest.unlink()
    what = f"SIGKILL; {newest.name} cut to {kept} bytes, started again, then deleted as told"
    return Deed(what, look(scene.run, scene.cache), again, (1,), rf"{re.escape(newest.name)}.*delete")


def kill_in_checkpoint(scene: Scene, program: Program) -> Deed:
    """SIGKILL while a checkpoint lies there under its temporary name."""
    return _kill_in_write(scene, program, "checkpoint", lambda: scene.run.glob("stage-*/checkpoints/.step-*"))


def kill_in_shard(scene: Scene, program: Program) -> Deed:
    """SIGKILL while a cache shard lies there under its temporary name."""
    return _kill_in_write(scene, program, "cache shard", lambda: scene.cache.glob("*/.rows-*"))


def until(reached: Callable[[], bool], seconds: float, pause: float = 0.05) -> bool:
    """Waits for a condition, at most so long; whether it came true. `pause` seconds lie between two looks."""
    end = time.monotonic() + seconds
    while not (done := reached()) and time.monotonic() < end:
        time.sleep(pause)
    return done


def _kill_in_write(scene: Scene, program: Program, what: str, temporaries: Callable[[], Iterable[Path]]) -> Deed:
    caught = until(lambda: any(temporaries()) or not program.alive, WATCH, pause=0.0005) and program.alive
    before = _struck(scene, program, program.pid, signal.SIGKILL)
    where = f"in the middle of writing a {what}" if caught else f"(no {what} was seen being written)"
    return Deed(f"SIGKILL {where}", before, program, (-signal.SIGKILL,) if caught else (-signal.SIGKILL, 0))


def _struck(scene: Scene, program: Program, pid: int, number: signal.Signals) -> State:
    """Sends a signal; what was finished at that moment."""
    with program.held():
        before = look(scene.run, scene.cache)
        program.send(pid, number)
    return before


@dataclass(frozen=True)
class Kind:
    """A kind of event.

    Attributes:
        name: for the log.
        act: makes it happen and waits for what can be waited for.
        fits: whether it can happen now.
        any_time: whether it may also strike before training has begun.
    """

    name: str
    act: Callable[[Scene, Program], Deed]
    fits: Callable[[Scene, Program], bool] = lambda scene, program: True
    any_time: bool = False


def _has_two_checkpoints(scene: Scene, program: Program) -> bool:
    stage = under_way(scene.run)
    return stage is not None and len(finished_checkpoints(stage)) >= 2


def _first_stage(scene: Scene, program: Program) -> bool:
    stage = under_way(scene.run)
    return stage is not None and stage.name.startswith("stage-1")


KINDS = (
    Kind("kill", kill, any_time=True),
    Kind("kill a data worker", kill_worker, lambda scene, program: bool(program.data_workers())),
    Kind("SIGTERM", terminate, any_time=True),
    Kind("disk full", fill_disk, lambda scene, program: scene.disk is not None, any_time=True),
    Kind(
        "bit flip in the cache",
        flip_byte,
        lambda scene, program: _first_stage(scene, program) and bool(shards(scene.cache)),
    ),
    Kind("checkpoint cut short", cut_checkpoint, _has_two_checkpoints),
    Kind(
        "kill while a checkpoint is written",
        kill_in_checkpoint,
        lambda scene, program: under_way(scene.run) is not None,
    ),
    Kind("kill while a cache shard is written", kill_in_shard, _first_stage),
)
