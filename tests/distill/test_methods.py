"""One case for every method there is."""

import math

import pytest
import torch
from pydantic import ValidationError

from eyespot.distill.classes.config import MethodSettings
from eyespot.distill.classes.methods import METHODS, make_method, method_class
from eyespot.distill.classes.outputs import ClassifierOutput, OutputShape

CLASSES, PICTURES, BATCH = 10, 20, 6

SHAPES = {
    "maps": OutputShape(CLASSES, 32, ((8, 16, 16), (16, 8, 8), (24, 4, 4), (32, 2, 2))),
    "tokens": OutputShape(CLASSES, 12, ((17, 12),) * 4, prefix_tokens=1),
    "swin tokens": OutputShape(CLASSES, 32, ((256, 4), (64, 8), (16, 16), (4, 32))),
}
SPEAKING = [name for name in METHODS if name != "none"]
SETTINGS = MethodSettings(crd_negatives=64, crd_width=16, cc_width=16)


def output(shape, key=0, batch=BATCH):
    """A random look; everything in it is a leaf with a gradient."""
    generator = torch.Generator().manual_seed(key)

    def leaf(*size):
        return torch.randn(batch, *size, generator=generator).requires_grad_()

    return ClassifierOutput(leaf(shape.num_classes), leaf(shape.summary), tuple(leaf(*tap) for tap in shape.taps))


def tensors(seen):
    return [seen.logits, seen.summary, *seen.taps]


def numbers(batch=BATCH):
    return torch.arange(batch) % CLASSES, torch.arange(batch) * 3 % PICTURES


def make(name, student="maps", teacher="tokens", settings=SETTINGS):
    torch.manual_seed(0)
    return make_method(name, settings, SHAPES[student], SHAPES[teacher], PICTURES)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("student", SHAPES)
@pytest.mark.parametrize("teacher", ["maps", "tokens"])
def test_scalars_that_reach_the_student_and_never_the_teacher(name, student, teacher):
    method = make(name, student, teacher)
    ours, theirs = output(SHAPES[student]), output(SHAPES[teacher], 1)
    terms = method(ours, theirs, *numbers())
    assert all(value.shape == () and value.dtype == torch.float32 and value.isfinite() for value in terms.values())
    if name == "none":
        assert not terms
        return
    sum(terms.values()).backward()
    assert any(tensor.grad is not None and tensor.grad.abs().sum() > 0 for tensor in tensors(ours))
    assert all(tensor.grad is None or tensor.grad.isfinite().all() for tensor in tensors(ours))
    assert all(tensor.grad is None for tensor in tensors(theirs))
    if not method.student_taps:
        assert all(tap.grad is None for tap in ours.taps)
    for own, weight in method.named_parameters():
        assert weight.grad is not None and weight.grad.isfinite().all(), own


@pytest.mark.parametrize("name", SPEAKING)
def test_float32_under_autocast(name):
    method = make(name)
    with torch.autocast("cpu", torch.bfloat16):
        terms = method(output(SHAPES["maps"]), output(SHAPES["tokens"], 1), *numbers())
    assert all(value.dtype == torch.float32 and value.isfinite() for value in terms.values())


@pytest.mark.parametrize("name", SPEAKING)
def test_a_batch_of_one_picture(name):
    method = make(name).eval()  # batch norm wants two pictures in training
    ours = output(SHAPES["maps"], batch=1)
    terms = method(ours, output(SHAPES["tokens"], 1, batch=1), *numbers(1))
    sum(terms.values()).backward()
    assert all(value.isfinite() for value in terms.values())
    assert all(tensor.grad is None or tensor.grad.isfinite().all() for tensor in tensors(ours))


@pytest.mark.parametrize("name", ["kd", "dkd", "dist", "rkd"])
def test_nothing_to_say_where_the_student_is_the_teacher(name):
    seen = output(SHAPES["maps"])
    terms = make(name, teacher="maps")(seen, seen, *numbers())
    assert sum(terms.values()).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("name", ["bkd", "ofa"])
def test_least_where_the_student_says_what_the_teacher_does(name):
    """ofa at exponent 1; bkd where the student's sigmoid is the teacher's softmax."""
    shape = SHAPES["maps"]
    teacher = output(shape, 1)
    probability = teacher.logits.detach().softmax(1)
    best = probability.log() if name == "ofa" else probability.logit()
    method, key = make(name, teacher="maps"), {"ofa": "kd", "bkd": "bkd"}[name]

    def loss_of(logits):
        return method(ClassifierOutput(logits, teacher.summary, teacher.taps), teacher, *numbers())[key]

    for draw in range(5):
        step = 0.1 * torch.randn(best.shape, generator=torch.Generator().manual_seed(draw))
        assert loss_of(best) < loss_of(best + step)


