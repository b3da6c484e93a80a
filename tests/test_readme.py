"""Every command of the README works: it is run as written on tiny data, or goes through the real parser, or CI runs it.

A command that is in none of the three lists below fails, so that nobody can add one that nothing checks.
"""

from __future__ import annotations

import functools
import re
import shlex
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from eyespot.cli import main as cli
from eyespot.data.toybox import render
from eyespot.recipes import Recipe

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")

BY_CI = {
    "pip install . && eyespot quickstart": ("pip install", "eyespot quickstart"),
    "pip install '.[test]' && python -m pytest": ("pip install", "python -m pytest"),
}
"""Run by `.ci/run` on a fresh virtual environment: the lines there that do it."""

AS_WRITTEN = (
    "eyespot recipes eupe > mine.yaml",
    "eyespot export run/runs/mine --format onnx --image-size 224 224 --output out",
    "eyespot evaluate run/runs/mine onnx/depth.onnx --data knn=flowers segmentation=streets",
    "eyespot report runs/mine runs/other --pictures a.jpg",
    "eyespot visualize run/runs/mine picture.jpg",
)
"""Run as they stand, in a folder where their files exist."""

AS_WRITTEN_SLOWLY = ("eyespot plan eupe --preset paper --hardware h100 --gpus 64",)
"""The same; it takes longer, so the test is marked slow. Beside that they go through the parser."""

PARSED = (
    "eyespot distill eupe --teachers onnx/depth.onnx timm/vit_base_patch16_dinov3.lvd1689m --data ~/pictures "
    "--student.model timm/vit_tiny_patch16_dinov3_qkvb --output runs/mine",
    "eyespot distill eupe --config mine.yaml --output runs/mine",
    "eyespot distill vanilla_kd --teacher onnx/expert.onnx --data FOLDER --output runs/small",
    "eyespot distill sak --teachers A B C --data FOLDER --labelled.source nyud:FOLDER --output runs/tasks",
    "eyespot audit onnx/a.onnx onnx/b.onnx --data FOLDER",
    "eyespot evaluate run/runs/mine --data zero_shot=FOLDER --options zero_shot.text=open_clip/NAME.TAG",
    "eyespot push runs/mine USER/NAME",
    "eyespot benchmark run/runs/mine --image-size 224",
)
"""They name models, folders or an account that a test does not have, or time all runtimes for minutes (tests/deploy
does so with fewer): parsed and validated, and stopped where the API is called."""

SETTINGS = (
    "--proxy run/runs/other/stage-1-proxy",
    "--preset laptop direct",
    "--preset laptop no_multires",
    "--cache.folder FOLDER",
    "--teachers openvino/depth.onnx?precision=bf16",
    "--student.model timm/A timm/B timm/C",
    "--engine.devices 8",
    "--permissive-only",
)
"""Settings of `eyespot distill eupe`: parsed and validated as part of such a command."""


class Reached(Exception):
    """A command was parsed, and its settings are these."""

    def __init__(self, settings: Any) -> None:
        self.settings = settings


def commands() -> list[str]:
    """All of the README: lines of shell blocks, and code spans that are commands or settings."""
    blocks = re.findall(r"```(?:bash|console)\n(.*?)```", README, flags=re.DOTALL)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.replace("\\\n", "").splitlines()]
    prose = re.sub(r"```.*?```", "", README, flags=re.DOTALL)
    spans = [span for span in re.findall(r"`([^`]+)`", prose) if span.startswith(("eyespot ", "--"))]
    return [" ".join(command.split()) for command in (*lines, *spans) if command]


def test_every_command_of_the_readme_is_checked_in_one_way() -> None:
    known = [*BY_CI, *AS_WRITTEN, *AS_WRITTEN_SLOWLY, *PARSED, *SETTINGS]
    found = commands()
    assert len(known) == len(set(known))
    assert set(found) - set(known) == set(), "new in the README: put it into one of the lists of this file"
    assert set(known) - set(found) == set(), "no longer in the README: take it out of the lists of this file"


@pytest.mark.parametrize("command", BY_CI)
def test_ci_runs_it(command: str) -> None:
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert all(words in script for words in BY_CI[command])


@pytest.fixture
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Verbs are parsed to the end, and stop where they would call the API."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EYESPOT_DEBUG", "1")

    def reached(*arguments: Any, **settings: Any) -> None:
        raise Reached(settings or arguments)

    monkeypatch.setattr(Recipe, "distill", property(lambda _: reached))
    monkeypatch.setattr("eyespot.plan.make_plan", reached)
    for name, verb in cli.VERBS.items():
        if verb not in cli.OF_RECIPES and name != "recipes":
            same_signature = functools.wraps(verb)(lambda *arguments, **settings: reached(*arguments, **settings))
            monkeypatch.setitem(cli.VERBS, name, same_signature)


