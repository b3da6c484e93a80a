"""The command line: verbs, settings and their answers to mistakes."""

import runpy
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Optional

import pytest
import yaml

from eyespot import __version__
from eyespot.cli.main import VERBS, main
from eyespot.cli.settings import _may_be_left_out

# The front door


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_usage_names_every_verb_and_every_source_of_models(eyespot: Any, arguments: list[str]) -> None:
    answer = eyespot(*arguments)
    assert answer.code == 0
    assert all(f"eyespot {verb}" in answer.out for verb in VERBS)
    assert all(f"{prefix}/" in answer.out for prefix in ("timm", "onnx", "run", "python"))


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_version(eyespot: Any, flag: str) -> None:
    assert eyespot(flag).out.strip() == __version__


def test_module_is_the_command_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["eyespot", "--version"])
    runpy.run_module("eyespot", run_name="__main__")
    assert capsys.readouterr().out.strip() == __version__


@pytest.mark.parametrize(
    ("verb", "hint"), [("distil", "did you mean 'distill'?"), ("qqq", "there are quickstart, recipes")]
)
def test_unknown_verb_is_answered_with_the_nearest(eyespot: Any, verb: str, hint: str) -> None:
    answer = eyespot(verb, "eupe")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.startswith(f"eyespot: no verb {verb!r}") and hint in answer.err


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(eyespot: Any, verb: str) -> None:
    answer = eyespot(verb, "--help")
    assert answer.code == 0
    assert (VERBS[verb].__doc__ or "").split("\n")[0].split(":")[0] in answer.words


def test_help_of_a_recipe_shows_presets_settings_and_defaults(eyespot: Any) -> None:
    answer = eyespot("distill", "eupe", "--preset", "paper", "--help")
    assert answer.code == 0
    assert "--preset {direct, laptop, no_multires, paper, permissive, quickstart}" in answer.words
    assert "--stage2.steps INT" in answer.words and "(default: 390000)" in answer.words


def test_errors_can_be_seen_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EYESPOT_DEBUG", "1")
    with pytest.raises(ValueError, match="no verb"):
        main(["distil"])


def test_a_programming_error_keeps_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: Any) -> None:
        raise TypeError("unsupported operand")

    monkeypatch.delenv("EYESPOT_DEBUG", raising=False)
    monkeypatch.setattr("eyespot.data.toybox.contact_sheet", lambda *_, **__: broken())
    with pytest.raises(TypeError, match="unsupported operand"):
        main(["toybox"])


# recipes


def test_recipes_lists_all_with_their_status(eyespot: Any) -> None:
    answer = eyespot("recipes")
    rows = {cells[0].strip(): cells for line in answer.out.splitlines() if len(cells := line.split("│")[1:]) > 4}
    status = {name: cells[3].strip() for name, cells in rows.items() if name}
    working = {status.pop(name) for name in ("eupe", "sak", "vanilla_kd", "ofa_kd", "ghostnet_v3")}
    assert working == {"working"} and len(status) == 6 and set(status.values()) == {"planned"}
    assert "laptop" in answer.out and "paper" in answer.out


@pytest.mark.parametrize(
    ("recipe", "preset", "stage"),
    [
        *(("eupe", preset, "stage2") for preset in ("laptop", "paper", "quickstart", "direct", "no_multires")),
        ("sak", "vit_base", "stage2"),
        ("vanilla_kd", "a1", "training"),
        ("ofa_kd", "imagenet_vit_mlp", "training"),
        ("ghostnet_v3", "paper", "training"),
    ],
)
def test_recipes_prints_what_config_takes_again(
    eyespot: Any, tmp_path: Path, recipe: str, preset: str, stage: str
) -> None:
    printed = eyespot("recipes", recipe, "--preset", preset).out
    file = tmp_path / "mine.yaml"
    file.write_text(printed)
    # Read, then stopped by what is missing, so nothing is trained.
    answer = eyespot("distill", recipe, "--config", file)
    assert answer.code == 1 and "--output RUN is missing" in answer.err
    assert yaml.safe_load(printed)[stage]["betas"] == [0.9, 0.999]  # defaults filled in


def test_a_method_called_none_is_no_missing_value(eyespot: Any, tmp_path: Path) -> None:
    words = (
        "distill",
        "vanilla_kd",
        "--teacher",
        "none",
        "--student.method",
        "kd",
        "none",
        "--output",
        tmp_path / "run",
    )
    answer = eyespot(*words)
    assert answer.code == 1 and "there is no teacher: name one" in answer.err


