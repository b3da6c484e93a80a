"""The numbers are those of `ofakd.md` and `vanillakd.md`, section (h), measured on the authors' code."""

import math

import pytest
import torch
import torch.nn.functional as F

from eyespot.distill.classes.logit_losses import (
    binary_cross_entropy,
    bkd,
    cross_entropy,
    dist,
    dkd,
    kd,
    ofa,
    smooth_labels,
    soft_cross_entropy,
)

STUDENT = torch.tensor([[2.0, 1.0, 0.0, -1.0], [0.5, -0.5, 1.5, 0.0]])
TEACHER = torch.tensor([[1.0, 3.0, 0.0, 0.0], [0.2, 0.1, 2.5, -1.0]])
TARGET = torch.tensor([1, 2])


def check(value, wanted):
    assert value.item() == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize(
    ("exponent", "at_1", "at_4"),
    [
        (1.0, 1.132661, 1.363986),
        (1.1, 1.162067, 1.289499),
        (1.4, 1.395223, 1.183989),
        (1.5, 1.509500, 1.180000),
        (2.0, 2.288891, 1.320854),
    ],
)
def test_ofa_as_in_the_code(exponent, at_1, at_4):
    check(ofa(STUDENT, TEACHER, TARGET, exponent), at_1)
    check(ofa(STUDENT, TEACHER, TARGET, exponent, temperature=4.0), at_4)


@pytest.mark.parametrize(("exponent", "wanted"), [(1.0, 2.125759), (1.4, 2.608998), (2.0, 3.587693)])
def test_ofa_as_in_the_paper(exponent, wanted):
    check(ofa(STUDENT, TEACHER, TARGET, exponent, form="paper"), wanted)


@pytest.mark.parametrize(
    ("loss", "wanted"),
    [
        (lambda: cross_entropy(STUDENT, TARGET), 0.993098),
        (lambda: binary_cross_entropy(STUDENT, TARGET), 0.723664),
        (lambda: soft_cross_entropy(STUDENT, TEACHER), 1.132661),
        (lambda: kd(STUDENT, TEACHER), 0.469880),
        (lambda: kd(STUDENT, TEACHER, 4.0), 0.517931),  # in float64 0.5179314; the paper file's 0.517930 is float32's
        (lambda: dkd(STUDENT, TEACHER, TARGET), 0.847848),
        (lambda: dist(STUDENT, TEACHER), 0.986531),
        (lambda: bkd(STUDENT, TEACHER), 0.758555),
    ],
    ids=["ce", "bce", "soft ce", "kd", "kd at 4", "dkd", "dist", "bkd"],
)
def test_published_value(loss, wanted):
    check(loss(), wanted)


def many(classes=7, batch=5):
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(2, batch, classes, generator=generator) * 3
    return draws[0], draws[1], torch.randint(classes, (batch,), generator=generator)


def test_paper_form_is_label_plus_code_form_where_the_exponent_is_one():
    student, teacher, target = many()
    both = cross_entropy(student, target) + ofa(student, teacher, target)
    torch.testing.assert_close(ofa(student, teacher, target, form="paper"), both)
    torch.testing.assert_close(ofa(student, teacher, target), soft_cross_entropy(student, teacher))


@pytest.mark.parametrize(("exponent", "weight"), [(1.0, 2.0), (2.0, 4.0), (3.0, 8.0)])
def test_weight_of_the_true_class_for_a_sure_teacher(exponent, weight):
    """The paper's figure: (1 + p)^gamma is 2, 4 and 8 at p = 1."""
    teacher = torch.tensor([[200.0, 0.0, 0.0]])
    loss = ofa(torch.zeros(1, 3), teacher, torch.tensor([0]), exponent, form="paper")
    check(loss, weight * math.log(3))


def test_soft_cross_entropy_is_kd_plus_the_teachers_entropy():
    student, teacher, _ = many()
    p = teacher.softmax(1)
    entropy = -(p * p.log()).sum(1).mean()
    torch.testing.assert_close(soft_cross_entropy(student, teacher), kd(student, teacher) + entropy)


def test_dkd_is_kd_when_the_rest_weighs_what_the_teacher_gives_it():
    student, teacher, target = many(batch=1)
    rest = 1 - teacher.softmax(1)[0, target[0]].item()
    torch.testing.assert_close(dkd(student, teacher, target, alpha=1.0, beta=rest), kd(student, teacher))
    torch.testing.assert_close(
        dkd(student, teacher, target, alpha=1.0, beta=0.0, temperature=2.0) / 4,
        dkd(student / 2, teacher / 2, target, alpha=1.0, beta=0.0),
    )


def test_dist_forgets_scale_and_shift_of_probabilities():
    """1 - Pearson is 0 for what is the same up to scale, 2 for opposites, 1 within a batch of one picture."""
    student, teacher, _ = many()
    assert dist(teacher, teacher).item() == pytest.approx(0, abs=1e-5)
    check(dist(student[:1], teacher[:1], beta=0.0), 1.0)
    check(dist(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), gamma=0.0), 2.0)


