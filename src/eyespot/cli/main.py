"""The command line: parses, calls the Python API, prints. Every verb is one call of the same name."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

import eyespot
from eyespot.cli.audit import audit
from eyespot.cli.cache import cache
from eyespot.cli.deploy import benchmark, export
from eyespot.cli.plan import plan
from eyespot.cli.recipes import DEFAULT_PRESET, distill
from eyespot.specs import lookup


def recipes(
    name: Annotated[str | None, tyro.conf.Positional] = None, preset: tuple[str, ...] = (DEFAULT_PRESET,)
) -> None:
    """Show which recipes there are, or one recipe's full configuration as YAML.

    Args:
        name: the recipe whose configuration to print.
        preset: which of its presets; several are laid over one another.
    """
    import yaml

    from eyespot.config import build
    from eyespot.recipes import RECIPES
    from eyespot.recipes.presets import preset_names, read_settings

    if name is None:
        table = Table("recipe", "what goes into what", "paper", "status", "presets")
        for recipe in RECIPES.values():
            presets = ", ".join(preset_names(recipe.name)) if recipe.config else ""
            table.add_row(recipe.name, recipe.about, recipe.paper, recipe.status, presets)
        Console().print(table)
        return
    recipe = lookup(RECIPES, name, "recipe")
    config = build(recipe.config_class, read_settings(recipe.name, preset), " + ".join(preset))
    print(yaml.safe_dump(_lists(asdict(config)), sort_keys=False), end="")


def quickstart(output: Path = Path("runs/quickstart"), preset: Literal["full", "short"] = "full") -> None:
    """Run the whole pipeline on the built-in toybox: experts, proxy, student, evaluation, report. No data needed.

    Args:
        output: the run folder.
        preset: full takes up to ten minutes on two cores, short about two.
    """
    from eyespot.quickstart import quickstart as run

    table = run(output, preset)
    table.print()
    _say(f"\nReport: {output / 'report.html'}   student: {output / 'student'}")


def visualize(
    model: Annotated[str, tyro.conf.Positional],
    images: Annotated[list[Path], tyro.conf.Positional],
    models: list[str] | None = None,
    output: Path = Path("features.png"),
    size: int = 448,
) -> None:
    """Show what encoders see: patch features of pictures as PCA colours, in one PNG sheet.

    Args:
        model: the encoder, e.g. run/runs/quickstart.
        images: picture files.
        models: further encoders, a column each.
        output: the PNG file.
        size: shorter side in pixels for encoders that take any size.
    """
    from eyespot.report import visualize_files

    _say(f"written: {visualize_files([model, *(models or [])], images, output, size)}")


def evaluate(
    models: Annotated[list[str], tyro.conf.Positional],
    tasks: list[str] | None = None,
    data: list[str] | None = None,
    size: int | None = None,
    sizes: list[int] | None = None,
    limit: int | None = None,
    seed: int = 0,
    timing: bool = True,
    options: list[str] | None = None,
    output: Path | None = None,
) -> None:
    """Measure frozen encoders on tasks; one table, a row per model.

    Args:
        models: specs, e.g. run/runs/quickstart onnx/depth.onnx.
        tasks: which protocols: knn, linear, few_shot, zero_shot, classification (what a model's own class head says),
            retrieval, segmentation, depth, normals, correspondence, reading, geometry, multitask (what a multi-task
            model's own heads say). By default those that the data name, or five of them on the toybox.
        data: toybox (default), or TASK=FOLDER for each task, e.g. knn=/data/flowers, or TASK=NAME:FOLDER for a known
            data set, e.g. segmentation=ade20k:/data/ADEChallengeData2016; see docs/datasets.md.
        size: input side in pixels for encoders that take any; their own default otherwise.
        sizes: measure every task at each of these sizes as well, as a curve.
        limit: at most this many pictures per split, for a quick look.
        seed: names every random draw.
        timing: measure milliseconds per picture.
        options: settings of a task, TASK.KEY=VALUE, e.g. zero_shot.text=open_clip/ViT-B-32.openai knn.k=20.
        output: folder for report.html, results.json, .csv and .md, features and finished measurements; the same command
            again continues an interrupted evaluation, and adds models or tasks without measuring anything twice.
    """
    from eyespot.evaluate import evaluate as run
    from eyespot.evaluate import read_sources, resolution_curve, shown_progress, task_options
    from eyespot.evaluate.tasks import DEFAULT_TASKS
    from eyespot.files import atomic_write_text
    from eyespot.report import write_evaluation_report

    source = read_sources(data or ["toybox"])
    chosen = tasks or (list(source) if isinstance(source, dict) else list(DEFAULT_TASKS))
    settings: dict[str, Any] = {"limit": limit, "seed": seed, "folder": output}
    by_option = task_options(options or [])
    curves = {}
    with shown_progress() as progress:
        table = run(models, chosen, source, size, options=by_option, progress=progress, timing=timing, **settings)
        for task in chosen if sizes else ():
            data_of = source[task] if isinstance(source, dict) else source
            curves[task] = resolution_curve(
                models, task, data_of, tuple(sizes or ()), options=by_option.get(task), progress=progress, **settings
            )
        if output is not None:
            for suffix, text in (("json", table.to_json()), ("csv", table.to_csv()), ("md", table.to_markdown())):
                atomic_write_text(output / f"results.{suffix}", text)
            for task, curve in curves.items():
                atomic_write_text(output / f"resolution-{task}.json", curve.to_json())
            write_evaluation_report(
                output / "report.html", table, data=source, curves=[*curves.values()], folder=output, progress=progress
            )
    for shown in (table, *(curve.table() for curve in curves.values())):
        shown.print()
    if output is not None:
        _say(f"written: {output}/report.html, and results.json, .csv, .md")


def report(
    folders: Annotated[list[Path], tyro.conf.Positional],
    output: Path = Path("report.html"),
    pictures: list[Path] | None = None,
    size: int = 224,
) -> None:
    """Write one HTML page about training runs and evaluations, side by side; it works offline and on a phone.

    Args:
        folders: runs, and output folders of `eyespot evaluate`.
        output: the HTML file.
        pictures: picture files; all models that can be loaded show what they see in them.
        size: shorter side in pixels at which they see them; half of it and, up to 512, twice as much too.
    """
    from eyespot.evaluate import shown_progress
    from eyespot.report import write_folder_report

    with shown_progress() as progress:
        written = write_folder_report(output, folders, pictures or (), size, progress)
    _say(f"written: {written}")


def toybox(output: Path = Path("toybox.png"), count: int = 24, size: int = 128, first: int = 0) -> None:
    """Draw a contact sheet of toybox scenes with their ground truth.

    Args:
        output: the PNG file.
        count: how many scenes.
        size: pixels per side of each.
        first: seed of the first scene.
    """
    from eyespot.data.toybox import contact_sheet

    contact_sheet(output, seeds=range(first, first + count), size=size)
    _say(f"written: {output}")


def push(
    run: Annotated[Path, tyro.conf.Positional],
    repo: Annotated[str, tyro.conf.Positional],
    private: bool = False,
    revision: str | None = None,
    message: str = "Upload student",
) -> None:
    """Upload a finished student to the Hugging Face hub, ready for eyespot and timm to load.

    Args:
        run: the run's folder.
        repo: name of the repository on the hub, USER/NAME; made if it is not there.
        private: nobody else may see a repository made for it.
        revision: branch to commit to; the main one by default.
        message: of the commit.
    """
    from eyespot.deploy import push as upload

    address = upload(run, repo, private=private, revision=revision, message=message, say=_say)
    _say(f"The student is at {address}")


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
        _usage()
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
    except (ValueError, OSError, RuntimeError, ImportError, TypeError) as error:
        if "EYESPOT_DEBUG" in __import__("os").environ:
            raise
        _fail(f"{error}", 1)


def _usage() -> None:
    _say(f"eyespot {eyespot.__version__}: several large vision models in, one small universal encoder out.\n")
    for name, verb in VERBS.items():
        _say(f"  eyespot {name:<11} {(verb.__doc__ or '').strip().splitlines()[0]}")
    _say("\n`eyespot VERB --help` explains a verb. Models are named by source:")
    from eyespot.encoders import SOURCES

    for source in SOURCES.values():
        _say(f"  {source.usage}")


def _lists(value: Any) -> Any:
    """Tuples as lists, for YAML."""
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in value.items()}
    return [_lists(item) for item in value] if isinstance(value, list | tuple) else value


def _say(text: str) -> None:
    print(text)


def _fail(message: str, code: int) -> None:
    print(f"eyespot: {message}", file=sys.stderr)
    raise SystemExit(code)
