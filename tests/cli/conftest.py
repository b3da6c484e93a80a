"""Runs commands in this process."""

from pathlib import Path
from typing import Any

import pytest
from cli_tiny import SMALL_PROXY, TINY

from eupe_tiny import write_pictures, write_teachers
from eyespot.cli.main import main
from eyespot.engine.trainer import Trainer


class Answer:
    """What a command printed and how it ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err
        self.words = " ".join((out + err).replace("│", " ").split())


@pytest.fixture
def eyespot(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a command in this process."""
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.delenv("EYESPOT_DEBUG", raising=False)

    def run(*arguments: Any) -> Answer:
        capsys.readouterr()
        code: Any = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code or 0
        return Answer(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    write_pictures(folder / "pictures", 12)
    write_teachers(folder)
    return folder


@pytest.fixture(scope="module")
def command(folder: Path) -> list[str]:
    """The whole recipe with two tiny teachers, without --output."""
    teachers = [f"python/{folder}/teachers.py:{name}" for name in ("what", "where")]
    return ["distill", "eupe", "--teachers", *teachers, "--data", str(folder / "pictures"), *SMALL_PROXY, *TINY]


@pytest.fixture(scope="module")
def run(folder: Path, command: list[str]) -> Path:
    """Its finished run."""
    main([*command, "--output", str(folder / "run")])
    return folder / "run"


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a step was trained")

    monkeypatch.setattr(Trainer, "_train_step", refuse)
