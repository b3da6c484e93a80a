"""Units, activation checkpointing and compilation: they change memory and speed, never the result."""

import copy
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.layers import DropPath
from torch import nn
from toy_training import PLAIN, Crash, ToyBatches, ToyTask, make_trainer, same, state_of, stored, toy_optim

from eyespot import Encoder, Features, load_encoder
from eyespot.distill.committee import Committee
from eyespot.distill.features.feature_distillation import FeatureDistillation
from eyespot.engine import units
from eyespot.engine.trainer import Trainer
from eyespot.engine.units import units_of


def on_meta(name: str) -> nn.Module:
    with torch.device("meta"):
        model: nn.Module = timm.create_model(name, num_classes=0)
    return model


@pytest.mark.parametrize(
    ("name", "kind", "count"),
    [
        ("vit_tiny_patch16_dinov3_qkvb", "EvaBlock", 12),
        ("vit_base_patch16_siglip_224", "Block", 12),
        ("convnext_tiny", "ConvNeXtStage", 4),
        ("swin_tiny_patch4_window7_224", "SwinTransformerStage", 4),
        ("resnet18", "BasicBlock", 8),
        ("mobilenetv4_conv_small", "Sequential", 5),
    ],
)
def test_units_are_blocks_or_stages(name: str, kind: str, count: int) -> None:
    found = units_of(on_meta(name))
    assert [type(unit).__name__ for unit in found] == [kind] * count
    owned = [id(weight) for unit in found for weight in unit.parameters()]
    assert len(owned) == len(set(owned))


def test_adapter_heads_are_units_and_small_things_are_not() -> None:
    task = distillation("timm/test_vit?pretrained=false")
    kinds = [type(unit).__name__ for unit in units_of(task.learners)]
    assert sorted(set(kinds)) == ["Block", "TeacherAdapter"]
    assert units_of(nn.Sequential(nn.Linear(2, 2), nn.ReLU())) == []
    assert units_of(ToyTask()) == []


def distillation(spec: str, sizes: tuple[int, ...] = (64,)) -> FeatureDistillation:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        committee = Committee({"teacher": load_encoder("timm/test_resnet?pretrained=false")})
        return FeatureDistillation(
            load_encoder(spec), committee, adapter_width=8, student_sizes=sizes, statistics_steps=1
        )


def train(
    folder: Path,
    spec: str,
    steps: int = 3,
    data: ToyBatches | None = None,
    sizes: tuple[int, ...] = (64,),
    **engine: Any,
) -> Trainer:
    trainer = make_trainer(
        folder,
        task=distillation(spec, sizes),
        data=data,
        engine=replace(PLAIN, checkpoint_every=2, **engine),
        optim=toy_optim(steps=steps, warmup_steps=0),
    )
    trainer.train()
    return trainer


VIT = "timm/test_vit?pretrained=false&drop_path_rate=0.2"
CNN = "timm/test_resnet?pretrained=false"
"""With batch norm."""


