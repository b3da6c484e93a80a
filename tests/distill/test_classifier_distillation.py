"""ClassifierDistillation: what students of a classifier are told, and that nothing ties them together."""

import math

import pytest
import torch
import torch.nn.functional as F

from eyespot.distill.classes import classifier_distillation as module
from eyespot.distill.classes import logit_losses
from eyespot.distill.classes.classifier_distillation import ClassifierDistillation, ClassifierStudent, hard_classes
from eyespot.distill.classes.config import LabelConfig, MixConfig
from eyespot.distill.classes.outputs import ClassifierOutput
from eyespot.encoders import HeadedEncoder
from eyespot.features import Features
from toy_encoders import ToyEncoder, make_batch

CLASSES, COUNT = 5, 4


def classifier(name, classes=CLASSES, **options):
    torch.manual_seed(7)
    return HeadedEncoder(ToyEncoder(name, **options), classes)


def batch(labels=(0, 1, 2, 3), step=0):
    places = {"source": torch.zeros(COUNT, dtype=torch.int64), "index": torch.arange(COUNT)}
    return make_batch(COUNT, step=step, labels=torch.tensor(labels), **places)


def make_task(students=None, teacher="teacher", mix=None, label=None, **options):
    known = {"student": ClassifierStudent(classifier("student"))} if students is None else students
    return ClassifierDistillation(
        known,
        classifier(teacher, summary_dim=9, native_size=(40, 40)) if teacher else None,
        label=label or LabelConfig(),
        mix=mix or MixConfig(),
        sources=[10],
        student_size=32,
        **options,
    ).train()


def seen_at(given, side):
    return F.interpolate(given["images"].float() / 255, size=side, mode="bilinear", antialias=True)


@pytest.mark.parametrize("loss", ["ce", "bce"])
def test_terms_are_those_of_the_formulas(loss):
    task = make_task(label=LabelConfig(loss=loss, weight=0.5))
    given = batch()
    found = task(given)
    student = task.encoders["student"](seen_at(given, 32)).logits
    teacher = task.teacher(seen_at(given, 40)).logits
    expected = {
        "label": 0.5 * module.LABEL_LOSSES[loss](student, given["labels"]),
        "kd": logit_losses.kd(student, teacher),
    }
    assert found.keys() == {"loss", "label", "kd"}
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)
    torch.testing.assert_close(found["loss"], expected["label"] + expected["kd"])


def test_first_losses_of_a_student_that_knows_nothing():
    """The log of OFA-KD's author begins so: ln K for the labels."""
    task = make_task()
    for parameter in task.encoders["student"].head.parameters():
        torch.nn.init.zeros_(parameter)
    found = task(batch())
    assert found["label"].item() == pytest.approx(math.log(CLASSES), abs=1e-5)


def test_teacher_and_students_see_the_same_mixed_pictures(monkeypatch):
    seen = {}
    original = HeadedEncoder.forward

    def watch(self, images):
        seen[self.name] = images
        return original(self, images)

    monkeypatch.setattr(HeadedEncoder, "forward", watch)
    students = {name: ClassifierStudent(classifier(name)) for name in ("one", "two")}
    task = ClassifierDistillation(
        students,
        classifier("teacher"),
        label=LabelConfig(),
        mix=MixConfig(mixup=0.8, cutmix=1.0),
        sources=[10],
        student_size=48,
        teacher_size=48,
    ).train()
    given = batch(step=3)
    seen.clear()
    task(given)
    plain = given["images"].float() / 255
    assert torch.equal(seen["one"], seen["teacher"]) and torch.equal(seen["two"], seen["teacher"])
    assert not torch.equal(seen["teacher"], plain)
    seen.clear()
    task(given)
    again = seen["teacher"]
    task(batch(step=4))
    assert not torch.equal(seen["teacher"], again)


def test_nothing_reaches_the_teacher():
    task = make_task()
    before = {name: value.clone() for name, value in task.teacher.state_dict().items()}
    task(batch())["loss"].backward()
    assert not task.teacher.training and task.training
    assert all(parameter.grad is None for parameter in task.teacher.parameters())
    assert all(torch.equal(value, before[name]) for name, value in task.teacher.state_dict().items())
    assert not [name for name in task.trained_state() if name.startswith("committee")]


