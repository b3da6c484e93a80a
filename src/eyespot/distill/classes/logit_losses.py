"""What a classifier is told through logits: hard labels, and what a teacher's logits say.

Everything here computes in float32, whatever the autocast. Reductions are part of each definition: a sum over classes
and a mean over classes differ a thousandfold on ImageNet, and with them the balance of two terms.

Symbols: z student logits [B, K], t teacher logits [B, K], p = softmax, c the hard class of a picture, T a temperature.
Gradients flow into whatever argument requires them; `methods` keeps them from a teacher.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

import torch
import torch.nn.functional as F
from torch import Tensor

from eyespot.distill.classes.config import OfaForm

Arguments = ParamSpec("Arguments")

LEAST_SPREAD = 1e-8
"""Added to the denominator of a correlation; seen in the sixth digit in a batch of two."""


def in_float32(loss: Callable[Arguments, Tensor]) -> Callable[Arguments, Tensor]:
    """Makes a loss compute in float32: floating-point tensors are cast, autocast is off inside."""

    @wraps(loss)
    def exact(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Tensor:
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        with torch.autocast(tensors[0].device.type, enabled=False):
            return loss(*map(_float32, args), **{name: _float32(value) for name, value in kwargs.items()})

    return exact


def _float32(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value


@in_float32
def cross_entropy(logits: Tensor, target: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy with hard or soft labels: -mean_b sum_k y_k log p_k. Sum over classes, mean over the batch.

    Args:
        logits: [B, K].
        target: int64 [B], or label distributions [B, K] (mixup, cutmix).
        smoothing: share of a hard label that is spread evenly over all K classes, its own included. 0 to 1.

    Raises:
        ValueError: smoothing of labels that are soft already: mixing smooths them (VanillaKD and timm do it there).
    """
    return F.cross_entropy(logits, smooth_labels(target, logits.shape[1], smoothing))


@in_float32
def binary_cross_entropy(logits: Tensor, target: Tensor, smoothing: float = 0.0) -> Tensor:
    """Sigmoid cross-entropy, every class a yes or no. Mean over the batch AND classes (timm; VanillaKD's label term).

    At z = 0 its gradient (1/2 - y)/(BK) is about K times smaller than cross-entropy's (1/K - y)/B, so that beside `kd`
    the label is nearly silent; that is the published recipe.

    Args:
        logits: [B, K].
        target: int64 [B], or soft labels [B, K].
        smoothing: as in `cross_entropy`.

    Raises:
        ValueError: as in `cross_entropy`.
    """
    return F.binary_cross_entropy_with_logits(logits, smooth_labels(target, logits.shape[1], smoothing))


def smooth_labels(target: Tensor, classes: int, smoothing: float = 0.0) -> Tensor:
    """Label distributions float32 [B, K]: a hard label becomes (1 - smoothing) one-hot + smoothing / K.

    Raises:
        ValueError: smoothing of labels that are soft already.
    """
    if target.is_floating_point():
        if smoothing:
            raise ValueError(
                "these labels are soft already: smooth them where they are mixed, and pass smoothing=0 here"
            )
        return target.float()
    return F.one_hot(target, classes).float() * (1 - smoothing) + smoothing / classes


