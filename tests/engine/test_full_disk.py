"""A disk that is full, a folder that is gone or may not be written: one sentence that names it, and nothing is lost."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from toy_training import ToyBatches, make_trainer

from eyespot import files
from eyespot.engine.checkpoint import CheckpointError
from eyespot.engine.metrics import RunLog, read_lines
from eyespot.engine.processes import Processes
from eyespot.engine.run import RunFolder
from eyespot.evaluate import feature_store
from eyespot.evaluate.feature_store import FeatureStore
from eyespot.features import Features
from eyespot.files import CannotWriteError, atomic_path, write_errors_named
from eyespot.locks import FolderGoneError

SMALL_DISK = """
import shutil
import sys
import time
import torch
from eyespot.evaluate.feature_store import FeatureStore
from eyespot.engine.metrics import RunLog, read_lines
from eyespot.features import Features
from eyespot.files import atomic_path
from pathlib import Path
from safetensors.torch import save_file

folder = Path(sys.argv[1])

def told(work):
    try:
        work()
    except OSError as error:
        print(type(error).__name__, error)
    assert not [entry for entry in folder.rglob("*.tmp")]

def store():
    given = Features(torch.ones(2, 8), torch.ones(2, 64, 8, 8))
    FeatureStore(folder, {"model": "a"}, 200).write(torch.arange(2), given)

def filled():
    with open(folder / "rest", "wb", buffering=0) as rest:
        while rest.write(bytes(1 << 16)):
            pass

log = RunLog(folder / "metrics.jsonl", "stage", 0, tensorboard=False)
log.write(0, {"loss": 1.0})

def lines():
    for step in range(10**6):
        log.write(step, {"loss": 1.0})

def tensors():
    with atomic_path(folder / "big.safetensors") as temporary:
        save_file({"a": torch.zeros(10**6)}, temporary)

def pickled():
    with atomic_path(folder / "big.pt") as temporary:
        torch.save(torch.zeros(10**6), temporary)

told(store)
told(tensors)
told(filled)
told(lines)
print(len(read_lines(folder / "metrics.jsonl")) > 0, (folder / "metrics.jsonl").stat().st_size > 0)
(folder / "rest").unlink()
for _ in range(200):
    if shutil.disk_usage(folder).free > 1 << 18:  # the system takes its time
        break
    time.sleep(0.05)