def test_students_become_what_each_becomes_alone():
    methods = {"plain": "kd", "apart": "dkd", "alike": "dist", "none": "none"}

    def student_of(name):
        return ClassifierStudent(classifier("student"), methods[name])

    def gradients(task, name):
        return {key: value.grad for key, value in task.learner(name).named_parameters() if value.requires_grad}

    together = make_task({name: student_of(name) for name in methods})
    losses = together(batch())
    losses["loss"].backward()
    for name in methods:
        alone = make_task({name: student_of(name)})
        own = alone(batch())
        own["loss"].backward()
        torch.testing.assert_close(losses[f"{name}/loss"], own["loss"], rtol=0, atol=0)
        for key, gradient in gradients(alone, name).items():
            assert torch.equal(gradient, gradients(together, name)[key]), (name, key)
    assert set(together.parts()) == set(methods)


def test_labels_alone():
    task = make_task(teacher=None)
    assert set(task(batch())) == {"loss", "label"}
    assert task.teacher is None


def test_teacher_alone_asks_for_no_labels():
    task = make_task(label=LabelConfig(weight=0.0))
    found = task(batch(labels=(-1, -1, -1, -1)))
    assert set(found) == {"loss", "kd"} and found["loss"].isfinite()


@pytest.mark.parametrize("loss", ["ce", "bce"])
def test_a_picture_without_label_adds_nothing_to_the_label_term(loss):
    task = make_task(label=LabelConfig(loss=loss)).eval()
    task.learner("student").eval()
    whole = [task(batch(labels=labels))["label"] for labels in ((0, 1, 2, 3), (0, 1, -1, -1), (-1, -1, 2, 3))]
    torch.testing.assert_close(whole[1] + whole[2], whole[0])
    assert task(batch(labels=(-1,) * COUNT))["label"].item() == pytest.approx(0, abs=1e-6)


def test_hard_class_is_the_label_or_what_the_teacher_says():
    said = torch.eye(3)[[2, 2]]
    teacher = ClassifierOutput(logits=said, summary=torch.zeros(2, 1))
    targets = torch.tensor([[0.2, 0.8, 0.0], [0.0, 0.0, 0.0]])
    assert hard_classes(targets, teacher).tolist() == [1, 2]
    assert hard_classes(None, teacher).tolist() == [2, 2]
    assert hard_classes(targets[:1], None).tolist() == [1]


def test_labels_find_their_outputs_in_the_teachers_order():
    order = torch.tensor([3, 0, 4, 1, 2])
    plain, turned = (make_task(places=places).eval() for places in (None, order))
    torch.testing.assert_close(turned(batch(labels=(1, 3, 4, 0)))["label"], plain(batch(labels=(0, 1, 2, 3)))["label"])


def test_pictures_are_numbered_over_all_sources():
    task = make_task()
    task.first_pictures = torch.tensor([0, 100])
    given = {"source": torch.tensor([0, 1, 1]), "index": torch.tensor([7, 0, 5])}
    assert task.picture_numbers(given).tolist() == [7, 100, 105]


def test_what_cannot_be_taught_is_refused():
    with pytest.raises(ValueError, match="nothing to learn from"):
        make_task(teacher=None, label=LabelConfig(weight=0.0))
    with pytest.raises(ValueError, match="has no class head"):
        make_task({"student": ClassifierStudent(ToyEncoder("bare"))})
    with pytest.raises(ValueError, match="the student has 3 classes, the teacher 5"):
        make_task({"student": ClassifierStudent(classifier("student", classes=3))})
    with pytest.raises(ValueError, match="did you mean 'kd'"):
        make_task({"student": ClassifierStudent(classifier("student"), "kdd")})


def test_an_encoder_without_head_can_teach_features():
    class Bare(ToyEncoder):
        def _encode(self, images):
            return Features(*(getattr(super(Bare, self)._encode(images), part) for part in ("summary", "patches")))

    task = ClassifierDistillation(
        {"student": ClassifierStudent(classifier("student"), "rkd")},
        Bare("bare"),
        label=LabelConfig(),
        mix=MixConfig(),
        sources=[10],
    ).train()
    found = task(batch())
    assert set(found) >= {"loss", "label"} and len(found) > 2 and found["loss"].isfinite()
