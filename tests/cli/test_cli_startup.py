"""What answers before anything is computed imports nothing that computes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from eyespot.cli.main import VERBS
from eyespot.recipes import RECIPES

HEAVY = ("torch", "torchvision", "timm", "lightning_fabric", "transformers", "scipy", "matplotlib")
WORKING = [name for name, recipe in RECIPES.items() if recipe.config]
RUN = """
import json, sys
from eyespot.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


def loaded_after(code: str, *arguments: str) -> set[str]:
    """The heavy packages that a fresh process has loaded after some code, whose last line of stderr lists all."""
    ended = subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True)
    return set(json.loads(ended.stderr.splitlines()[-1])) & set(HEAVY)


@pytest.mark.parametrize(
    "words",
    [
        *("--help", "--version", "distil", "recipes"),
        *(f"{verb} --help" for verb in VERBS),
        *(f"recipes {name}" for name in WORKING),
        *(f"distill {name} --help" for name in WORKING),
        *("plan eupe --help", "cache eupe --help"),
    ],
)
def test_an_answer_needs_no_heavy_library(words: str) -> None:
    assert loaded_after(RUN, *words.split()) == set()


@pytest.mark.parametrize(
    "statement",
    ["import eyespot", "from eyespot.recipes.eupe import EupeConfig", "from eyespot.data import DataConfig"],
)
def test_an_import_of_what_computes_nothing_needs_no_heavy_library(statement: str) -> None:
    code = f"{statement}\nimport json, sys; print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    assert loaded_after(code) == set()
    assert "torch" in loaded_after(f"from eyespot import Encoder\n{code}"), "the other way round it would be seen"