@in_float32
def soft_cross_entropy(logits: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """-mean_b sum_k softmax(t/T)_k log softmax(z/T)_k: `kd` plus the teacher's entropy, without the factor T^2."""
    return F.cross_entropy(logits / temperature, softmax(teacher, temperature))


@in_float32
def kd(logits: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """T^2 KL(softmax(t/T) || softmax(z/T)): sum over classes, mean over the batch (Hinton et al.; VanillaKD section 2).

    Both papers here use T = 1. The factor T^2 keeps the size of the gradient when T grows.
    """
    return temperature**2 * divergence(F.log_softmax(logits / temperature, 1), F.log_softmax(teacher / temperature, 1))


@in_float32
def bkd(logits: Tensor, teacher: Tensor) -> Tensor:
    """Sigmoid cross-entropy of every class against softmax(t). Mean over the batch AND the classes (VanillaKD's code).

    The paper writes a binary KL divergence instead, which subtracts a constant, the teacher's entropy; gradients agree.
    """
    return F.binary_cross_entropy_with_logits(logits, teacher.softmax(1))


@in_float32
def dkd(
    logits: Tensor, teacher: Tensor, target: Tensor, alpha: float = 1.0, beta: float = 2.0, temperature: float = 1.0
) -> Tensor:
    """Decoupled distillation: alpha * target part + beta * rest, each times T^2 (Zhao et al., CVPR 2022).

    The target part is the KL divergence of "class c or not"; the rest that of the distribution over the other classes
    alone. With alpha = 1 and beta = 1 - p^t_c per picture the sum would be `kd`.

    Args:
        logits: [B, K], K at least 2.
        teacher: [B, K].
        target: int64 [B], the hard class c; for a mixed label its largest entry (VanillaKD).
        alpha: weight of the target part.
        beta: weight of the rest.
        temperature: T.
    """
    ours, theirs = (F.log_softmax(values / temperature, 1) for values in (logits, teacher))
    ours_rest, theirs_rest = _others(ours, target), _others(theirs, target)
    target_part = divergence(_target_or_not(ours, ours_rest, target), _target_or_not(theirs, theirs_rest, target))
    ours_rest, silent = ours_rest.log_softmax(1), theirs_rest.isneginf().all(1, keepdim=True)
    # A teacher that gives all other classes a probability of exactly 0 says nothing about them: agreed with.
    rest = divergence(ours_rest, torch.where(silent, ours_rest.detach(), theirs_rest.log_softmax(1)))
    return temperature**2 * (alpha * target_part + beta * rest)


@in_float32
def dist(logits: Tensor, teacher: Tensor, beta: float = 1.0, gamma: float = 1.0, tau: float = 1.0) -> Tensor:
    """Correlation instead of equality: tau^2 (beta * between classes + gamma * within classes) (Huang et al., 2022).

    Both are 1 - Pearson's correlation of softmax(z/tau) and softmax(t/tau), 0 to 2: along the classes of each picture,
    and along the pictures of the batch for each class; each averaged over what is left. What does not vary (a batch of
    one picture) correlates with nothing and counts 1.
    """
    ours, theirs = softmax(logits, tau), softmax(teacher, tau)
    between, within = (1 - _correlation(ours, theirs, along) for along in (1, 0))
    return tau**2 * (beta * between.mean() + gamma * within.mean())


@in_float32
def ofa(
    logits: Tensor,
    teacher: Tensor,
    target: Tensor,
    exponent: float = 1.0,
    temperature: float = 1.0,
    form: OfaForm = "code",
) -> Tensor:
    """OFA-KD's loss: soft cross-entropy in which the true class weighs more, the surer the teacher is of it.

    - "code", the released code: -mean_b sum_k w_k log p^s_k, w = (p^t + m)^e - m, m the one-hot hard class. The
      exponent acts on all classes. At e = 1 it is `soft_cross_entropy`; the label is left to the hard-label loss.
    - "paper", section 3: the weights are (1 + p^t_c)^e for the true class and p^t_k for the others. So the label is in
      every such term, also in those of the exits. At e = 1 this is cross-entropy plus the "code" form at e = 1.

    No factor T^2 in either. We use log_softmax where the code takes the logarithm of a softmax.

    Args:
        logits: [B, K], of the student or of one of its exits.
        teacher: [B, K].
        target: int64 [B], the hard class c.
        exponent: e in the code (its "eps"), gamma in the paper; 1 or more.
        temperature: T of both softmaxes.
        form: which of the two.
    """
    probability = softmax(teacher, temperature)
    hard = F.one_hot(target, logits.shape[1]).to(probability.dtype)
    if form == "code":
        weights = (probability + hard) ** exponent - hard
    else:
        weights = torch.where(hard.bool(), (1 + probability) ** exponent, probability)
    return -(weights * F.log_softmax(logits / temperature, 1)).sum(1).mean()


def softmax(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Probabilities [B, K] at a temperature."""
    return (logits / temperature).softmax(1)


def divergence(ours: Tensor, theirs: Tensor) -> Tensor:
    """KL(theirs || ours) of log-probabilities [B, K]: sum over classes, mean over the batch. 0 log 0 is 0."""
    possible = theirs.clamp(min=torch.finfo(theirs.dtype).min)  # log 0, which times 0 would be NaN
    return F.kl_div(ours, possible, reduction="batchmean", log_target=True)


def _others(values: Tensor, target: Tensor) -> Tensor:
    """[B, K - 1]: all columns but the target's; without a mask, which would make the host wait for the device."""
    columns = torch.arange(values.shape[1] - 1, device=values.device)
    return values.gather(1, columns + (columns >= target[:, None]))


def _target_or_not(log_probability: Tensor, rest: Tensor, target: Tensor) -> Tensor:
    """[B, 2]: log-probability of the target class, and of all others together."""
    return torch.cat([log_probability.gather(1, target[:, None]), rest.logsumexp(1, keepdim=True)], 1)


def _correlation(ours: Tensor, theirs: Tensor, along: int) -> Tensor:
    """Pearson's correlation along a dimension, with `LEAST_SPREAD` as in DIST's code."""
    ours, theirs = (values - values.mean(along, keepdim=True) for values in (ours, theirs))
    return (ours * theirs).sum(along) / (ours.norm(dim=along) * theirs.norm(dim=along) + LEAST_SPREAD)
