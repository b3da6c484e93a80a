"""The verbs that bring an encoder onto a device, or into the world."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import tyro


def export(
    model: Annotated[str, tyro.conf.Positional],
    output: Path,
    format: str = "onnx",
    image_size: tuple[str, ...] = (),
    batch: str = "1",
    quantize: Literal["int8", "int8-weights"] | None = None,
    calibration: list[str] | None = None,
    calibration_count: int = 64,
    keep_float: list[str] | None = None,
    tasks: list[str] | None = None,
    data: list[str] | None = None,
    limit: int | None = None,
    max_loss: float = 3.0,
    layers: tuple[int, ...] = (),
    space: str | None = None,
    text: str | None = None,
    classes: tuple[str, ...] = (),
    names: str | None = None,
    templates: tuple[str, ...] = ("plain",),
    pictures: list[str] | None = None,
    seed: int = 0,
) -> None:
    """Write an encoder for a device: one file, checked against the model before it gets its name.

    Args:
        model: the encoder, e.g. run/runs/quickstart.
        output: folder for the file, export.json and reference.safetensors.
        format: onnx, openvino, executorch, coreml, litert or torch.
        image_size: HEIGHT WIDTH in pixels, or one number for a square; the model's default size if left out;
            "dynamic" for any size (onnx, openvino, torch).
        batch: pictures per run; "dynamic" for any number (onnx, openvino, torch).
        quantize: int8 rounds weights and activations to 8 bits, int8-weights only the weights; see docs/deploy/int8.md.
        calibration: folders or shards with pictures like those of use; the toybox if left out.
        calibration_count: how many of them.
        keep_float: names of layers that stay in float; found by measuring if left out, "none" for none.
        tasks: what int8 is checked on: knn, segmentation, depth, ... or none.
        data: of those tasks, as for `eyespot evaluate`: toybox (default), or TASK=FOLDER for each.
        limit: at most this many pictures per split in that check.
        max_loss: points (percent for errors) that a task may lose; more is a failure.
        layers: inner blocks or stages as further outputs, layer_N.
        space: a teacher whose space is a further output, through the adapter heads: clip_summary, clip_patches.
        text: an image-text model, or a file of embeddings, for a zero-shot head as a further output, class_scores.
        classes: its class names.
        names: the file of names that belongs to a .npy file of embeddings.
        templates: sentences for the class names.
        pictures: folders or shards for the numeric check; the toybox if left out.
        seed: names every draw of pictures.
    """
    from eyespot.deploy import Int8, class_text
    from eyespot.deploy import export as run
    from eyespot.evaluate import read_sources

    zero_shot = {"text": class_text(text, classes or None, names, templates)} if text else None
    int8 = None
    if quantize is not None:
        int8 = Int8(
            pictures=calibration,
            count=calibration_count,
            weights_only=quantize == "int8-weights",
            keep_float=() if keep_float == ["none"] else keep_float,
            data=None if tasks == ["none"] else read_sources(data or ["toybox"]),
            tasks=tasks,
            limit=limit,
            max_loss=max_loss,
        )
    done = run(
        model,
        format,
        output,
        image_size=_size(image_size),
        batch="dynamic" if batch == "dynamic" else int(batch),
        layers=layers,
        space=space,
        zero_shot=zero_shot,
        int8=int8,
        pictures=pictures,
        seed=seed,
    )
    for shown in (done.check, done.tasks):
        if shown is not None:
            shown.print()
    if done.keep_float:
        print(f"kept in float: {', '.join(done.keep_float)}")
    print(f"written: {done.file}" + (f'   load it: eyespot.load_encoder("{done.spec}")' if done.spec else ""))


def benchmark(
    models: Annotated[list[str], tyro.conf.Positional],
    runtimes: list[str] | None = None,
    image_size: tuple[str, ...] = (),
    threads: int | None = None,
    batch: tuple[int, ...] = (1,),
    rounds: int = 10,
    runs: int = 5,
    output: Path = Path("runs/benchmark"),
) -> None:
    """Find the fastest runtime on this machine: latency, memory, load time and more, side by side.

    Ratios are taken between runs that follow one another, so that they hold on a busy machine too.

    Args:
        models: specs, e.g. run/runs/mine; files of other runtimes (onnx/FILE) are timed as they are.
        runtimes: eager, eager-bf16, compile, torch, onnx, onnx-int8, openvino, openvino-bf16, openvino-int8,
            executorch, executorch-int8, litert; all if left out. What is not installed is skipped.
        image_size: one or several, 224 for a square or 256x192 (height x width); each model's default if left out.
        threads: how many each runtime computes with; as many as there are cores if left out.
        batch: pictures per run, one or several.
        rounds: in each of them every runtime has its turn, so that what slows the machine slows all of them.
        runs: most timed runs in a turn.
        output: folder for results.json, results.md, latency.png and the exported files, which are kept.
    """
    from eyespot.deploy.benchmark import benchmark as run

    def say(what: str, done: int, total: int) -> None:
        print(f"[{done + 1}/{total}] {what}", flush=True)  # nothing that moves: it would take from what is timed

    settings: dict[str, Any] = {"rounds": rounds, "runs": runs, "progress": say}
    table = run(models, runtimes, image_size, threads, batch, output, **settings)
    table.print()
    print(f"written: {output}/results.json, results.md and latency.png")


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

    print(f"The student is at {upload(run, repo, private=private, revision=revision, message=message, say=print)}")


def _size(words: tuple[str, ...]) -> Any:
    """What `export` takes as image_size."""
    if words in ((), ("dynamic",)):
        return words[0] if words else None
    if len(words) > 2 or not all(word.isdigit() for word in words):
        raise ValueError(f"--image-size takes HEIGHT WIDTH, one number for a square, or dynamic; got {' '.join(words)}")
    sides = tuple(int(word) for word in words)
    return sides if len(sides) == 2 else sides * 2
