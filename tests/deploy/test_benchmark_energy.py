from pathlib import Path

import pytest

from eyespot.deploy.benchmark.energy import Rapl


def make_zone(folder: Path, zone: str, name: str, energy: int, whole: int | None = 1_000_000) -> Path:
    place = folder / zone
    place.mkdir(parents=True)
    (place / "name").write_text(f"{name}\n")
    (place / "energy_uj").write_text(f"{energy}\n")
    if whole is not None:
        (place / "max_energy_range_uj").write_text(f"{whole}\n")
    return place / "energy_uj"


def test_packages_are_added_and_their_parts_are_not(tmp_path: Path) -> None:
    first = make_zone(tmp_path, "intel-rapl:0", "package-0", 100)
    second = make_zone(tmp_path, "intel-rapl:1", "package-1", 200)
    core = make_zone(tmp_path, "intel-rapl:0:0", "core", 50)
    psys = make_zone(tmp_path, "intel-rapl:2", "psys", 50)
    rapl = Rapl(tmp_path)
    before = rapl.read()
    assert before == [100, 200]
    for counter, value in ((first, 1100), (second, 5200), (core, 99_999), (psys, 99_999)):
        counter.write_text(str(value))
    assert rapl.joules(before, rapl.read()) == pytest.approx(0.006)


def test_a_counter_that_wraps_around(tmp_path: Path) -> None:
    counter = make_zone(tmp_path, "intel-rapl:0", "package-0", 999_000, whole=1_000_000)
    rapl = Rapl(tmp_path)
    before = rapl.read()
    counter.write_text("4000")
    assert rapl.joules(before, rapl.read()) == pytest.approx(0.005)


def test_a_wrap_around_of_unknown_range_is_unknown(tmp_path: Path) -> None:
    counter = make_zone(tmp_path, "intel-rapl:0", "package-0", 999_000, whole=None)
    rapl = Rapl(tmp_path)
    before = rapl.read()
    counter.write_text("999500")
    assert rapl.joules(before, rapl.read()) == pytest.approx(0.0005)
    counter.write_text("4000")
    assert rapl.joules(before, rapl.read()) is None


def test_no_counters_and_unreadable_counters_give_none(tmp_path: Path) -> None:
    assert Rapl(tmp_path / "nowhere").read() is None
    make_zone(tmp_path, "intel-rapl:0", "package-0", 1)
    make_zone(tmp_path, "intel-rapl:1", "package-1", 1).unlink()  # as good as not readable, also for root
    rapl = Rapl(tmp_path)
    assert rapl.read() is None
    assert rapl.joules(None, None) is None
