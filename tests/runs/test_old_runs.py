"""What an older version of eyespot made (tests/old_runs): today's continues it, repeats it and reads it.

On a machine like the one that made it (`old_runs.evidence.machine`), every number must be the same to the last bit. On
others the kernels of torch differ in the last digits, and training carries them along; there numbers are close.
"""

import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

import eyespot
from eyespot import load_classifier, load_encoder
from eyespot.cli.main import main
from eyespot.distill.cache import CachedCommittee
from eyespot.evaluate.results import FLOOR
from old_runs import evidence

STORED = Path(evidence.__file__).parent
ALIKE = evidence.machine() == json.loads((STORED / "machine.json").read_text())
LAST_STAGES = {
    "eupe": "stage-3-multires",
    "vanilla_kd": "stage-1-distillation",
    "ofa_kd": "stage-1-distillation",
    "ghostnet_v3": "stage-1-distillation",
    "sak": "stage-2-tasks",
}
INTERRUPTED = sorted(file.name.partition(".")[0] for file in STORED.glob("interrupted/*.tar.xz"))
ANSWERS = load_file(STORED / "features.safetensors")
MODELS = sorted({name.partition(":")[0] for name in ANSWERS})
PRESETS = sorted(file.relative_to(STORED / "presets").with_suffix("").as_posix() for file in STORED.glob("presets/*/*"))


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of everything, as the current folder: all paths in it are relative to that."""
    place = tmp_path_factory.mktemp("old") / "runs"
    shutil.copytree(STORED, place)
    for archive in place.glob("interrupted/*.tar.xz"):
        with tarfile.open(archive) as content:
            content.extractall(archive.parent, filter="data")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        yield place


def distill(recipe: str, config: Path, output: Path) -> None:
    main(["distill", recipe, "--config", str(config), "--output", str(output)])


@pytest.fixture(scope="module", params=LAST_STAGES)
def repeated(request: pytest.FixtureRequest) -> tuple[str, Path, Path]:
    """(recipe, run of today, run of then), from the same configuration."""
    recipe = request.param
    then, now = Path("recipes", recipe), Path("again", recipe)
    distill(recipe, then / "config.yaml", now)
    return recipe, now, then


def assert_as_stored(now: Any, then: Any, share: float = 0.01, noise: float = 0.0) -> None:
    """Nested numbers and tensors: equal on a machine like the one that made them, and elsewhere nearly.

    Args:
        now: of today.
        then: as stored.
        share: of a number, or of a tensor's length, by which it may be off elsewhere.
        noise: by which each element of a tensor may be off in addition.
    """
    assert type(now) is type(then)
    if isinstance(then, dict):
        assert now.keys() == then.keys()
        for key in then:
            assert_as_stored(now[key], then[key], share, noise)
    elif isinstance(then, list):
        assert len(now) == len(then)
        for pair in zip(now, then, strict=True):
            assert_as_stored(*pair, share, noise)
    elif isinstance(then, Tensor) and then.is_floating_point() and not ALIKE:
        assert (now.shape, now.dtype) == (then.shape, then.dtype)
        assert (now - then).norm() <= share * then.norm() + noise * then.numel() ** 0.5
    elif isinstance(then, Tensor):
        assert now.dtype == then.dtype and torch.equal(now, then)
    elif isinstance(then, float) and not ALIKE:
        assert now == pytest.approx(then, rel=share, abs=1e-3)
    else:
        assert now == then


def assert_same_weights(now: Path, then: Path) -> None:
    """Where a gradient is zero but for rounding (a bias before a norm), Adam makes steps of full size of it."""
    assert_as_stored(evidence.tensors(now), evidence.tensors(then), share=0.02, noise=0.01)


def models(run: Path) -> list[Path]:
    """Folders of the finished students, relative to the run."""
    return sorted(file.parent.relative_to(run) for file in run.glob("student*/**/model.safetensors"))


def assert_same_result(now: Path, then: Path) -> None:
    """Losses of every step and final weights; where it can be asked for, those of every stage."""
    assert_as_stored(evidence.losses(now), evidence.losses(then))
    assert models(now) == models(then)
    for student in models(then):
        assert_same_weights(now / student, then / student)
    if ALIKE:
        assert evidence.digests(now) == json.loads((then / "digests.json").read_text())


# Training


def test_the_same_configuration_gives_the_same_losses_and_weights(repeated: tuple[str, Path, Path]) -> None:
    _, now, then = repeated
    assert_same_result(now, then)


def without_floor(card: str) -> str:
    """A card as old ones are: tables of results have a last row for the constant answer since 1 December 2026."""
    return "".join(line for line in card.splitlines(keepends=True) if not line.startswith(f"| {FLOOR} |"))


def test_the_same_configuration_gives_the_same_folder(repeated: tuple[str, Path, Path]) -> None:
    _, now, then = repeated
    assert yaml.safe_load((now / "config.yaml").read_text()) == yaml.safe_load((then / "config.yaml").read_text())
    for student in models(then):
        assert {file.name for file in (now / student).iterdir()} == {file.name for file in (then / student).iterdir()}
        assert evidence.facts(now / student) == evidence.facts(then / student)
        if ALIKE:
            card = without_floor(evidence.card(now / student)).replace(f"run/{now}", f"run/{then}")
            assert card == evidence.card(then / student)
    if ALIKE and (then / "results.json").exists():
        content = json.loads((now / "results.json").read_text())
        assert content.pop("floor")  # the constant answer, which old tables do not have
        assert content == json.loads((then / "results.json").read_text())


@pytest.mark.parametrize("recipe", INTERRUPTED)
def test_a_run_that_was_interrupted_then_ends_as_the_whole_one_did(recipe: str) -> None:
    run = Path("interrupted", recipe)
    begun = evidence.losses(run)
    distill(recipe, run / "config.yaml", run)
    assert_same_result(run, Path("recipes", recipe))
    kept = [line for line in begun if line in evidence.losses(run)]
    assert len(kept) >= len(begun) - 1  # of what was killed, the step after the checkpoint is done again


def test_a_run_that_is_interrupted_today_ends_with_the_same_bits(repeated: tuple[str, Path, Path]) -> None:
    """On any machine."""
    recipe, whole, _ = repeated
    run = Path("cut", recipe)
    shutil.copytree(whole, run)
    stage = run / LAST_STAGES[recipe]
    for lost in (*stage.rglob("model"), *run.glob("student*"), max((stage / "checkpoints").iterdir())):
        shutil.rmtree(lost)
    distill(recipe, run / "config.yaml", run)
    assert evidence.losses(run) == evidence.losses(whole)
    assert evidence.digests(run) == evidence.digests(whole)


# Saved models


@pytest.mark.parametrize("model", MODELS)
def test_a_saved_model_says_what_it_said(model: str) -> None:
    load = load_classifier if evidence.has_classes(Path(model)) else load_encoder
    now = evidence.answers(load(f"run/{model}").eval())
    then = {name.partition(":")[2]: value for name, value in ANSWERS.items() if name.startswith(f"{model}:")}
    assert_as_stored(now, then, share=1e-4)


# Teacher cache


CACHE = ["cache", "eupe", "--config", "cached/config.yaml"]


@pytest.fixture(scope="module")
def taken_over(place: Path) -> str:
    """What is said when the cache is compared with its teachers. It did not note yet what was in the pictures."""
    with pytest.raises(SystemExit), redirect_stderr(io.StringIO()) as refused:
        main(CACHE)
    assert "--verify 100, compares rows" in refused.getvalue()
    with redirect_stdout(io.StringIO()) as said:
        main([*CACHE, "--verify", "24"])
    return said.getvalue()


def test_the_cache_is_whole_and_says_what_its_teachers_say(taken_over: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "24 rows computed again" in taken_over
    assert not ALIKE or "48 of 48 features equal to the bit" in taken_over
    main(CACHE)
    assert "24 rows in cached/cache: 0 computed" in capsys.readouterr().out


@pytest.mark.usefixtures("taken_over")
def test_a_run_on_the_cache_asks_no_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a teacher was asked for what is stored")

    monkeypatch.setattr(CachedCommittee, "look", refuse)
    distill("eupe", Path("cached/config.yaml"), Path("again/cached"))
    assert_same_result(Path("again/cached"), Path("cached"))


# Evaluation


def evaluate(folder: Path, *changes: str) -> dict[str, Any]:
    command = json.loads(Path("evaluation/command.json").read_text())["command"]
    main([*command, *changes, "--output", str(folder)])
    row: dict[str, Any] = json.loads((folder / "results.json").read_text())["rows"]["run/recipes/eupe"]
    return row


PROBED = ("segmentation", "depth", "linear")
"""What quick probes measure. Since 1 December 2026 they are fitted to the end, with a penalty chosen on held-out
training pictures (300 steps of AdamW at one rate before), so their numbers are others, and kept ones are measured anew.
"""


def test_an_old_student_is_worth_what_it_was(place: Path) -> None:
    evaluate(Path("again/evaluation"))
    now, then = (json.loads(Path(at, "evaluation/results.json").read_text()) for at in ("again", "."))
    assert {key for key in now.pop("floor")} >= {"knn/accuracy", "segmentation/mIoU", "depth/RMSE"}  # there was none
    for row in (*now["rows"].values(), *then["rows"].values()):
        for key in [key for key in row if key.startswith(PROBED)]:
            assert row.pop(key) > 0
    assert_as_stored(now, then)


def with_impossible_scores(folder: Path) -> list[Path]:
    """The finished measurements, with numbers that no measurement gives."""
    measured = sorted((folder / "measured").iterdir())
    for file in measured:
        content = json.loads(file.read_text())
        file.write_text(json.dumps({**content, "values": dict.fromkeys(content["values"], 0.125)}))
    return measured


def test_of_an_old_evaluation_the_features_of_what_has_no_files_are_used_and_all_is_measured_anew() -> None:
    """Before December 2026 pictures in files were known by names and sizes alone, and probes had one learning rate."""
    made_by = json.loads(Path("evaluation/command.json").read_text())["version"]
    if made_by != eyespot.__version__:
        pytest.skip("another version measures anew")
    if not ALIKE:
        pytest.skip("the toybox is drawn by kernels that differ in the last digits, so it is other data here")
    folder = Path("evaluation continued")
    shutil.copytree("evaluation", folder)
    measured, encoded = with_impossible_scores(folder), sorted((folder / "features").iterdir())
    row = evaluate(folder, "linear=pictures")
    assert all(value != 0.125 for key, value in row.items() if not key.startswith("cost"))
    assert len(list((folder / "features").iterdir())) == len(encoded) + 2  # train and val of the pictures in files
    assert len(list((folder / "measured").iterdir())) == len(measured) + 4

    with_impossible_scores(folder)
    again = evaluate(folder, "linear=pictures")
    assert {value for key, value in again.items() if not key.startswith("cost")} == {0.125}


# Configurations


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_printed_as_it_was(preset: str, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, _, name = preset.partition("/")
    main(["recipes", recipe, "--preset", name])
    assert yaml.safe_load(capsys.readouterr().out) == yaml.safe_load(Path("presets", f"{preset}.yaml").read_text())
