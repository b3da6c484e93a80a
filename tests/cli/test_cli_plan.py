"""`eyespot plan`: settings as for distill, a table, a JSON file, and answers to mistakes."""

import json
from pathlib import Path

import pytest

from eyespot.cli.plan import _pair, plan

TINY = [
    *("eupe", "--teachers", "timm/test_vit2", "--proxy", "none", "--student.model", "timm/test_vit", "--steps", "10"),
    *("--stage2.batch-size", "8", "--stage2.student-sizes", "32", "--stage2.teacher-sizes", "32"),
    *("--stage2.adapter-width", "8", "--stage3.steps", "0"),
]


def test_a_plan_is_printed_and_written(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    plan([*TINY, "--hardware", "a100", "--gpus", "2", "--data", "toybox:20", "--output", str(file)])
    printed = " ".join(capsys.readouterr().out.split())
    for words in ("2 x NVIDIA A100 80 GB", "stage-2-student", "test_vit2", "Total:", "every stage fits", str(file)):
        assert words in printed
    numbers = json.loads(file.read_text())
    assert [stage["name"] for stage in numbers["stages"]] == ["stage-2-student"]
    assert numbers["stages"][0]["pictures_read"] == 80 and numbers["gpus"] == 2
    assert numbers["total"]["flops"] == pytest.approx(sum(stage["flops"] for stage in numbers["stages"]))


def test_weights_that_are_not_here_are_not_needed(capsys: pytest.CaptureFixture[str]) -> None:
    plan([*TINY, "--teachers", "timm/vit_small_patch16_dinov3.lvd1689m", "--data", "/not/here", "--gpus", "1"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "21.6 M" in printed and "/not/here is not on this machine" in printed


def test_help_names_its_own_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    plan([])
    printed = capsys.readouterr().out
    assert "eyespot plan eupe" in printed and "Recipes: eupe" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--hardware", "a10"], "did you mean 'a100'"),
        (["--gpus", "3"], "cannot be divided among 3 devices"),
        (["--teachers", "hf/nobody/nothing"], "--stand-in hf/nobody/nothing="),
        (["--stand-in", "hf/nobody/nothing"], "--stand-in takes SPEC=OTHER"),
    ],
)
def test_mistakes_are_answered(arguments: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan([*TINY, "--data", "toybox:20", *arguments])


def test_a_stand_in_may_have_options_on_both_sides() -> None:
    assert _pair("hf/a/b?x=1=timm/c?img_size=64") == ("hf/a/b?x=1", "timm/c?img_size=64")
