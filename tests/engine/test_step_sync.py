"""A step never makes the host wait for the device, and moves there only what the Task asks for."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_divergence import Teacher
from torch.utils._python_dispatch import TorchDispatchMode
from toy_training import BATCH_SIZE, PLAIN, ToyBatches, ToyTask, make_trainer, same, state_of, toy_optim

from eyespot import load_encoder
from eyespot.data.loading.batch import Batch
from eyespot.distill.cache import CachedCommittee
from eyespot.distill.committee import Committee
from eyespot.distill.features.feature_distillation import FeatureDistillation
from eyespot.encoders import Encoder
from eyespot.engine.metrics import read_lines
from eyespot.engine.task import Task
from eyespot.engine.trainer import Trainer, split_batch

WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "_unique", "unique", "is_nonzero", "equal")
"""Operations whose result the host needs before it can go on: item(), bool(), float(), indexing by a mask, ..."""


class NoWaiting(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__.partition(".")[0]
        by_mask = name.startswith("index") and any(
            isinstance(index, torch.Tensor) and index.dtype == torch.bool
            for index in (args[1] if isinstance(args[1], list | tuple) else ())
        )
        if name in WAITING or by_mask:
            raise AssertionError(f"{name} makes the host wait for the device")
        return func(*args, **(kwargs or {}))


class Numbered(ToyBatches):
    """The same eight pictures in every step, with the numbers that a loader gives them."""

    def batch(self, step: int) -> dict[str, Any]:
        numbers = torch.arange(BATCH_SIZE)
        ids = {
            "source": torch.zeros(BATCH_SIZE, dtype=torch.int64),
            "index": numbers,
            "view": torch.zeros_like(numbers),
        }
        return {**super().batch(0), "step": step, **ids, "labels": numbers}


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Steps that were done under watch: all from the second on; the first may fill caches."""
    done: list[int] = []
    step = Trainer._train_step

    @contextmanager
    def nothing() -> Iterator[None]:
        yield

    def watch(self: Trainer, batch: Batch) -> dict[str, torch.Tensor]:
        done.append(self.step)
        with NoWaiting() if self.step else nothing():
            return step(self, batch)

    monkeypatch.setattr(Trainer, "_train_step", watch)
    # On an accelerator an encoder looks at the values of the first batch only.
    monkeypatch.setattr(Encoder, "_check_range", lambda self, images: None)
    return done


def distillation(committee: Any) -> FeatureDistillation:
    student = load_encoder("timm/test_vit?pretrained=false&drop_path_rate=0.1")
    return FeatureDistillation(student, committee, adapter_width=8, student_sizes=[32, 64], statistics_steps=1)


def test_the_watch_sees_what_waits() -> None:
    for waiting in (lambda x: x.sum().item(), lambda x: bool(x.sum() > 0), lambda x: x[x > 0], lambda x: x.nonzero()):
        with pytest.raises(AssertionError, match="wait"), NoWaiting():
            waiting(torch.ones(3))


@pytest.mark.parametrize("clip_norm", [None, 0.5])
def test_live_teachers(tmp_path: Path, watched: list[int], clip_norm: float | None) -> None:
    optim = toy_optim(steps=4, ema_decay=0.9, accumulate=2, clip_norm=clip_norm)
    engine = replace(PLAIN, log_every=100, precision="bf16-mixed")
    task = distillation(Committee({"teacher": Teacher()}))
    make_trainer(tmp_path, task=task, data=Numbered(), optim=optim, engine=engine).train()
    assert watched == [0, 1, 2, 3]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_cached_teachers(tmp_path: Path, watched: list[int], accumulate: int) -> None:
    committee = Committee({"teacher": Teacher()})
    cached = CachedCommittee(committee, tmp_path / "cache", setting={}, source_lengths=[BATCH_SIZE], views=1)
    optim = toy_optim(steps=4, accumulate=accumulate)
    make_trainer(tmp_path, task=distillation(cached), data=Numbered(), optim=optim).train()
    assert watched == [0, 1, 2, 3]


class OnDevice(ToyTask):
    on_device = ("images", "masks")

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        self.seen = batch
        return super().forward(batch)


