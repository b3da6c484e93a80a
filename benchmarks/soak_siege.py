"""The siege: starts a training again and again, lets something happen to it, and judges what is left."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from eyespot.files import remove
from soak_events import PATIENCE, Deed, Kind, Scene, until
from soak_program import Program
from soak_state import State, look, lost, progress, temporaries

EARLY = 0.15
"""Share of the events that strike at startup."""

STARTUP_SECONDS = 20.0

MOST_FAILURES = 5
"""Unexpected ends after which the siege gives up."""


@dataclass(frozen=True)
class Entry:
    """A line of the log.

    Attributes:
        minute: of the siege.
        where: stage and step of the newest line of metrics.
        kind: of event.
        deed: what was done.
        answer: what the program did and said.
        faults: what was lost or wrong; empty if nothing.
    """

    minute: float
    where: str
    kind: str
    deed: str
    answer: str
    faults: list[str]


@dataclass
class Siege:
    """A training that is disturbed, and what has happened to it.

    Attributes:
        scene: where it happens.
        minutes: how long it is disturbed; then it may finish in peace.
        gap: CPU seconds of training before an event, on average.
        keep: checkpoints that the training keeps.
        kinds: what may happen.
        note: called after every event.
        log: what has happened so far.
        results: the state of every run that was finished.
    """

    scene: Scene
    minutes: float
    gap: float
    keep: int
    kinds: Sequence[Kind]
    note: Callable[[Siege], None]
    log: list[Entry] = field(default_factory=list)
    results: list[State] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._began = time.monotonic()
        self._bag: list[Kind] = []
        self._failures = 0

    @property
    def minute(self) -> float:
        """Minutes since it began."""
        return (time.monotonic() - self._began) / 60

    def hold_out(self) -> None:
        """Events until the time is up, then to the end of the run in peace."""
        program = self.scene.start()
        while True:
            kind = self._next_kind(program)
            if kind is None:
                if self._finish(program):
                    return
                program = self.scene.start()
                continue
            minute, where = self.minute, progress(self.scene.run)
            deed = kind.act(self.scene, program)
            self._add(Entry(minute, where, kind.name, deed.what, *self._judged(deed)))
            if not program.alive:
                program = self.scene.start()

    def _next_kind(self, program: Program) -> Kind | None:
        """Waits for a random moment and draws what is to happen; None if the program has ended or time is up."""
        if self.minute >= self.minutes:
            return None
        if not self._bag:  # every kind comes up before one comes again
            self._bag = list(self.kinds)
        early = any(kind.any_time for kind in self._bag) and self.scene.rng.random() < EARLY
        if not early:
            until(lambda: trains(self.scene.run, program) or not program.alive, PATIENCE)
        # Counted as the training computes, so that it comes as far on a busy machine as on an idle one.
        moment = program.computed() + self.scene.rng.uniform(0, STARTUP_SECONDS if early else 2 * self.gap)
        until(lambda: not program.alive or program.computed() >= moment, 60 * self.minutes)
        until(lambda: bool(self._possible(program, early)) or not program.alive, PATIENCE)
        if not program.alive or not (possible := self._possible(program, early)):
            return None
        chosen = self.scene.rng.choice(possible)
        if chosen in self._bag:
            self._bag.remove(chosen)
        return chosen

    def _possible(self, program: Program, early: bool) -> list[Kind]:
        """The kinds that can happen now, and of those the ones that have not come up in this turn, if there are any."""
        fitting = [kind for kind in self.kinds if kind.fits(self.scene, program) and (kind.any_time or not early)]
        return [kind for kind in fitting if kind in self._bag] or fitting

    def _judged(self, deed: Deed) -> tuple[str, list[str]]:
        """What the program did after an event, and what of that is wrong."""
        program, faults = deed.program, []
        if deed.exits is None:
            answer = "went on" if program.alive else f"exit {program.wait()}"
            named = [file for file in deed.forgiven if Path(file).name in program.said()]
            answer += "; it named the shard and computed its rows again" if named else "; the shard was not read again"
            faults += [] if program.alive or program.wait() == 0 else [f"it ended: {program.last_words()}"]
        else:
            code = program.wait(PATIENCE)
            answer = f"exit {code}" + ("" if code in (-9, -15) else f": {program.last_words()}")
            if code not in deed.exits:
                faults.append(f"exit {code} instead of {' or '.join(map(str, deed.exits))}")
                program.kill()
            if deed.says and not re.search(deed.says, " ".join(program.said().split())):
                faults.append("the message does not name the cause")
            if "Traceback" in program.said() and "eyespot: " not in program.said():
                faults.append("a traceback instead of a message")
            faults += _leftovers(program)
        with program.held():
            faults += lost(deed.before, look(self.scene.run, self.scene.cache), self.keep, deed.forgiven)
        return answer, faults

    def _finish(self, program: Program) -> bool:
        """To the end of a start that nothing disturbs any more; whether all is over."""
        last = self.minute >= self.minutes
        code = program.wait()
        faults = _leftovers(program)
        if code == 0:
            places = (self.scene.run, self.scene.cache)
            faults += [f"temporary file {path.name} left" for path in temporaries(*places)]
            self.results.append(look(*places))
        else:
            self._failures += 1
            faults.append("it ended by itself")
        where = progress(self.scene.run)
        answer = f"exit {code}" + ("" if code == 0 else f": {program.last_words()}")
        self._add(Entry(self.minute, where, "none", "nothing, to the end", answer, faults))
        over = (last and code == 0) or self._failures > MOST_FAILURES
        if code == 0 and not over:
            remove(self.scene.run)
            remove(self.scene.cache)
        return over

    def _add(self, entry: Entry) -> None:
        self.log.append(entry)
        self.note(self)


def trains(run: Path, program: Program) -> bool:
    """Whether a program has come to training: it then opens the metrics anew."""
    metrics = run / "metrics.jsonl"
    return metrics.exists() and metrics.stat().st_mtime > program.began


def _leftovers(program: Program) -> list[str]:
    left = program.leftovers()
    return [f"{len(left)} processes left"] if left else []
