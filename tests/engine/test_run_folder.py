"""The run folder: who may write into it."""

from pathlib import Path

import pytest
import yaml

from eyespot.engine.run import RunFolder, RunMismatchError

CONFIG = {"teachers": ["a", "b"], "data": {"size": 64, "workers": 2, "workers_note": 1}, "engine": {"devices": 1}}
FREE = ("data.workers", "engine.devices")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    RunFolder(tmp_path / "run", CONFIG).begin()
    return tmp_path / "run"


def test_config_is_plain_yaml_in_its_order(folder: Path) -> None:
    text = (folder / "config.yaml").read_text()
    assert yaml.safe_load(text) == CONFIG
    assert list(yaml.safe_load(text)) == list(CONFIG)
    assert [path.name for path in folder.iterdir()] == ["config.yaml"]


def test_the_same_configuration_continues(folder: Path) -> None:
    assert RunFolder(folder, CONFIG).path == RunFolder(str(folder), CONFIG).path == folder


def test_every_difference_is_shown(folder: Path) -> None:
    other = {"teachers": ["a"], "data": {**CONFIG["data"], "size": 32}, "engine": {"devices": 2}, "steps": 3}
    with pytest.raises(RunMismatchError) as refused:
        RunFolder(folder, other, free=FREE)
    lines = str(refused.value).splitlines()
    assert lines[1:-1] == ["  data.size: 64 -> 32", "  steps: 'absent' -> 3", "  teachers: ['a', 'b'] -> ['a']"]
    assert "--output" in lines[-1]


def test_free_settings_may_change_and_only_those(folder: Path) -> None:
    RunFolder(folder, {**CONFIG, "data": {**CONFIG["data"], "workers": 0}, "engine": {"devices": 4}}, free=FREE)
    with pytest.raises(RunMismatchError, match=r"data\.workers: 2 -> 0"):
        RunFolder(folder, {**CONFIG, "data": {**CONFIG["data"], "workers": 0}})
    with pytest.raises(RunMismatchError, match=r"data\.workers_note: 1 -> 0"):  # not free, though it begins like one
        RunFolder(folder, {**CONFIG, "data": {**CONFIG["data"], "workers_note": 0}}, free=FREE)


def test_a_foreign_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="not empty and holds no run"):
        RunFolder(tmp_path, CONFIG)
    with pytest.raises(FileExistsError, match="is a file; --output must name a folder"):
        RunFolder(tmp_path / "thesis.txt", CONFIG)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_an_empty_folder_and_what_a_kill_left_are_no_hindrance(tmp_path: Path) -> None:
    RunFolder(tmp_path, CONFIG)
    (tmp_path / ".config.yaml.123.tmp").write_text("teach")
    RunFolder(tmp_path, CONFIG).begin()
    assert yaml.safe_load((RunFolder(tmp_path, CONFIG).path / "config.yaml").read_text()) == CONFIG


def test_places(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, CONFIG)
    assert run.metrics == tmp_path / "metrics.jsonl"
    assert run.report == tmp_path / "report.html"
    assert run.student == tmp_path / "student"
    assert run.stage("stage-1-proxy") == tmp_path / "stage-1-proxy"