def test_recipes_prints_the_laptop_unless_told_otherwise(eyespot: Any) -> None:
    laptop = yaml.safe_load(eyespot("recipes", "eupe").out)
    assert laptop == yaml.safe_load(eyespot("recipes", "eupe", "--preset", "laptop").out)
    paper = yaml.safe_load(eyespot("recipes", "eupe", "--preset", "paper").out)
    assert paper["stage2"]["steps"] == 390_000 != laptop["stage2"]["steps"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("recipes", "devit"), "the recipe 'devit' is planned, not built yet"),
        (("distill", "devit", "--output", "x"), "the recipe 'devit' is planned, not built yet"),
        (("recipes", "epue"), "no recipe 'epue'; did you mean 'eupe'?"),
        (("distill", "epue", "--output", "x"), "no recipe 'epue'; did you mean 'eupe'?"),
        (("recipes", "eupe", "--preset", "papper"), "no preset 'papper'; did you mean 'paper'?"),
        (("distill", "eupe", "--preset", "labtop"), "no preset 'labtop'; did you mean 'laptop'?"),
        (("distill", "eupe", "--preset", "laptop", "drect"), "no preset 'drect'; did you mean 'direct'?"),
        (("distill", "eupe", "--config", "nowhere.yaml"), "nowhere.yaml"),
        (("distill", "eupe", "--teachers", "timm/test_vit"), "--output RUN is missing"),
        (("distill", "eupe", "--output", "x"), "teachers is empty: name the experts to distil, e.g. --teachers"),
    ],
)
def test_what_is_missing_or_unknown_is_named(
    eyespot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = eyespot(*arguments)
    assert (answer.code, answer.out) == (1, "")
    assert message in answer.err and "Traceback" not in answer.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--techers", "timm/test_vit"), "--teachers"),
        (("--stage1.stepz", "3"), "--stage1.steps"),
        (("--data.view.flipp", "0"), "--data.view.flip"),
        (("--stage1.steps", "many"), "Error parsing --stage1.steps: invalid literal for int"),
        (("--stage1.steps", "-3"), "greater than or equal to 0"),
        (("--standardizer", "whiten"), "Expected one of ('channel', 'none', 'ema', 'phi_s')"),
        (("--engine.precision", "fp16"), "Expected one of ('32-true', 'bf16-mixed')"),
        (("--data.weights", "1", "2"), "2 weights for 1 sources; give one per source"),
    ],
)
def test_wrong_flags_and_values_are_answered_with_the_right_ones(
    eyespot: Any, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    answer = eyespot("distill", "eupe", "--teachers", "timm/test_vit", *arguments, "--output", tmp_path / "run")
    assert answer.code == 2
    assert message in answer.words and "Traceback" not in answer.err
    assert not (tmp_path / "run").exists()


def test_config_file_with_faults_lists_them_all(eyespot: Any, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("extends: laptop\nstage1: {stepz: 3, batch_size: 0}\n")
    answer = eyespot("distill", "eupe", "--config", file, "--output", tmp_path / "run")
    assert answer.code == 1
    assert "stage1.stepz: no such setting; did you mean 'steps'?" in answer.err
    assert "stage1.batch_size: Input should be greater than 0 (got 0)" in answer.err


@pytest.mark.parametrize(
    ("flags", "path", "value"),
    [
        (["--standardizer", "none"], "standardizer", "none"),
        (["--standardizer=none"], "standardizer", "none"),
        (["--stage1.clip-norm", "none"], "stage1.clip_norm", None),
        (["--stage1.clip-norm=null"], "stage1.clip_norm", None),
        (["--proxy=null"], "proxy", None),
        (["--cache.folder", "none"], "cache.folder", None),
        (["--teachers", "none"], "teachers", ["none"]),
        (["--permissive-only"], "permissive_only", True),
        (["--preset", "laptop", "permissive", "--no-permissive-only"], "permissive_only", False),
        (["--data=a"], "data.sources", ["a"]),
        (["--data", "a", "b"], "data.sources", ["a", "b"]),
        (["--data.sources", "a", "b"], "data.sources", ["a", "b"]),
        (["--stage3.student-sizes", "16", "48"], "stage3.student_sizes", (16, 48)),
        (["--teachers", "onnx/a.onnx?mean=0.5,0.5,0.5&size=32"], "teachers", ["onnx/a.onnx?mean=0.5,0.5,0.5&size=32"]),
    ],
)
def test_flags_become_settings(
    eyespot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], path: str, value: Any
) -> None:
    given: list[Any] = []
    monkeypatch.setattr("eyespot.recipes.eupe.recipe.distill", lambda config, output: given.append(config) or output)
    answer = eyespot("distill", "eupe", "--teachers", "timm/test_vit", *flags, "--output", tmp_path)
    assert answer.code == 0, answer.err
    assert follow(given[0], path.split(".")) == value


@pytest.mark.parametrize(
    ("annotation", "is_none"),
    [
        (int | None, True),
        (Optional[str], True),  # noqa: UP045
        (list[str], False),
        (Literal["channel", "none"], False),
        (Literal["channel", "none"] | None, False),
        (Literal["channel"] | None, True),
        (None, False),
    ],
)
def test_none_empties_a_setting_that_may_be_empty_and_has_no_such_choice(annotation: Any, is_none: bool) -> None:
    assert _may_be_left_out(annotation) is is_none


def follow(config: Any, names: Iterable[str]) -> Any:
    for name in names:
        config = getattr(config, name)
    return config
