# ruff: noqa: E402  (the numbers of threads are read when libraries are loaded)
import os

for _library in ("OMP", "OPENBLAS", "MKL"):  # before they are loaded; processes that tests start take it from here
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

torch.set_num_threads(1)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Whole folders by as many processes as there are cores, up to four; single files by this one."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    files = [".py" in argument for argument in config.args]
    return 0 if files and all(files) else min(os.cpu_count() or 1, 4)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """What shares fixtures or the machine is dealt together."""
    from scheduling import Groups

    return Groups(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """With --durations, the seconds of every folder, or of every recipe; tests/README.md has their budgets."""
    if not terminalreporter.config.option.durations:
        return
    seconds: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                seconds[group_of_budget(report.nodeid)] += report.duration
    terminalreporter.section("seconds per group")
    for group, total in seconds.most_common():
        terminalreporter.write_line(f"{total:8.1f}  {group}")


def group_of_budget(test: str) -> str:
    """The folder of a test, the file among the recipes, or "others"."""
    parts = test.partition("::")[0].split("/")
    if parts[1:2] == ["recipes"]:
        return "/".join(parts[1:3])
    return parts[1] if len(parts) > 2 else "others"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real pictures and teachers that stands beside the checkout where a developer has it."""
    beside = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("EYESPOT_SHARED", beside))
    if not (folder / "data").is_dir():
        pytest.skip(f"no real data: {folder} is not there (set EYESPOT_SHARED)")
    return folder


@pytest.fixture(scope="session")
def eupe_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures (one of them broken) and teachers of `eupe_tiny.tiny_config`."""
    from eupe_tiny import write_pictures, write_teachers

    folder = tmp_path_factory.mktemp("eupe")
    write_pictures(folder / "pictures")
    (folder / "pictures/broken.png").write_bytes(b"no picture")
    write_teachers(folder)
    return folder


@pytest.fixture(scope="session")
def eupe_run(eupe_folder: Path) -> Iterator[Path]:
    """Its finished run of all three stages. For reading: whoever starts something in it copies it."""
    from eupe_tiny import tiny_config
    from eyespot.recipes.eupe.recipe import distill

    run = eupe_folder / "run"
    distill(tiny_config(eupe_folder), run)
    before = _contents(run)
    yield run
    assert _contents(run) == before, "a test changed the run that all of them read"


def _contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