@pytest.mark.parametrize("name", SPEAKING)
def test_saved_and_resumed(name):
    """A method that is interrupted after a step goes on as if it had not been, its memory included."""
    ours, theirs = output(SHAPES["maps"]), output(SHAPES["tokens"], 1)
    first = make(name)
    first(ours, theirs, *numbers())
    torch.manual_seed(1)  # other initial weights
    second = make_method(name, SETTINGS, SHAPES["maps"], SHAPES["tokens"], PICTURES)
    second.load_state_dict(first.state_dict())
    terms = []
    for method in (first, second):
        torch.manual_seed(2)
        terms.append(method(ours, theirs, *numbers()))
    assert terms[0] == terms[1]
    assert all(torch.equal(first.state_dict()[key], value) for key, value in second.state_dict().items())


@pytest.mark.parametrize("name", SPEAKING)
def test_weight_is_a_factor(name):
    ours, theirs = output(SHAPES["maps"]), output(SHAPES["tokens"], 1)
    sums = []
    for weight in (1.0, 3.0):
        settings = MethodSettings(crd_negatives=64, crd_width=16, cc_width=16, weight=weight, ofa_stage_weight=weight)
        method = make(name, settings=settings)
        torch.manual_seed(3)
        sums.append(sum(method(ours, theirs, *numbers()).values()).item())
    assert sums[1] == pytest.approx(3 * sums[0], rel=1e-5)


@pytest.mark.parametrize(("classes", "weight"), [(100, 0.1), (10, 1.0)])
def test_first_epoch_of_the_authors_log(classes, weight):
    """ln K for kd, 4 c ln K for ofa before anything is learned: 4.63 and 1.86 in their run on 100 classes, c = 0.1.

    With heads at zero every model is clueless, whatever the teacher says.
    """
    shape = OutputShape(classes, 32, SHAPES["maps"].taps)
    method = make_method("ofa", MethodSettings(ofa_stage_weight=weight), shape, shape, PICTURES)
    for leave in method.exits:
        torch.nn.init.zeros_(leave[-1].weight)
    ours = output(shape)
    terms = method(ClassifierOutput(torch.zeros(BATCH, classes), ours.summary, ours.taps), output(shape, 1), *numbers())
    assert terms["kd"].item() == pytest.approx(math.log(classes), rel=1e-5)
    assert terms["ofa"].item() == pytest.approx(4 * weight * math.log(classes), rel=1e-5)


def test_it_says_whether_it_wants_taps():
    wants = {name: (method_class(name).student_taps, method_class(name).teacher_taps) for name in METHODS}
    assert wants.pop("ofa") == (True, False) and wants.pop("fitnet") == (True, True)
    assert set(wants.values()) == {(False, False)}


@pytest.mark.parametrize(
    ("word", "near"), [("fitnett", "fitnet"), ("KD", "kd"), ("xyz", None), ("dkdd", "dkd"), ("ofakd", "ofa")]
)
def test_unknown_method(word, near):
    with pytest.raises(ValueError, match=f"did you mean '{near}'" if near else "there are none, kd, bkd"):
        make(word)


@pytest.mark.parametrize("name", ["kd", "bkd", "dkd", "dist", "ofa"])
def test_logits_of_other_classes_are_refused_at_the_start(name):
    with pytest.raises(ValueError, match=r"10 classes, the teacher 3.*fitnet"):
        make_method(name, SETTINGS, SHAPES["maps"], OutputShape(3, 32), PICTURES)


@pytest.mark.parametrize("name", ["fitnet", "cc", "rkd", "crd"])
def test_features_may_be_told_whatever_the_classes(name):
    shape = OutputShape(3, 12, SHAPES["tokens"].taps, 1)
    method = make_method(name, SETTINGS, SHAPES["maps"], shape, PICTURES)
    terms = method(output(SHAPES["maps"]), output(shape, 1), *numbers())
    assert sum(terms.values()).isfinite()


@pytest.mark.parametrize(("name", "who"), [("ofa", "student"), ("fitnet", "student")])
def test_missing_taps_are_refused_at_the_start(name, who):
    with pytest.raises(ValueError, match=f"{name} needs four taps of the {who}, got 0"):
        make_method(name, SETTINGS, OutputShape(CLASSES, 8), SHAPES["tokens"], PICTURES)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"stages": (2, 1)}, "ascend"),
        ({"stages": (1, 5)}, "less than or equal to 4"),
        ({"ofa_exponents": (1.0, 1.2)}, "one value, or 5"),
        ({"temperature": 0}, "greater than 0"),
        ({"dkd_gamma": 1.0}, "dkd_gamma"),
    ],
)
def test_settings_that_make_no_sense(wrong, said):
    with pytest.raises(ValidationError, match=said):
        MethodSettings(**wrong)