def test_bkd_is_cross_entropy_of_every_class_against_the_softmax():
    student, teacher, _ = many()
    p, q = teacher.softmax(1), student.sigmoid()
    torch.testing.assert_close(bkd(student, teacher), -(p * q.log() + (1 - p) * (1 - q).log()).mean())


@pytest.mark.parametrize(("batch", "classes"), [(3, 10), (2, 1000)])
def test_gradients_of_both_label_losses_at_zero(batch, classes):
    """CE: (1/K - y)/B; BCE: (1/2 - y)/(BK). The ratio of their norms follows."""
    target = torch.arange(batch)
    hard = F.one_hot(target, classes).float()
    norms = []
    for loss, wanted in (
        (cross_entropy, (1 / classes - hard) / batch),
        (binary_cross_entropy, (0.5 - hard) / (batch * classes)),
    ):
        logits = torch.zeros(batch, classes, requires_grad=True)
        loss(logits, target).backward()
        torch.testing.assert_close(logits.grad, wanted)
        norms.append(logits.grad.norm().item())
    assert norms[0] / norms[1] == pytest.approx(2 * math.sqrt(classes - 1), rel=1e-5)


@pytest.mark.parametrize("loss", [cross_entropy, binary_cross_entropy])
def test_soft_labels_and_smoothing(loss):
    student, _, target = many(classes=7)
    hard = F.one_hot(target, 7).float()
    torch.testing.assert_close(loss(student, hard), loss(student, target))
    torch.testing.assert_close(loss(student, target, 0.1), loss(student, 0.9 * hard + 0.1 / 7))
    with pytest.raises(ValueError, match="soft already"):
        loss(student, hard, 0.1)


def test_smoothing_is_that_of_pytorch():
    student, _, target = many()
    torch.testing.assert_close(
        cross_entropy(student, target, 0.1), F.cross_entropy(student, target, label_smoothing=0.1)
    )
    torch.testing.assert_close(smooth_labels(target, 7, 0.1).sum(1), torch.ones(5))


LOSSES = {
    "ce": lambda z, t, y: cross_entropy(z, y),
    "bce": lambda z, t, y: binary_cross_entropy(z, y),
    "soft ce": lambda z, t, y: soft_cross_entropy(z, t),
    "kd": lambda z, t, y: kd(z, t, 2.0),
    "bkd": lambda z, t, y: bkd(z, t),
    "dkd": lambda z, t, y: dkd(z, t, y),
    "dist": lambda z, t, y: dist(z, t),
    "ofa": lambda z, t, y: ofa(z, t, y, 1.4),
    "ofa paper": lambda z, t, y: ofa(z, t, y, 1.4, form="paper"),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_float32_whatever_comes_in_and_around(name, dtype):
    student, teacher, target = many()
    student, teacher = student.to(dtype), teacher.to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        given = LOSSES[name](student, teacher, target)
    assert given.dtype == torch.float32
    torch.testing.assert_close(given, LOSSES[name](student.float(), teacher.float(), target), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("scale", [0.0, 1.0, 500.0])
def test_finite_for_sure_and_for_clueless_models(name, scale):
    student, teacher, target = many()
    logits = (scale * student).requires_grad_()
    loss = LOSSES[name](logits, scale * teacher, target)
    loss.backward()
    assert loss.isfinite() and logits.grad.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_probabilities_of_exactly_zero(name):
    """Log-probabilities of float16 graphs underflow to -inf; 0 log 0 is 0, so the loss is that of the logits."""
    student, _, target = many()
    sure = torch.full_like(student, -30.0).scatter(1, target[:, None] + 1 - 2 * (target[:, None] > 0), 20.0)
    sure = sure.scatter(1, target[:, None], 21.0)  # the target and one other class are possible
    log_probability = sure.half().softmax(1).log()
    assert log_probability.isneginf().any()
    losses = []
    for teacher in (sure, log_probability):
        logits = student.clone().requires_grad_()
        losses.append(LOSSES[name](logits, teacher, target))
        losses[-1].backward()
        assert logits.grad.isfinite().all()
    torch.testing.assert_close(*losses, rtol=2e-3, atol=1e-4)


def test_dkd_agrees_where_the_teacher_says_nothing_about_the_others():
    student, _, target = many()
    certain = torch.full_like(student, -torch.inf).scatter(1, target[:, None], 0.0)
    logits = student.clone().requires_grad_()
    loss = dkd(logits, certain, target, alpha=1.0, beta=5.0)
    loss.backward()
    assert logits.grad.isfinite().all()
    torch.testing.assert_close(loss, F.cross_entropy(student, target))  # KL of (1, 0) against (p, 1 - p) is -log p
