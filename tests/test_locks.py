"""One writer per folder."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from eyespot import locks
from eyespot.engine.run import RunFolder, RunMismatchError
from eyespot.locks import LOCK_FILE, InUseError, Lock

HOLDER = """
import sys
from eyespot.locks import Lock
Lock(sys.argv[1], "the folder").acquire()
print("held", flush=True)
sys.stdin.read()
"""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no locks on Windows")


@pytest.fixture
def holder(tmp_path: Path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path / LOCK_FILE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_the_second_is_told_who_is_there(holder, tmp_path):
    for _ in range(2):
        with pytest.raises(
            InUseError, match=rf"the folder is in use by process {holder.pid} on .*, since 20"
        ) as refused:
            Lock(tmp_path / LOCK_FILE, "the folder").acquire()
    assert os.uname().nodename in str(refused.value)


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM, None])
def test_the_lock_goes_with_its_process(holder, tmp_path, ending):
    holder.communicate() if ending is None else holder.send_signal(ending)
    holder.wait()
    with Lock(tmp_path / LOCK_FILE, "the folder"):
        assert (tmp_path / LOCK_FILE).is_file()
    assert list(tmp_path.iterdir()) == []


def test_one_process_may_take_it_several_times(tmp_path):
    first, second = Lock(tmp_path / LOCK_FILE, "a"), Lock(str(tmp_path / LOCK_FILE), "b")
    first.acquire()
    second.acquire()
    first.release()
    assert is_refused(tmp_path)
    second.release()
    assert not is_refused(tmp_path)
    second.release()  # once more than it was taken


def is_refused(folder):
    """Whether another process is."""
    asked = f"from eyespot.locks import Lock; Lock({str(folder / LOCK_FILE)!r}, 'it').acquire()"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True)
    assert done.returncode == 0 or "InUseError: it is in use by process" in done.stderr, done.stderr
    return done.returncode != 0


def test_a_forked_child_neither_holds_nor_gives_up(tmp_path):
    lock = Lock(tmp_path / LOCK_FILE, "it")
    lock.acquire()
    child = os.fork()
    if child == 0:
        lock.release()
        os._exit(0)
    os.waitpid(child, 0)
    assert is_refused(tmp_path)
    lock.release()
    assert not is_refused(tmp_path)


def test_an_orphan_does_not_keep_it(tmp_path):
    """A process that is killed may leave data workers, which have inherited its files."""
    script = HOLDER.replace('print("held"', 'import os\nif os.fork() == 0: sys.stdin.read(); os._exit(0)\nprint("held"')
    parent = subprocess.Popen([sys.executable, "-c", script, tmp_path / LOCK_FILE], stdin=-1, stdout=-1, text=True)
    assert parent.stdout is not None and parent.stdout.readline() == "held\n"
    parent.kill()
    parent.wait()
    assert not is_refused(tmp_path)


def test_a_run_has_one_writer(tmp_path):
    run = RunFolder(tmp_path, {"seed": 0})
    run.begin()
    assert is_refused(tmp_path)
    run.release()
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"] and not is_refused(tmp_path)
    again = RunFolder(tmp_path, {"seed": 0})
    again.lock()
    again.begin()
    assert is_refused(tmp_path)
    del again  # a run that ended with an error
    assert not is_refused(tmp_path)


def test_of_two_that_begin_at_once_one_is_refused(tmp_path):
    first, second = RunFolder(tmp_path, {"seed": 0}), RunFolder(tmp_path, {"seed": 1})
    first.begin()
    first.release()
    with pytest.raises(RunMismatchError, match="seed: 0 -> 1"):
        second.begin()


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch, number):
    def refused(*_, **__):
        raise OSError(number, os.strerror(number), "x/.eyespot.lock")

    monkeypatch.setattr(locks, "open", refused, raising=False)
    with pytest.raises(OSError, match=f"nothing can be written in the folder: {os.strerror(number)}. Make it writable"):
        Lock(tmp_path / LOCK_FILE, "the folder").acquire()