def test_only_what_the_task_names_is_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[int] = []
    plain = torch.Tensor.to

    def to(self: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if kwargs.get("non_blocking"):
            moved.append(id(self))
        return plain(self, *args, **kwargs)

    trainer = make_trainer(tmp_path, task=OnDevice(), optim=toy_optim(steps=1))
    trainer.train()
    monkeypatch.setattr(torch.Tensor, "to", to)
    batch = {**Numbered().batch(0), "masks": {"a": torch.ones(8), "b": 3}}
    assert trainer._on_device(batch)["masks"].keys() == {"a", "b"}
    assert moved == [id(batch["images"]), id(batch["masks"]["a"])]


def test_what_losses_are_made_of_is_moved_by_default_and_cached_records_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All maps and labels go to the device; records stay until it is known which rows are missing."""
    trainer = make_trainer(tmp_path, optim=toy_optim(steps=1))
    monkeypatch.setattr(trainer, "fabric", SimpleNamespace(device=torch.device("meta")))
    one = torch.ones(8)
    batch = {"images": one, "labels": one, "maps": {"depth": one}, "cache": {"teacher": {"records": one}}, "view": one}
    moved = trainer._on_device(batch)
    assert all(value.is_meta for value in (moved["images"], moved["labels"], moved["maps"]["depth"]))
    assert not moved["cache"]["teacher"]["records"].is_meta and not moved["view"].is_meta


def test_micro_batches_cut_nested_entries_and_keep_the_rest() -> None:
    batch = {**Numbered().batch(3), "cache": {"rows": torch.arange(16).view(8, 2), "name": "x"}, "scale": torch.ones(3)}
    parts = split_batch(batch, 2)
    assert torch.equal(torch.cat([part["cache"]["rows"] for part in parts]), batch["cache"]["rows"])
    assert [part["index"].tolist() for part in parts] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert all(part["cache"]["name"] == "x" and len(part["scale"]) == 3 and part["step"] == 3 for part in parts)


class Counted(ToyTask):
    """Says how many tokens it computes, more in every other step, and writes down its micro-batches."""

    def __init__(self) -> None:
        super().__init__(dropout=0)
        self.calls: list[tuple[int, int]] = []

    def tokens(self, batch: Batch) -> int:
        return 100 if batch["step"] % 2 else 30

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        self.calls.append((batch["step"], len(batch["images"])))
        return super().forward(batch)


@pytest.mark.parametrize(
    ("most", "accumulate", "even", "odd"),
    [
        (800, 1, [8], [8]),
        (400, 1, [8], [4, 4]),
        (240, 1, [8], [2, 2, 2, 2]),
        (239, 1, [4, 4], [2, 2, 2, 2]),
        (400, 2, [4, 4], [4, 4]),
        (50, 1, [1] * 8, [1] * 8),  # a picture is the least
    ],
)
def test_max_tokens_bounds_every_micro_batch(
    tmp_path: Path, most: int, accumulate: int, even: list[int], odd: list[int]
) -> None:
    task, plain = Counted(), ToyTask(dropout=0)
    optim = toy_optim(steps=4, accumulate=accumulate)
    make_trainer(tmp_path / "a", task=task, optim=optim, engine=replace(PLAIN, max_tokens=most)).train()
    found = [[count for at, count in task.calls if at == step] for step in range(4)]
    assert found == [even, odd, even, odd]
    make_trainer(tmp_path / "b", task=plain, optim=optim).train()
    torch.testing.assert_close(state_of(task), state_of(plain), rtol=1e-4, atol=1e-6)


def test_max_tokens_needs_a_task_that_counts(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ToyTask does not say how many tokens it computes: unset max_tokens"):
        make_trainer(tmp_path, engine=replace(PLAIN, max_tokens=100)).train()


class Two(Task):
    """Two toys side by side, which share nothing but their pictures."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__()
        self.toys = torch.nn.ModuleDict({name: ToyTask(dropout=0) for name in names})
        if "wild" in names:
            torch.nn.init.constant_(self.toys["wild"].student.head.weight, 50.0)

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        return {"loss": torch.stack([toy(batch)["loss"] for toy in self.toys.values()]).sum()}

    @property
    def students(self) -> dict[str, torch.nn.Module]:
        return {name: toy.student for name, toy in self.toys.items()}

    def parts(self) -> dict[str, list[torch.nn.Parameter]]:
        return {name: list(toy.student.parameters()) for name, toy in self.toys.items()}


def test_the_gradient_is_clipped_part_by_part(tmp_path: Path) -> None:
    """A wild student takes nothing from a calm one."""
    optim = toy_optim(steps=3, clip_norm=0.1)
    both, alone = Two(("calm", "wild")), Two(("calm",))
    make_trainer(tmp_path / "both", task=both, optim=optim).train()
    make_trainer(tmp_path / "alone", task=alone, optim=optim).train()
    assert same(state_of(both.toys["calm"].student), state_of(alone.toys["calm"].student))
    line = read_lines(tmp_path / "both/metrics.jsonl")[0]
    assert line["wild/grad_norm"] > 10 * line["calm/grad_norm"] > 0
    assert "grad_norm" not in line


def test_parts_that_leave_something_out_are_refused(tmp_path: Path) -> None:
    task = Two(("calm", "wild"))
    task.parts = lambda: {"calm": list(task.toys["calm"].student.parameters())}  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=r"Two\.parts\(\) must name toys\.wild\.student\.token once, not 0 times"):
        make_trainer(tmp_path, task=task).train()