@pytest.mark.parametrize("spec", [VIT, CNN, "timm/test_convnext?pretrained=false"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_activation_checkpointing_changes_no_bit(tmp_path: Path, spec: str, precision: str) -> None:
    """Not the weights, nor the draws of drop path, nor the statistics of batch norm."""
    plain = train(tmp_path / "plain", spec, precision=precision)
    spared = train(tmp_path / "spared", spec, precision=precision, activation_checkpointing=True)
    assert same(state_of(spared.task), state_of(plain.task))
    assert plain.checkpoints.last and spared.checkpoints.last
    assert same(stored(spared.checkpoints.last), stored(plain.checkpoints.last))


def test_activation_checkpointing_keeps_less() -> None:
    """What a forward pass keeps for the backward pass, in bytes."""
    kept = []
    for spare in (False, True):
        task = distillation(VIT)
        if spare:
            units.checkpoint_activations(task)
        sizes: dict[int, int] = {}

        def pack(tensor: torch.Tensor, sizes: dict[int, int] = sizes) -> torch.Tensor:
            sizes[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            task.students["student"](torch.rand(4, 3, 64, 64))
        kept.append(sum(sizes.values()))
    assert kept[1] < 0.5 * kept[0]


def test_a_copy_of_a_checkpointed_student_computes_with_its_own_weights() -> None:
    """As the probes take one."""
    task = distillation(VIT)
    units.checkpoint_activations(task)
    student, images = task.students["student"].eval(), torch.rand(1, 3, 64, 64)
    copied = copy.deepcopy(student)
    with torch.no_grad():
        before = copied(images).summary
        for weight in student.parameters():
            weight.zero_()
        assert torch.equal(copied(images).summary, before)
        assert not torch.equal(student(images).summary, before)


def test_models_without_blocks_are_left_to_timm_or_refused_by_name(tmp_path: Path) -> None:
    train(tmp_path / "regnet", "timm/regnety_002?pretrained=false", steps=1, activation_checkpointing=True)
    trainer = make_trainer(tmp_path, task=ToyTask(), engine=replace(PLAIN, activation_checkpointing=True))
    with pytest.raises(ValueError, match=r"student 'student' \(Student\) has no blocks .*activation_checkpointing"):
        trainer.train()


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every graph that is compiled, with a compiler that costs nothing."""
    seen: list[Any] = []

    def compiler(graph: Any, inputs: Any) -> Any:
        seen.append(graph)
        return graph.forward

    torch._dynamo.reset()
    monkeypatch.setattr(units, "BACKEND", compiler)
    return seen


@pytest.mark.parametrize("spec", [pytest.param(VIT, marks=pytest.mark.slow), CNN])
def test_compiled_equals_eager_and_keeps_names(tmp_path: Path, graphs: list[Any], spec: str) -> None:
    plain = train(tmp_path / "plain", spec)
    assert not graphs
    compiled = train(tmp_path / "compiled", spec, compile=True)
    assert graphs
    assert state_of(compiled.task).keys() == state_of(plain.task).keys()
    for name, value in state_of(plain.task).items():
        torch.testing.assert_close(compiled.task.state_dict()[name], value, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="inductor compiles with g++")
def test_a_compiled_unit_draws_as_an_eager_one() -> None:
    """Drop path and dropout: inductor's own draws would be others."""
    unit = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), DropPath(0.5))
    task, images = ToyTask(), torch.randn(6, 8)
    task.student = nn.Sequential(unit)  # type: ignore[assignment]
    torch.manual_seed(1)
    eager = unit(images)
    units.compile_units(task)
    torch.manual_seed(1)
    torch.testing.assert_close(unit(images), eager)


def test_every_size_is_compiled_once(tmp_path: Path, graphs: list[Any]) -> None:
    class Counting(ToyBatches):
        def batches(self, start_step: int = 0) -> Any:
            for batch in super().batches(start_step):
                counts.append(len(graphs))
                yield batch

    counts: list[int] = []  # graphs there are before each step
    train(tmp_path, "timm/test_vit?pretrained=false", steps=8, sizes=(64, 80), compile=True, data=Counting())
    sides = [distillation(VIT, (64, 80)).sizes(step)[0] for step in range(8)]
    new = [after > before for before, after in pairwise([*counts[-8:], len(graphs)])]
    assert new == [side not in sides[:step] for step, side in enumerate(sides)]
    assert sum(new) == 2


@pytest.mark.slow
def test_a_compiled_training_can_be_continued(tmp_path: Path, graphs: list[Any]) -> None:
    whole = train(tmp_path / "whole", VIT, compile=True)
    with pytest.raises(Crash):
        train(tmp_path / "cut", VIT, compile=True, data=ToyBatches(fails_at=2))
    cut = train(tmp_path / "cut", VIT, compile=True)
    assert same(state_of(cut.task), state_of(whole.task))


@pytest.mark.slow
def test_compiled_and_checkpointed_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch._dynamo.reset()
    monkeypatch.setattr(units, "BACKEND", "aot_eager")  # what cuts the graph in two, as inductor does
    plain = train(tmp_path / "plain", VIT)
    both = train(tmp_path / "both", VIT, compile=True, activation_checkpointing=True)
    for name, value in state_of(plain.task).items():
        torch.testing.assert_close(both.task.state_dict()[name], value, rtol=1e-4, atol=1e-5, msg=name)


class File(Encoder):
    """Like a file of another runtime: no parameters, and nothing that torch could compile."""

    name, summary_dim, patch_dim, stride, default_size = "file", 3, 3, 16, (64, 64)

    def _encode(self, images: torch.Tensor) -> Features:
        return Features(images.mean((2, 3)), nn.functional.avg_pool2d(images, 16))


def test_a_file_of_another_runtime_is_not_compiled() -> None:
    task = distillation("timm/test_vit?pretrained=false")
    task.committee.teachers["file"] = file = File()
    assert any(teacher is file for teacher in task.teachers.values())
    units.compile_units(task)
    assert file._compiled_call_impl is None
    assert any(unit._compiled_call_impl is not None for unit in units_of(task.students["student"]))
