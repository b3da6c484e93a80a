"""FSDP2 on real models: a small ViT and CNN that learn from a teacher, over gloo, against whole weights."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from process_groups import run_group
from torch.distributed.tensor import DTensor
from toy_training import PLAIN, ToyBatches, make_trainer, toy_optim

from eyespot.distill.committee import Committee
from eyespot.distill.features.feature_distillation import FeatureDistillation
from eyespot.encoders import Encoder, load_encoder, save_encoder
from eyespot.engine import units
from eyespot.engine.callbacks import Callback, Students
from eyespot.engine.config import EngineConfig
from eyespot.engine.metrics import read_lines
from eyespot.engine.strategy import whole

VIT, CNN = "timm/test_vit?pretrained=false", "timm/test_convnext?pretrained=false"


class Watching(Callback):
    """Writes down the summed weights that it is shown."""

    every = 2

    def __init__(self, folder: Path) -> None:
        self.file, self.sums = folder / "shown.json", {}

    def after_step(self, step: int, students: Students) -> None:
        self.sums[step] = float(sum(weight.double().abs().sum() for weight in students["student"].parameters()))
        self.file.write_text(json.dumps(self.sums))


def train(rank: int, size: int, folder: Path, spec: str, engine: dict[str, Any], optim: dict[str, Any]) -> None:
    units.BACKEND = "eager"
    torch.manual_seed(0)
    task = FeatureDistillation(
        load_encoder(spec),
        Committee({"teacher": load_encoder("timm/test_vit2?pretrained=false")}),
        adapter_width=8,
        student_sizes=[32, 64],
        teacher_sizes=[64],
        statistics_steps=1,
    )
    trainer = make_trainer(
        folder,
        task=task,
        data=ToyBatches(rank, size),
        engine=EngineConfig(**{**PLAIN.__dict__, "checkpoint_every": 2, **engine}),
        optim=toy_optim(steps=4, **optim),
        callbacks=[Watching(folder)] if rank == 0 else [],
    )
    student = trainer.train()["student"]
    adapters = whole(task.adapters())
    held = {
        "student": sum(_held(weight) for weight in task.students["student"].parameters()),
        "teacher": sum(_held(weight) for weight in next(iter(task.teachers.values())).parameters()),
        "moments": sum(_held(state["exp_avg"]) for state in trainer.optimizer.state.values()),
    }
    (folder / f"held-{rank}.json").write_text(json.dumps(held))
    if rank == 0:
        assert isinstance(student, Encoder)
        save_encoder(student, folder / "model", adapters=adapters)


def _held(tensor: torch.Tensor) -> int:
    return (tensor.to_local() if isinstance(tensor, DTensor) else tensor).numel()


def held(folder: Path, what: str, size: int = 2) -> list[int]:
    return [json.loads((folder / f"held-{rank}.json").read_text())[what] for rank in range(size)]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    encoder = load_encoder(f"run/{folder}/model")
    return {**encoder.state_dict(), **encoder.adapters}


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in read_lines(folder / "metrics.jsonl")]


def assert_close(one: Path, other: Path, tolerance: float) -> None:
    assert len(losses(one)) == 4
    assert losses(one) == pytest.approx(losses(other), rel=tolerance)
    left, right = weights(one), weights(other)
    assert left.keys() == right.keys()
    apart = {name: float((left[name] - right[name]).norm() / (right[name].norm() + 1e-6)) for name in left}
    # the bias of attention's keys has no gradient but rounding
    assert max(value for name, value in apart.items() if "qkv.bias" not in name) < 100 * tolerance, apart


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same by one process."""
    folder = tmp_path_factory.mktemp("alone")
    for name, spec in {"vit": VIT, "cnn": CNN}.items():
        assert run_group(1, train, folder / name, spec, {}, {"ema_decay": 0.8}) == ["done"]
    return folder


@pytest.mark.parametrize(("name", "spec"), [("vit", VIT), pytest.param("cnn", CNN, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "engine",
    [
        {},
        {"shard_teachers": True, "activation_checkpointing": True},
        pytest.param({"compile": True, "shard_teachers": True}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_sharded_equals_whole(alone: Path, tmp_path: Path, name: str, spec: str, engine: dict[str, Any]) -> None:
    """Losses, the student that is saved (the average), its heads, and what callbacks are shown."""
    ended = run_group(2, train, tmp_path, spec, {"strategy": "fsdp", **engine}, {"ema_decay": 0.8})
    assert ended == ["done"] * 2
    assert_close(tmp_path, alone / name, 1e-4)
    one, other = (json.loads((folder / "shown.json").read_text()) for folder in (tmp_path, alone / name))
    assert one.keys() == {"2", "4"}
    assert one == pytest.approx(other, rel=1e-3)
    for what in ("student", "moments", *(["teacher"] if engine.get("shard_teachers") else [])):
        total = sum(held(alone / name, what, size=1))
        assert sum(held(tmp_path, what)) == total
        assert max(held(tmp_path, what)) < 0.6 * total
    if not engine.get("shard_teachers"):
        assert held(tmp_path, "teacher") == held(alone / name, "teacher", size=1) * 2


@pytest.mark.parametrize("spec", [VIT, pytest.param("timm/test_resnet?pretrained=false", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_in_bf16_sharded_is_near_whole(tmp_path: Path, spec: str) -> None:
    """Blocks are gathered in bfloat16 (those with batch norm in float32); the slices stay in float32."""
    for name, strategy in {"a": "ddp", "b": "fsdp"}.items():
        engine = {"strategy": strategy, "precision": "bf16-mixed"}
        assert run_group(2, train, tmp_path / name, spec, engine, {}) == ["done"] * 2
    assert losses(tmp_path / "b") == pytest.approx(losses(tmp_path / "a"), rel=0.02)
    assert {value.dtype for value in weights(tmp_path / "b").values() if value.is_floating_point()} == {torch.float32}


@pytest.mark.slow
def test_with_a_bound_on_tokens(alone: Path, tmp_path: Path) -> None:
    """Every process splits its batches the same way, also where sizes change."""
    engine = {"strategy": "fsdp", "max_tokens": 40}
    assert run_group(2, train, tmp_path, VIT, engine, {"ema_decay": 0.8}) == ["done"] * 2
    assert_close(tmp_path, alone / "vit", 1e-4)


def train_two_stages(rank: int, size: int, folder: Path) -> None:
    teacher = load_encoder("timm/test_vit2?pretrained=false")
    committee = Committee({"teacher": teacher})
    engine = EngineConfig(**{**PLAIN.__dict__, "strategy": "fsdp", "shard_teachers": True})
    for stage in ("first", "second"):
        task = FeatureDistillation(
            load_encoder(VIT), committee, adapter_width=8, student_sizes=[32], statistics_steps=1
        )
        optim, data = toy_optim(steps=1), ToyBatches(rank, size)
        make_trainer(folder / stage, task=task, data=data, engine=engine, optim=optim).train()
    assert not any(isinstance(weight, DTensor) for weight in teacher.parameters())


@pytest.mark.slow
def test_teachers_that_were_cut_serve_in_the_next_stage(tmp_path: Path) -> None:
    assert run_group(2, train_two_stages, tmp_path) == ["done"] * 2
