"""What all subjects of the fuzz share: cases, damages, and the judge.

A subject is a function that draws a case from a generator of random numbers: it writes files into a folder of its own
and says what is done with them, what they may be called in a message, and how the answer is judged. The outcome must be
*right*, *refused* in a sentence of ours that names the thing, or *skipped* with a warning that names it; all else is a
failure. The same seed draws the same case.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import shutil
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

import eyespot

SOURCE = str(Path(eyespot.__file__).parent)
OURS = (ValueError, OSError, RuntimeError, ImportError)
"""What the command line prints as one line, see `eyespot.cli.main`."""
OF_OTHERS = (UnicodeError,)
"""Kinds of these that nobody raises on purpose."""
MOST_WORDS = 1200
"""Characters of a message; who prints more has passed on a library's dump."""


class Wrong(AssertionError):
    """The answer is not right."""


class Skipped(Exception):
    """The answer is right as far as it goes, and what was left out was told of."""


@dataclass(frozen=True)
class Case:
    """One thing to try.

    Attributes:
        words: what was drawn.
        act: does it.
        names: a message or warning has to hold one of these: the file's name, the setting's.
        judge: (what `act` returned, texts of all warnings); raises `Wrong` or `Skipped`.
        may_refuse: False where nothing is wrong, so that a refusal is wrong.
    """

    words: str
    act: Callable[[], Any]
    names: Sequence[str]
    judge: Callable[[Any, list[str]], None] = lambda found, warned: None
    may_refuse: bool = True


Subject = Callable[[random.Random, Path], Case]


@dataclass
class Tally:
    """How the cases of a subject ended."""

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, Any]] = field(default_factory=list)


def outcome(case: Case) -> str:
    """ "right", "refused", "skipped", or "FAILURE: ..." """
    with warnings.catch_warnings(record=True) as caught, _silence() as printed:
        warnings.simplefilter("always")
        try:
            found = case.act()
            case.judge(found, [str(warning.message) for warning in caught])
        except Skipped:
            return "skipped"
        except Wrong as error:
            return f"FAILURE: {error}"
        except SystemExit as end:
            text = " ".join(printed.getvalue().replace("│", " ").split())
            named = not end.code or any(name in text for name in case.names)
            return "refused" if named else f"FAILURE: names none of {list(case.names)}: {text[:400]}"
        except Exception as error:
            fault = not_ours(error, case.names)
            if fault is None and not case.may_refuse:
                return f"FAILURE: refused although nothing is wrong: {error}"
            return "refused" if fault is None else f"FAILURE: {fault}"
    return "right"


def not_ours(error: Exception, names: Sequence[str]) -> str | None:
    """What is wrong with an error as an answer to people; None if it is a sentence of ours."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    kind, text = type(error), str(error)
    told = f"{kind.__module__}.{kind.__qualname__}: {text[:400]!r} from {Path(where.filename).name}:{where.lineno}"
    if not isinstance(error, OURS) or isinstance(error, OF_OTHERS):
        return f"no error of ours: {told}"
    if not (kind.__module__ == "builtins" or kind.__module__.startswith("eyespot")):
        return f"an error of a library: {told}"
    if not where.filename.startswith(SOURCE) and not isinstance(error, OSError):  # what the disk says names the file
        return f"raised by a library: {told}"
    if not any(name in text for name in names):
        return f"names none of {list(names)}: {told}"
    return f"a dump of {len(text)} characters: {told}" if len(text) > MOST_WORDS else None


@contextlib.contextmanager
def _silence() -> Iterator[io.StringIO]:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        yield printed


def check_case(subject: Subject, seed: str, folder: Path) -> tuple[str, str]:
    """Draws and tries one case: (its words, its outcome). `folder` is emptied."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    case = subject(random.Random(seed), folder)
    return case.words, outcome(case)


# Damages


def truncated(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def flipped(content: bytes, rng: random.Random) -> bytes:
    """Some bits turned, half the time near the beginning, where headers are."""
    damaged = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        if damaged:
            reach = min(len(damaged), rng.choice((64, len(damaged))))
            damaged[rng.randrange(reach)] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def zeroed(content: bytes, rng: random.Random) -> bytes:
    """A block of zeros, as a disk leaves it after a crash."""
    start = rng.randrange(len(content) + 1)
    length = min(rng.choice((4, 64, 512)), len(content) - start)
    return content[:start] + bytes(length) + content[start + length :]


def doubled(content: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(content) + 1)
    return content[:place] + content


def noise(content: bytes, rng: random.Random) -> bytes:
    return rng.randbytes(rng.choice((0, 1, 10, 1000)))


def text_page(content: bytes, rng: random.Random) -> bytes:
    """What a server sends in place of a file."""
    return b"<!DOCTYPE html><html><body>404 not found</body></html>\n"


def mutated(content: bytes, rng: random.Random) -> bytes:
    """A JSON or YAML text with one entry that is missing, renamed or of another kind."""
    tree = yaml.safe_load(content)
    holders = [node for node in _nodes(tree) if isinstance(node, dict | list) and node]
    if not holders:
        return b"[1, 2]"
    node = rng.choice(holders)
    key = rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
    fate = rng.choice(("gone", "renamed", "other", "other", "other"))
    if fate == "other":
        node[key] = rng.choice((None, True, -1, 1e30, "word", "", [], [[]], {}, {"a": {"b": 1}}))
    else:
        value = node.pop(key)
        if fate == "renamed" and isinstance(node, dict):
            node[f"{key}x"] = value
    return json.dumps(tree).encode()


def _nodes(tree: Any) -> Iterator[Any]:
    yield tree
    for below in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from _nodes(below)


DAMAGES = (truncated, flipped, flipped, zeroed, doubled, noise, text_page)


STRUCTURED = (".json", ".yaml")


def damage(path: Path, rng: random.Random) -> str:
    """Damages a file in place; says how."""
    kind = rng.choice((*DAMAGES, mutated, mutated, mutated) if path.suffix in STRUCTURED else DAMAGES)
    path.write_bytes(kind(path.read_bytes(), rng))
    return kind.__name__
