"""The command line: every verb parses its words, calls the function of the Python API of the same name, and prints."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import tyro

import eyespot
from eyespot.cli.audit import audit
from eyespot.cli.cache import cache
from eyespot.cli.deploy import benchmark, export, push
from eyespot.cli.measure import evaluate, report, visualize
from eyespot.cli.plan import plan
from eyespot.cli.recipes import distill, recipes
from eyespot.cli.toybox import quickstart, toybox
from eyespot.encoders.loading import SOURCES
from eyespot.specs import lookup

VERBS: dict[str, Callable[..., Any]] = {
    "quickstart": quickstart,
    "recipes": recipes,
    "plan": plan,
    "audit": audit,
    "cache": cache,
    "distill": distill,
    "evaluate": evaluate,
    "report": report,
    "visualize": visualize,
    "export": export,
    "benchmark": benchmark,
    "push": push,
    "toybox": toybox,
}

OF_RECIPES = (plan, cache, distill)
"""Verbs that read their arguments themselves, because they depend on the recipe."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the `eyespot` command."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(_usage())
        return
    if words[0] in ("--version", "-V"):
        print(eyespot.__version__)
        return
    try:
        verb = lookup(VERBS, words[0], "verb")
        if verb in OF_RECIPES:
            verb(words[1:])
        else:
            tyro.cli(verb, prog=f"eyespot {words[0]}", args=words[1:])
    except KeyboardInterrupt as error:
        _fail(str(error) or "stopped", 130)
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        if "EYESPOT_DEBUG" in os.environ:
            raise
        _fail(f"{error}", 1)


def _usage() -> str:
    title = f"eyespot {eyespot.__version__}: several large vision models in, one small universal encoder out."
    verbs = [f"  eyespot {name:<11} {(verb.__doc__ or '').strip().splitlines()[0]}" for name, verb in VERBS.items()]
    sources = [f"  {source.usage}" for source in SOURCES.values()]
    explained = "`eyespot VERB --help` explains a verb. Models are named by source:"
    return "\n".join([title, "", *verbs, "", explained, *sources])


def _fail(message: str, code: int) -> None:
    print(f"eyespot: {message}", file=sys.stderr)
    raise SystemExit(code)