told(lambda: RunLog(folder / "metrics.jsonl", "other", 0, tensorboard=False).write(1, {"loss": 2.0}))
told(pickled)  # last, since torch keeps its file open then
print("went on", read_lines(folder / "metrics.jsonl")[-1]["stage"])
"""


def mounting_is_allowed() -> bool:
    mount = "mkdir -p small && mount -t tmpfs -o size=1m tmpfs small"
    return (
        bool(shutil.which("unshare"))
        and not subprocess.run(["unshare", "-m", "sh", "-c", mount], cwd="/tmp", capture_output=True).returncode
    )


@pytest.mark.skipif(not mounting_is_allowed(), reason="mounting a small disk takes root and a mount namespace")
def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    """Without the reservation the first of these ended in SIGBUS."""
    (tmp_path / "program.py").write_text(SMALL_DISK)
    mount = 'mkdir small && mount -t tmpfs -o size=1m tmpfs small && exec "$0" program.py small'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount, sys.executable], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    store, tensors, filled, lines, there, pickled, went_on = done.stdout.splitlines()
    assert store.startswith("CannotWriteError small/") and "patches.float16 needs" in store and "MiB free" in store
    for said, name in ((tensors, "big.safetensors"), (pickled, "big.pt"), (lines, "metrics.jsonl")):
        assert said.startswith("CannotWriteError ") and f"{name} cannot be written: No space left on device" in said
        assert "Make room and run the same command again" in said
    assert filled.startswith("OSError")  # the program's own
    assert (there, went_on) == ("True True", "went on other")


def features(count: int) -> Features:
    return Features(torch.rand(count, 4), torch.rand(count, 3, 2, 2))


def test_space_for_features_is_there_before_they_are_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as small:
        small.setattr(feature_store, "free_bytes", lambda folder: 100_000)
        with pytest.raises(
            CannotWriteError, match=r"patches\.float16 needs 0\.1 MiB more, .* has 0\.1 MiB free.*again"
        ):
            FeatureStore(tmp_path, {"model": "a"}, 5000).write(torch.arange(2), features(2))
    assert not list(tmp_path.rglob("patches*"))
    given = features(2)
    store = FeatureStore(tmp_path, {"model": "a"}, 5000)
    store.write(torch.arange(2), given)
    (patches,) = tmp_path.rglob("patches*")
    assert patches.stat().st_size == 5000 * 24
    if sys.platform == "linux":
        assert patches.stat().st_blocks * 512 >= 5000 * 24
    again = FeatureStore(tmp_path, {"model": "a"}, 5000)
    assert again.has(torch.arange(3)).tolist() == [True, True, False]
    torch.testing.assert_close(again.read(torch.arange(2)), given, rtol=1e-3, atol=1e-3)


def test_where_space_cannot_be_reserved_it_is_compared_with_what_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", refused, raising=False)
    FeatureStore(tmp_path, {}, 5000).write(torch.arange(2), features(2))
    monkeypatch.setattr(feature_store, "free_bytes", lambda folder: 10_000)
    with pytest.raises(CannotWriteError, match="needs"):
        FeatureStore(tmp_path, {"other": 1}, 5000).write(torch.arange(2), features(2))


def test_a_disk_that_fills_up_meanwhile_costs_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are written to the file, not through the map, where a full disk is a SIGBUS."""
    store = FeatureStore(tmp_path, {}, 10)
    store.write(torch.arange(2), features(2))

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(feature_store, "open", full, raising=False)
        with pytest.raises(CannotWriteError, match=r"summary\.float16 cannot be written: No space left"):
            store.write(torch.arange(2, 4), features(2))
    assert store.has(torch.arange(4)).tolist() == [True, True, False, False]
    store.write(torch.tensor([7, 3]), features(2))
    assert np.flatnonzero(FeatureStore(tmp_path, {}, 10).filled).tolist() == [0, 1, 3, 7]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device .*Make room"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "No space left on device"),
        (SafetensorError("I/O error: No space left on device (os error 28)"), "No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied"), "Permission denied in .*make this one writable"),
        (OSError(errno.EROFS, "Read-only file system"), "Read-only file system in .*Choose another folder"),
    ],
)
def test_errors_of_writing_name_the_file(error: Exception, said: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with pytest.raises(CannotWriteError, match=f"{tmp_path}/a cannot be written: {said}"), atomic_path(tmp_path / "a"):
        raise error
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"] and (tmp_path / "a").read_text() == "old"


def test_other_errors_stay_what_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = FileNotFoundError(errno.ENOENT, "No such file or directory", "/a/picture.jpg")
    for error in (ValueError("x"), RuntimeError("x"), elsewhere, PermissionError(errno.EACCES, "no", "/a/picture.jpg")):
        with pytest.raises(type(error)) as raised, write_errors_named(tmp_path / "a"):
            raise error
        assert raised.value is error
    monkeypatch.setattr(files, "free_bytes", lambda folder: 0)  # torch does not say what is wrong
    with pytest.raises(CannotWriteError, match="No space left"), write_errors_named(tmp_path / "a"):
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534")


@pytest.mark.parametrize("then", ["gone", "replaced", "renamed"])
@pytest.mark.parametrize("writer", ["log", "checkpoint", "file"])
def test_a_folder_that_is_no_longer_the_one(then: str, writer: str, tmp_path: Path) -> None:
    """Nothing is written into the folder of somebody else, and none is made anew."""
    folder = RunFolder(tmp_path / "run", {"seed": 1})
    folder.begin()
    log = RunLog(folder.metrics, "stage", 0, tensorboard=False)
    log.write(1, {"loss": 1.0})

    class Losing(ToyBatches):
        def batch(self, step: int) -> dict[str, Any]:
            if step == 3:
                folder.path.rename(tmp_path / "elsewhere") if then == "renamed" else shutil.rmtree(folder.path)
            if step == 3 and then == "replaced":
                folder.path.mkdir()
                (folder.path / "config.yaml").write_text("another")
            return super().batch(step)

    trainer = make_trainer(folder.path, data=Losing())
    with pytest.raises(FolderGoneError, match="run was removed, renamed or replaced while"):
        trainer.train()
    with pytest.raises((FolderGoneError, CheckpointError), match="run was removed, renamed or replaced"):
        if writer == "log":
            log.write(2, {"loss": 1.0})
        elif writer == "checkpoint":
            trainer.checkpoints.save(Processes(), 3, {}, {})
        else:
            files.atomic_write_text(folder.path / "report.html", "")
    left = sorted(entry.name for entry in folder.path.iterdir()) if folder.path.exists() else []
    assert left == (["config.yaml"] if then == "replaced" else [])
    folder.release()


def test_a_folder_without_a_lock_that_is_gone(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "run" / "metrics.jsonl", "stage", 0, tensorboard=False)
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(CannotWriteError, match=r"run is gone or no folder any more\. Was it removed or renamed\?"):
        log.write(1, {"loss": 1.0})


def test_a_lock_on_a_full_disk_holds_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(json, "dumps", full)  # as its file cannot be written
        folder = RunFolder(tmp_path / "run", {})
        folder.lock()
    folder.release()
    assert list((tmp_path / "run").iterdir()) == []


def test_tensorboard_on_a_full_disk_does_not_end_a_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    log = RunLog(tmp_path / "metrics.jsonl", "stage", 0, tensorboard=True)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(log._board, "add_scalar", full)
    with pytest.warns(UserWarning, match="no more files for TensorBoard, .*has the same numbers"):
        log.write(1, {"loss": 1.0})
    log.write(2, {"loss": 1.0})
    log.close()
    assert [line["step"] for line in read_lines(tmp_path / "metrics.jsonl")] == [1, 2]
