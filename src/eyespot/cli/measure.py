"""The verbs that measure models and show what they see."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro


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
    from eyespot.evaluate import read_sources, shown_progress, task_options
    from eyespot.report import evaluate_and_report

    source, by_task = read_sources(data or ["toybox"]), task_options(options or [])
    with shown_progress() as progress:
        found = evaluate_and_report(
            models, tasks, source, size, sizes or (), limit, seed, timing, by_task, output, progress
        )
    for table in found.tables:
        table.print()
    if output is not None:
        print(f"written: {output}/report.html, and results.json, .csv, .md")


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
    print(f"written: {written}")


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

    print(f"written: {visualize_files([model, *(models or [])], images, output, size)}")