@pytest.mark.parametrize("command", [*PARSED, *AS_WRITTEN_SLOWLY])
def test_the_parser_takes_it(command: str, stopped: None, capsys: pytest.CaptureFixture[str]) -> None:
    if "--config mine.yaml" in command:
        run("eyespot recipes eupe > mine.yaml", capsys)
    with pytest.raises(Reached) as end:
        run(command, capsys)
    if command.startswith("eyespot evaluate"):
        from eyespot.evaluate import read_sources, task_options

        settings = end.value.settings
        assert list(read_sources(settings["data"])) == ["zero_shot"] == list(task_options(settings["options"]))


@pytest.mark.parametrize("words", SETTINGS)
def test_the_parser_takes_settings(words: str, stopped: None, capsys: pytest.CaptureFixture[str]) -> None:
    rest = ("" if "--teachers" in words else "--teachers onnx/a.onnx ") + "--data FOLDER --output runs/x"
    with pytest.raises(Reached) as end:
        run(f"eyespot distill eupe {rest} {words}", capsys)
    config = end.value.settings[0]
    assert config.checked().resolved()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with everything that the commands name: two tiny runs, an ONNX file, pictures, labelled folders."""
    folder = tmp_path_factory.mktemp("readme")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("EYESPOT_DEBUG", "1")
        patch.setenv("COLUMNS", "160")
        write_pictures(folder)
        cli.main(shlex.split(f"{TINY_RUN} --output runs/mine"))
        shutil.copytree("runs/mine", "runs/other")
        cli.main(shlex.split(AS_WRITTEN[1])[1:])
        shutil.copy("out/model.onnx", "depth.onnx")
        yield folder


TINY_RUN = (
    "distill eupe --preset laptop direct --teachers timm/test_resnet?pretrained=false --data toybox:8@64 "
    "--student.model timm/test_vit --steps 2 --stage2.batch-size 4 --stage2.student-sizes 32 --stage2.adapter-width 8 "
    "--engine.accelerator cpu --engine.precision 32-true --engine.no-tensorboard --engine.no-progress"
)


def write_pictures(folder: Path) -> None:
    """Pictures of the toybox: two alone, some in folders of two classes, some with masks."""
    scenes = render(range(8), 64)
    pictures = [Image.fromarray((255 * image).byte().permute(1, 2, 0).numpy()) for image in scenes.images]
    masks = [Image.fromarray((mask > 0).byte().numpy()) for mask in scenes.semantic]
    for place, picture in enumerate(pictures[:2]):
        picture.save(folder / ("a.jpg", "picture.jpg")[place])
    for place, (picture, mask) in enumerate(zip(pictures, masks, strict=True)):
        split = ("train", "val")[place % 2]
        for kind, image in ((f"flowers/{split}/{'abc'[place // 4]}", picture), (f"streets/{split}/images", picture)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            image.save(folder / kind / f"{place}.png")
        (folder / f"streets/{split}/annotations").mkdir(parents=True, exist_ok=True)
        mask.save(folder / f"streets/{split}/annotations/{place}.png")


@pytest.mark.parametrize("command", AS_WRITTEN)
def test_it_runs_as_written(
    command: str, prepared: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(prepared)
    words = run(command, capsys)
    for made in {"visualize": ["features.png"], "report": ["report.html"], "export": ["out/model.onnx"]}.get(
        words[1], []
    ):
        assert (prepared / made).stat().st_size > 0


@pytest.mark.slow
@pytest.mark.parametrize("command", AS_WRITTEN_SLOWLY)
def test_it_runs_as_written_slowly(
    command: str, prepared: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(prepared)
    run(command, capsys)
    printed = capsys.readouterr().out
    assert all(stage in printed for stage in ("stage-1-proxy", "stage-2-student", "stage-3-multires"))


def test_python_of_the_readme_runs(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(prepared)
    (block,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    names: dict[str, Any] = {"images": torch.rand(2, 3, 64, 64)}
    exec(block, names)
    assert names["features"].summary.shape[0] == names["features"].patches.shape[0] == 2


def run(command: str, capsys: pytest.CaptureFixture[str]) -> Sequence[str]:
    """Runs a line of shell in this process; `> FILE` writes what it prints."""
    line, _, file = command.partition(" > ")
    words = shlex.split(line)
    assert words[0] == "eyespot"
    capsys.readouterr()
    cli.main([word.replace("~", str(Path.home())) if word.startswith("~") else word for word in words[1:]])
    if file:
        Path(file).write_text(capsys.readouterr().out, encoding="utf-8")
    return words
