"""The two large suites, which run when their files or libraries are not those that they last passed with.

    python tests/suites.py select            the expression for `pytest -m` that leaves out what need not run
    python tests/suites.py run [MARK ...]    runs suites (those that are due if none is named), records what passed

What passed is kept in tests/passed.json, in the repository. Whoever changes the files of a suite runs it and commits
the record. Where that is forgotten, or a library is newer than it was, .ci/run finds the suite due and runs it: nothing
is left out because somebody forgot.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "tests/passed.json"

_ENCODERS = ("src/eyespot/*.py", "src/eyespot/encoders/**/*.py", "tests/helpers/*.py", "tests/conftest.py")
FILES = {
    "zoo": (*_ENCODERS, "tests/encoders/*.py"),
    "formats": (*_ENCODERS, "src/eyespot/deploy/**/*", "tests/deploy/*.py", "docs/deploy/**/*"),
}
"""What a suite looks at. Encoders stand on no folder but their own (tests/test_house.py)."""

LIBRARIES = {
    "zoo": ("torch", "torchvision", "timm", "transformers", "open_clip_torch", "onnxruntime"),
    "formats": (
        *("torch", "timm", "onnx", "onnxscript", "onnxruntime", "openvino", "nncf", "executorch", "torchao"),
        *("coremltools", "ai-edge-litert"),
    ),
}


def present(mark: str) -> dict[str, Any]:
    """What a suite would run with now, in the form of the record."""
    return {"files": _digest(FILES[mark]), "libraries": {name: _version(name) for name in LIBRARIES[mark]}}


def passed() -> dict[str, Any]:
    """What each suite last passed with."""
    return json.loads(RECORD.read_text()) if RECORD.exists() else {}


def due() -> dict[str, str]:
    """Marks of the suites that must run -> why."""
    last = passed()
    reasons = {mark: _difference(last.get(mark), present(mark)) for mark in FILES}
    return {mark: why for mark, why in reasons.items() if why}


def run(marks: Iterable[str]) -> int:
    """Runs the tests of each mark and records those that passed; the last exit code that was not 0, or 0."""
    code = 0
    for mark in marks:
        before = present(mark)
        ended = subprocess.run([sys.executable, "-m", "pytest", "-m", mark, "--durations=10"], cwd=ROOT).returncode
        if ended == 0 and before == present(mark):
            RECORD.write_text(json.dumps(passed() | {mark: before}, indent=2, sort_keys=True) + "\n")
        elif ended == 0:
            print(f"{mark}: its files changed meanwhile, so nothing is recorded", file=sys.stderr)
        code = ended or code
    return code


def _difference(last: dict[str, Any] | None, now: dict[str, Any]) -> str:
    """Why what passed says nothing about what is there; empty if it does."""
    if last is None:
        return "it has not passed yet"
    if last["files"] != now["files"]:
        return "its files changed"
    known = last["libraries"]
    return ", ".join(
        f"{name} {known.get(name)} -> {new}" for name, new in now["libraries"].items() if known.get(name) != new
    )


def _digest(patterns: Iterable[str]) -> str:
    found = hashlib.sha256()
    for pattern in patterns:
        paths = [path for path in sorted(ROOT.glob(pattern)) if path.is_file() and "__pycache__" not in path.parts]
        if not paths:
            raise FileNotFoundError(f"{pattern} matches nothing any more; mend FILES in tests/suites.py")
        for path in paths:
            content = path.read_bytes()
            found.update(f"{path.relative_to(ROOT).as_posix()} {len(content)}\n".encode() + content)
    return found.hexdigest()


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def main(arguments: list[str] | None = None) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("verb", choices=["select", "run"])
    parser.add_argument("marks", nargs="*", metavar="MARK", help=f"of {', '.join(FILES)}; default: those that are due")
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.marks) - FILES.keys():
        parser.error(f"no suite {', '.join(unknown)}; there are {', '.join(FILES)}")
    reasons = due()
    for mark, why in reasons.items():
        print(f"{mark} is due: {why}", file=sys.stderr)
    if chosen.verb == "run":
        return run(chosen.marks or reasons)
    print(" and ".join(f"not {mark}" for mark in FILES if mark not in reasons))
    return 0


if __name__ == "__main__":
    sys.exit(main())
