import json
import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from eyespot.deploy.benchmark import RUNTIMES, BenchmarkTable, Row, Runtime, benchmark, process
from eyespot.deploy.benchmark.memory import PeakMemory
from eyespot.deploy.benchmark.process import WorkerError, WorkerProcess
from eyespot.deploy.benchmark.timed_models import read_size

QUICK = {"threads": 1, "rounds": 2, "runs": 2}
MODEL = "timm/test_vit?pretrained=false"

OWN_MODELS = """
import multiprocessing, os, signal
import torch
from eyespot import Encoder, Features

class Own(Encoder):
    summary_dim = patch_dim = 3
    stride = 16
    default_size = (32, 32)

    def __init__(self, fate):
        super().__init__()
        self.fate, self.calls = fate, 0
        self.layer = torch.nn.Conv2d(3, 3, 16, 16)

    def _encode(self, images):
        self.calls += 1
        if multiprocessing.parent_process() is not None:
            if self.fate == "raise":
                raise RuntimeError("no luck today\\nand more lines")
            if self.fate == "die":
                print("dying now", flush=True)
                os.kill(os.getpid(), signal.SIGKILL)
            if self.fate == "die late" and self.calls > 3:
                os._exit(3)
        patches = self.layer(images)
        return Features(patches.mean((2, 3)), patches)

def fine(): return Own("live")
def raises(): return Own("raise")
def dies(): return Own("die")
def dies_late(): return Own("die late")
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("own") / "own.py"
    file.write_text(OWN_MODELS)
    return f"python/{file}"


def only(table: BenchmarkTable) -> Row:
    (row,) = table.rows
    return row


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[BenchmarkTable, Path]:
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    folder = tmp_path_factory.mktemp("benchmark")
    said: list[tuple[str, int, int]] = []
    runtimes, sizes = ["onnx", "eager", "eager-bf16"], [64]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RUNTIMES, "absent", Runtime("absent", format="onnx", library="no_such_library"))
        patch.setitem(RUNTIMES, "broken", Runtime("broken", format="onnx", options={"no_such_option": 1}))
        table = benchmark(
            [MODEL],
            [*runtimes, "absent", "broken"],
            sizes,
            output=folder,
            progress=lambda *what: said.append(what),
            **QUICK,
        )
    assert said[0][1:] == (0, 1) and "64x64" in said[0][0]
    return table, folder


@pytest.mark.slow
def test_every_runtime_has_its_row_in_the_order_asked_for(results: tuple[BenchmarkTable, Path]) -> None:
    table, _ = results
    assert [(row.runtime, row.state) for row in table.rows] == [
        ("onnx", "measured"),
        ("eager", "measured"),
        ("eager-bf16", "measured"),
        ("absent", "skipped"),
        ("broken", "failed"),
    ]
    skipped, failed = table.rows[3:]
    assert skipped.reason == "no_such_library not installed: pip install 'eyespot[onnx]'"
    assert "no_such_option" in failed.reason
    assert failed.latency_ms is None and skipped.runs == 0


def test_what_is_measured(results: tuple[BenchmarkTable, Path]) -> None:
    table, _ = results
    onnx, eager, half = table.rows[:3]
    for row in (onnx, eager, half):
        assert 2 <= row.runs <= 4
        assert 0 < (row.latency_ms or 0) <= (row.p95_ms or 0)
        assert row.pictures_per_second == pytest.approx(1000 / (row.latency_ms or 0))
        assert (row.load_s or 0) > 0 and (row.file_mib or 0) > 0
        assert row.speedup_low <= row.speedup <= row.speedup_high  # type: ignore[operator]
        assert (row.memory_mib is None) == (PeakMemory().mebibytes() is None)
    assert eager.speedup == 1.0
    assert (onnx.precision, half.precision) == ("float32", "bfloat16")
    assert onnx.peak_fraction is not None and onnx.peak_gops is not None
    assert eager.group.gmacs is not None and eager.group.parameters is not None
    assert onnx.peak_fraction > 0


def test_files(results: tuple[BenchmarkTable, Path]) -> None:
    table, folder = results
    assert BenchmarkTable.from_json((folder / "results.json").read_text()) == table
    assert (folder / "results.md").read_text() == table.to_markdown()
    assert (folder / "latency.png").is_file()
    assert table.settings["threads"] == 1
    assert table.machine["cpu"] and "onnxruntime" in table.machine["libraries"]
    json.loads((folder / "results.json").read_text())


def test_exports_are_made_once_and_files_are_timed_as_they_are(results: tuple[BenchmarkTable, Path]) -> None:
    _, folder = results
    (file,) = (folder / "exports").glob("*/model.onnx")
    written = file.stat().st_mtime_ns
    table = benchmark([MODEL, f"onnx/{file}"], ["onnx"], output=folder, image_sizes=["64x64"], **QUICK)
    assert file.stat().st_mtime_ns == written
    assert list((folder / "exports").glob("*/model.onnx")) == [file]
    exported, as_it_is = table.rows
    assert exported.state == as_it_is.state == "measured"
    assert exported.speedup is None  # nobody ran eager
    assert as_it_is.runtime == "onnx" and as_it_is.group.gmacs is None and as_it_is.peak_fraction is None
    assert as_it_is.file_mib == exported.file_mib


def test_a_file_of_another_batch_fails_with_the_reason(results: tuple[BenchmarkTable, Path]) -> None:
    _, folder = results
    (file,) = (folder / "exports").glob("*/model.onnx")
    row = only(benchmark([f"onnx/{file}"], batches=[3], output=folder / "other", **QUICK))
    assert (row.state, row.reason) == ("failed", "the file takes batches of 1 only, not of 3")


def test_sizes_and_batches_make_groups(own: str, tmp_path: Path) -> None:
    table = benchmark([f"{own}:fine"], ["eager"], [32, (48, 32)], batches=(1, 4), output=tmp_path, **QUICK)
    assert [(group.size, group.batch) for group in table.groups] == [
        ((32, 32), 1),
        ((32, 32), 4),
        ((48, 32), 1),
        ((48, 32), 4),
    ]
    wide, tall = table.rows[0].group, table.rows[2].group
    assert tall.gmacs == pytest.approx(1.5 * (wide.gmacs or 0))
    assert wide.gmacs == pytest.approx(3 * 3 * 16 * 16 * 4 / 1e9)
    row = table.rows[1]
    assert row.pictures_per_second == pytest.approx(4000 / (row.latency_ms or 0))


def test_a_model_that_raises_is_reported(own: str, tmp_path: Path) -> None:
    row = only(benchmark([f"{own}:raises"], ["eager"], output=tmp_path, **QUICK))
    assert (row.state, row.reason) == ("failed", "RuntimeError: no luck today")


def test_a_worker_that_crashes_is_reported(own: str, tmp_path: Path) -> None:
    table = benchmark([f"{own}:dies", f"{own}:dies_late", f"{own}:fine"], ["eager"], output=tmp_path, **QUICK)
    killed, gone, fine = table.rows
    assert killed.state == gone.state == "failed"
    assert "SIGKILL" in killed.reason and "dying now" in killed.reason
    assert "exit code 3" in gone.reason
    assert fine.state == "measured"  # goes on with the next


def test_a_worker_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "SECONDS_TO_ANSWER", 0.2)
    with WorkerProcess(tmp_path / "log", threads=1) as worker:
        os.kill(worker._process.pid, signal.SIGSTOP)
        with pytest.raises(WorkerError, match=r"no answer to 'memory' for 0\.2 s: the worker was ended"):
            worker.ask("memory")


def test_workers_leave_nothing_behind(tmp_path: Path) -> None:
    with WorkerProcess(tmp_path / "log", threads=1) as worker:
        with pytest.raises(WorkerError, match="no_such"):
            worker.ask("no_such_command")  # which it survives
        assert multiprocessing.active_children()
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"runtimes": ["openvin"]}, "no runtime 'openvin'; did you mean 'openvino'?"),
        ({"threads": 0}, "threads must be at least 1, got 0"),
        ({"batches": [0]}, "batches must be at least 1, got 0"),
        ({"batches": []}, "batches must be at least 1"),
        ({"rounds": 0}, "rounds must be at least 1"),
        ({"models": []}, "at least one spec"),
        ({"image_sizes": [100]}, "multiples of 16, got 100x100; 96x96 would do"),
        ({"image_sizes": ["64x"]}, "a size is written 256 or 256x192"),
        ({"models": ["tim/test_vit"]}, "did you mean timm/"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(arguments: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        benchmark(**{"models": [MODEL], "output": tmp_path / "out", **QUICK, **arguments})
    assert not (tmp_path / "out").exists()


def test_sizes_as_people_write_them() -> None:
    assert read_size(256) == read_size("256") == read_size((256, 256)) == (256, 256)
    assert read_size("256x192") == read_size((256, 192)) == (256, 192)


def test_missing_libraries_name_the_extra() -> None:
    absent = replace(RUNTIMES["openvino-int8"], library="openvino_no_more")
    assert absent.missing is not None
    assert absent.missing.endswith("not installed: pip install 'eyespot[openvino]'")
    assert RUNTIMES["eager"].missing is None
