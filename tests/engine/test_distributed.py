"""Two processes give what one gives with the same global batch, to float32 rounding, however they are started."""

import json
import os
import subprocess
import sys
from pathlib import Path

import distributed_training
import pytest
import torch

from eupe_tiny import weights, write_pictures, write_teachers
from eyespot.engine.metrics import read_lines

pytestmark = pytest.mark.slow  # test_process_counts.py and test_process_failures.py do the same without torchrun

SCRIPT = Path(distributed_training.__file__)
LOSS = {"rel": 2e-5, "abs": 2e-6}  # the same sums in another order
WEIGHTS = 1e-4
"""Of each tensor's norm. Not of each number: AdamW divides a gradient by its own size, so where one is nearly zero, the
rounding of its sum shows."""


def run(*command: str) -> None:
    places = [str(SCRIPT.parent), str(SCRIPT.parents[1] / "helpers"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, places))}
    finished = subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything trained by two processes of torchrun and, in `one/`, by this process alone."""
    folder = tmp_path_factory.mktemp("distributed")
    write_pictures(folder / "pictures")
    write_teachers(folder)
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    run(*torchrun, str(SCRIPT), "toys", str(folder))
    (folder / "one").mkdir()
    distributed_training.train_toys(folder / "one")
    for standardizer in ("channel", "phi_s"):
        distributed_training.train_recipe(folder, f"{standardizer}-1", standardizer)
    return folder


def assert_same_losses(left: Path, right: Path) -> None:
    pairs = list(zip(read_lines(left / "metrics.jsonl"), read_lines(right / "metrics.jsonl"), strict=True))
    assert pairs
    for one, other in pairs:
        assert one.keys() == other.keys()
        assert (one["stage"], one["step"]) == (other["stage"], other["step"])
        for name in one.keys() - {"stage", "step", "seconds", "pictures_per_second"}:
            assert one[name] == pytest.approx(other[name], **LOSS), (one["stage"], one["step"], name)


def assert_same_weights(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert (value - right[name]).norm() <= WEIGHTS * right[name].norm(), name


@pytest.mark.parametrize("case", ["plain", "accumulate", "ema"])
def test_two_processes_equal_one(folder: Path, case: str) -> None:
    assert_same_losses(folder / case, folder / "one" / case)
    one, two = (torch.load(place / case / "result.pt") for place in (folder / "one", folder))
    assert_same_weights(two["student"], one["student"])
    assert_same_weights(two["task"], one["task"])


@pytest.mark.parametrize("standardizer", ["channel", "phi_s"])
def test_the_recipe_by_two_processes_equals_one(folder: Path, standardizer: str) -> None:
    """Statistics pooled over both, the same draws of resolutions in both, gradients accumulated in both."""
    one, two = folder / f"{standardizer}-1", folder / f"{standardizer}-2"
    assert_same_losses(two, one)
    for stage in ("stage-1-proxy/model", "stage-2-student/model", "stage-3-multires/model", "student"):
        assert_same_weights(weights(two / stage), weights(one / stage))


def test_one_of_two_processes_probes_while_both_train(folder: Path) -> None:
    lines = read_lines(folder / "channel-2/probes.jsonl")
    assert {(line["stage"], line["step"]) for line in lines} >= {
        (stage, 4) for stage in ("stage-1-proxy", "stage-2-student", "stage-3-multires")
    }
    assert len({(line["stage"], line["step"]) for line in lines}) == len(lines)


def test_an_interrupt_of_one_process_stops_both_a_step_later(folder: Path) -> None:
    messages = [json.loads((folder / f"told-{rank}.json").read_text())[0] for rank in (0, 1)]
    assert messages == ["Stopped: stopped at step 6; the same command continues"] * 2
    one, two = torch.load(folder / "one/plain/result.pt"), torch.load(folder / "interrupted/result.pt")
    assert_same_weights(two["task"], one["task"])


def test_nan_in_one_process_stops_both_and_both_parts_of_the_batch_are_kept(folder: Path) -> None:
    messages = [json.loads((folder / f"told-{rank}.json").read_text())[1] for rank in (0, 1)]
    assert all(message.startswith("DivergenceError") and "first in step 5" in message for message in messages)
    assert "loss" in messages[1]
    batch = distributed_training.ToyBatches().batch(5)["images"]
    for half, name in ((batch[:4], "diverged-step-5.pt"), (batch[4:], "diverged-step-5-process-1.pt")):
        assert torch.equal(torch.load(folder / "diverged/stage" / name)["images"], half)


def test_devices_without_torchrun(folder: Path, tmp_path: Path) -> None:
    for name in ("pictures", "teachers.py"):
        (tmp_path / name).symlink_to(folder / name)
    run(str(SCRIPT), "recipe", str(tmp_path))
    assert_same_losses(tmp_path / "channel-2", folder / "channel-1")
    assert_same_weights(weights(tmp_path / "channel-2/student"), weights(folder / "channel-1/student"))
