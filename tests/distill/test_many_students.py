"""Several students learn from one pass of the teachers, each as if it were alone."""

import pytest
import torch
from torch import nn

from eyespot.distill.committee import Committee
from eyespot.distill.features.feature_distillation import FeatureDistillation, token_count
from eyespot.engine.config import OptimConfig
from eyespot.engine.optim import make_optimizer
from eyespot.features import Features
from toy_encoders import ToyEncoder, make_batch


class Forgetful(ToyEncoder):
    """Draws at random in training, as drop path does."""

    def _encode(self, images):
        features = super()._encode(images)
        if not self.training:
            return features
        return Features(nn.functional.dropout(features.summary, 0.5), nn.functional.dropout(features.patches, 0.5))


class Counted(ToyEncoder):
    passes = 0

    def _encode(self, images):
        Counted.passes += 1
        return super()._encode(images)


MAKERS = {"small": lambda: Forgetful("small"), "wide": lambda: Forgetful("wide", summary_dim=9, patch_dim=11, stride=8)}


def make_task(names):
    """Students of these names, in this order, from one seed, as a stage makes them."""
    students = {}
    for name in names:
        torch.manual_seed(5)
        students[name] = MAKERS[name]()
    torch.manual_seed(7)
    teacher = Counted("teacher", summary_dim=3, patch_dim=4, stride=4)
    task = FeatureDistillation(students, Committee({"t": teacher}), adapter_width=8, student_sizes=(16, 32))
    task.prepare(make_batch(key=f"statistics {step}", step=step) for step in range(2))
    return task.train()


def trained(names, steps=3):
    task = make_task(names)
    optimizer = make_optimizer(task, OptimConfig(steps=steps, batch_size=4, learning_rate=1e-2))
    logged = []
    for step in range(steps):
        torch.manual_seed(step)
        losses = task(make_batch(key=f"step {step}", step=step))
        losses["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        logged.append({name: value.item() for name, value in losses.items()})
    return task, logged


@pytest.mark.parametrize("order", [("small", "wide"), ("wide", "small")])
def test_together_they_become_what_each_becomes_alone(order):
    together, logged = trained(order)
    for name in order:
        alone, single = trained([name])
        states = [task.learners[name].state_dict() for task in (together, alone)]
        assert states[0].keys() == states[1].keys()
        assert all(torch.equal(value, states[1][key]) for key, value in states[0].items()), name
        assert [line[f"{name}/loss"] for line in logged] == [line["loss"] for line in single]
        assert [line[f"{name}/t/patch"] for line in logged] == [line["t/patch"] for line in single]


def test_the_loss_is_the_sum_of_theirs():
    _, (line, *_) = trained(["small", "wide"])
    assert line.keys() == {"loss"} | {f"{name}/{term}" for name in MAKERS for term in ("loss", "t/summary", "t/patch")}
    assert line["loss"] == pytest.approx(line["small/loss"] + line["wide/loss"], rel=1e-6)


def test_the_teacher_looks_once_for_all():
    task = make_task(["small", "wide"])
    Counted.passes = 0
    task(make_batch())
    assert Counted.passes == 1


def test_each_has_parameters_adapters_and_decay_of_its_own():
    task = make_task(["small", "wide"])
    parts = task.parts()
    assert parts.keys() == {"small", "wide"}
    every = [weight for weights in parts.values() for weight in weights]
    assert {id(weight) for weight in every} == {id(weight) for weight in task.parameters() if weight.requires_grad}
    assert len(every) == len({id(weight) for weight in every})
    small, wide = task.adapters("small"), task.adapters("wide")
    assert (
        small.keys()
        == wide.keys()
        == {f"heads.{name}" for name in task.learners["small"].heads.state_dict()}
        | {f"standardizers.{name}" for name in task.standardizers.state_dict()}
    )
    assert small["heads.t.patch.0.weight"].shape == (8, 5) and wide["heads.t.patch.0.weight"].shape == (8, 11)


def test_one_student_is_one_part():
    assert list(make_task(["small"]).parts()) == [""]


def test_tokens_are_those_of_whoever_computes_most():
    task = make_task(["small", "wide"])
    student_sizes = [task.sizes(step)[0] for step in range(8)]
    assert {16, 32} == set(student_sizes)
    teacher = token_count(task.committee.teachers["t"], None)  # stride 4
    for step, size in enumerate(student_sizes):
        assert task.tokens(make_batch(step=step)) == max(teacher, (size // 8) ** 2)


def test_no_students_are_refused():
    with pytest.raises(ValueError, match="at least one student"):
        FeatureDistillation({}, Committee({"t": ToyEncoder("t")}), adapter_width=8, student_sizes=(16,))
