"""What a command costs before it does anything: CPU seconds (user and system) of help texts, lists and bare imports.

    python benchmarks/startup.py [--source before=OTHER/src] [--repeats 5]

Each command is a process of its own, with the byte code of its modules already written. Processor time, because other
work may share the machine; the least of the repeats, because what disturbs a process only ever adds to it. `--source`
measures other source trees as well, for a comparison.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from eyespot.report import machine_info

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = {
    "eyespot --help": ["-m", "eyespot", "--help"],
    "eyespot --version": ["-m", "eyespot", "--version"],
    "eyespot distil (misspelt)": ["-m", "eyespot", "distil"],
    "eyespot recipes": ["-m", "eyespot", "recipes"],
    "eyespot recipes eupe": ["-m", "eyespot", "recipes", "eupe"],
    "eyespot recipes sak": ["-m", "eyespot", "recipes", "sak"],
    "eyespot recipes vanilla_kd": ["-m", "eyespot", "recipes", "vanilla_kd"],
    "eyespot distill eupe --help": ["-m", "eyespot", "distill", "eupe", "--help"],
    "eyespot plan eupe --help": ["-m", "eyespot", "plan", "eupe", "--help"],
    "eyespot cache eupe --help": ["-m", "eyespot", "cache", "eupe", "--help"],
    "eyespot evaluate --help": ["-m", "eyespot", "evaluate", "--help"],
    "eyespot export --help": ["-m", "eyespot", "export", "--help"],
    "import eyespot": ["-c", "import eyespot"],
    "from eyespot import load_encoder": ["-c", "from eyespot import load_encoder"],
    "from eyespot.recipes.eupe import EupeConfig": ["-c", "from eyespot.recipes.eupe import EupeConfig"],
    "from eyespot.recipes.eupe import distill": ["-c", "from eyespot.recipes.eupe import distill"],
    "import torch, for scale": ["-c", "import torch"],
}


def cpu_seconds(arguments: list[str], source: Path, repeats: int) -> float:
    """User and system seconds of a Python process, the least of several after one that is not counted."""
    environment = {**os.environ, "PYTHONPATH": str(source), "COLUMNS": "120"}
    seconds = []
    for _ in range(repeats + 1):
        process = subprocess.Popen(
            [sys.executable, *arguments], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _, _, usage = os.wait4(process.pid, 0)
        seconds.append(usage.ru_utime + usage.ru_stime)
    return round(min(seconds[1:]), 3)


def table(measured: dict[str, dict[str, float]]) -> str:
    """Markdown, a column per source tree."""
    lines = [["command", *measured], ["---", *("---:" for _ in measured)]]
    lines += [[f"`{name}`", *(f"{found[name]:.2f}" for found in measured.values())] for name in COMMANDS]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", nargs="*", default=[], metavar="NAME=FOLDER", help="further source trees")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/startup")
    options = parser.parse_args()
    sources = {name: Path(folder) for name, _, folder in (entry.partition("=") for entry in options.source)}
    sources["now"] = ROOT / "src"
    measured = {
        name: {command: cpu_seconds(words, folder, options.repeats) for command, words in COMMANDS.items()}
        for name, folder in sources.items()
    }
    facts = {"unit": "CPU seconds", "repeats": options.repeats, "machine": machine_info(), "seconds": measured}
    options.output.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    text = f"CPU seconds, the least of {options.repeats} processes each.\n\n{table(measured)}\n"
    options.output.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
