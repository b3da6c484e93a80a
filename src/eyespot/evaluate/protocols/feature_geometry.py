"""Geometry of features, without labels: how many directions are used, outlying tokens, likeness to another model."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from eyespot.data.labelled.base import Pictures
from eyespot.encoders.base import Encoder
from eyespot.encoders.frozen import load_frozen
from eyespot.evaluate.extraction import FeatureBank
from eyespot.evaluate.finished import files_named, fingerprint
from eyespot.randomness import torch_generator

RANKME_EPSILON = 1e-7
ROUNDING = 1e-9  # relative; far below what float32 features can tell apart
OUTLIER_DEVIATIONS = 6.0
MAD_OF_NORMAL = 1.4826  # standard deviations per median absolute deviation
PAIRED = 4096  # summaries whose pairwise distances make the uniformity
CHUNK = 2**24  # numbers of patches that are looked at together (64 MiB)


def rankme(features: Tensor) -> float:
    """RankMe (Garrido et al. 2023, arXiv 2210.02885, eq. 1 and 2): entropy of the singular values, exponential.

    p_k = sigma_k / sum(sigma) + 1e-7, RankMe = exp(-sum p_k log p_k); features as they are, not centred.

    Args:
        features: [N, C]; the value cannot exceed min(N, C), so compare at one N, the larger the better (the paper:
            25,600 pictures).
    """
    singular = _gram_spectrum(features.double()).sqrt()
    return _exp_entropy(singular / singular.sum() + RANKME_EPSILON)


def effective_rank(features: Tensor) -> float:
    """Effective rank (Roy & Vetterli 2007) of the covariance matrix of features [N, C].

    exp(-sum p_k log p_k) with p_k the covariance's eigenvalues over their sum: how many principal components carry the
    variance. 0 for features without any.
    """
    variances = _gram_spectrum(_centred(features))
    total = variances.sum()
    return _exp_entropy(variances / total) if float(total) > 0 else 0.0


def _centred(features: Tensor) -> Tensor:
    """[N, C] float64 without its mean; exactly 0 where all that is left is rounding."""
    centred = features.double() - features.double().mean(dim=0)
    return centred if centred.abs().max() > ROUNDING * features.abs().max() else torch.zeros_like(centred)


def _gram_spectrum(features: Tensor) -> Tensor:
    """Squared singular values of [N, C] float64, min(N, C) of them, without a decomposition of the long side."""
    return torch.linalg.eigvalsh(_gram(features)).clamp(min=0)


def _gram(features: Tensor) -> Tensor:
    """The smaller of the two Gram matrices of [N, C]; both have the same norm and the same spectrum but for zeros."""
    return features.T @ features if features.shape[1] <= len(features) else features @ features.T


def _exp_entropy(shares: Tensor) -> float:
    return math.exp(float(torch.special.entr(shares).sum()))


def uniformity(features: Tensor) -> float:
    """How evenly the directions of features [N, C] cover the sphere (Wang & Isola 2020, arXiv 2005.10242, section 4).

    log of the mean over pairs of exp(-2 |x - y|^2), x and y of length 1: 0 if all are equal, falling to -4 for
    directions without correlation; lower is more even.
    """
    unit = F.normalize(features.double(), dim=1)
    return float(torch.pdist(unit).square().mul(-2).exp().mean().log())


def linear_cka(first: Tensor, second: Tensor) -> float:
    """Linear CKA (Kornblith et al. 2019, arXiv 1905.00414, section 3) of two models' features of the same N pictures.

    HSIC(X, Y) / sqrt(HSIC(X, X) HSIC(Y, Y)) with linear kernels, computed from the C1 x C2 cross-covariance. In
    [0, 1]; unchanged by rotations and by one factor on all channels. This is the paper's biased estimate, which is too
    high where N is not well above the widths. NaN if one model's features are the same for all pictures.

    Args:
        first: [N, C1].
        second: [N, C2].

    Raises:
        ValueError: different numbers of pictures.
    """
    if len(first) != len(second):
        raise ValueError(f"CKA compares features of the same pictures, got {len(first)} and {len(second)}")
    x, y = _centred(first), _centred(second)
    return float((x.T @ y).square().sum() / (_gram(x).norm() * _gram(y).norm()))


def token_norms(patches: Tensor) -> Tensor:
    """Lengths of all patch tokens of [N, D, h, w], as float32 [N * h * w]."""
    return torch.cat([part.float().norm(dim=1).flatten() for part in _parts(patches)])


def _parts(patches: Tensor) -> tuple[Tensor, ...]:
    return patches.split(max(1, CHUNK // patches[0].numel()))


def norm_outliers(norms: Tensor) -> tuple[float, float]:
    """Tokens whose length stands far above the others', which ViTs without registers grow (arXiv 2309.16588).

    The paper's cutoff is a number for one model. Ours fits any: a token is an outlier if its norm exceeds the median
    by more than the median itself and by more than 6 robust standard deviations (1.4826 times the median absolute
    deviation).

    Args:
        norms: lengths of tokens.

    Returns:
        The share of outliers in [0, 1], and the largest norm over the median (NaN if that is 0).
    """
    median = norms.median()
    deviation = MAD_OF_NORMAL * (norms - median).abs().median()
    bound = median + torch.maximum(median, OUTLIER_DEVIATIONS * deviation)
    return float((norms > bound).double().mean()), float(norms.max() / median) if median > 0 else math.nan


def draw_patches(patches: Tensor, count: int, seed: int) -> Tensor:
    """About `count` tokens [n, D] float32 of patches [N, D, h, w]: equally many of each picture, drawn by `seed`."""
    tokens = patches.shape[2] * patches.shape[3]
    each = min(tokens, math.ceil(count / len(patches)))
    generator = torch_generator(seed, "patches of the geometry")
    drawn = []
    for part in _parts(patches):
        places = torch.rand(len(part), tokens, generator=generator).argsort(dim=1)[:, :each]
        index = places[:, None].expand(-1, part.shape[1], -1)
        drawn.append(part.flatten(2).gather(2, index).float().transpose(1, 2).flatten(0, 1))
    return torch.cat(drawn)


def run(
    bank: FeatureBank, data: Pictures, seed: int = 0, samples: int = 20_000, reference: str | Encoder | None = None
) -> dict[str, float | None]:
    """RankMe, effective ranks, token-norm outliers, uniformity, and CKA with a reference. No labels, nothing trained.

    None of this is in EUPE's protocol. Summaries and patches are taken as the other tasks get them, under the final
    norm. Memory beyond the features is that of `samples` patches and of matrices of the feature widths.

    Args:
        bank: the encoder.
        data: pictures.
        seed: names the patches, and the summaries of the uniformity where there are more than 4,096.
        samples: about so many patches go into their effective rank.
        reference: another encoder, or the spec of one; it sees the same pictures at `bank.size` or its native size.

    Returns:
        RankMe (summaries), effective rank (summaries), patch rank (the effective rank of patches), outliers (share of
        patch tokens), max/median norm, uniformity (summaries), and CKA (summaries; None without a reference).
    """
    features = bank.features(data)
    summaries, patches = features.summary, features.patches
    share, ratio = norm_outliers(token_norms(patches))
    few = torch.randperm(len(summaries), generator=torch_generator(seed, "pairs of the geometry"))[:PAIRED]
    other = None
    if reference is not None:
        same = (fingerprint(data), *files_named(reference if isinstance(reference, str) else None))
        other = _summaries_of(reference, data, bank.size, bank.batch_size, bank.folder, same)  # type: ignore[arg-type]
    return {
        "RankMe": rankme(summaries),
        "effective rank": effective_rank(summaries),
        "patch rank": effective_rank(draw_patches(patches, samples, seed)),
        "outliers": share,
        "max/median norm": ratio,
        "uniformity": uniformity(summaries[few]),
        "CKA": None if other is None else linear_cka(summaries, other),
    }


@lru_cache(maxsize=1)  # the rows of a table share one reference
def _summaries_of(
    reference: str | Encoder,
    data: Pictures,
    size: int | tuple[int, int] | None,
    batch_size: int,
    folder: Path | None,
    _: tuple[Any, ...],
) -> Tensor:
    """The last argument says what is in the files of pictures and reference: as long as that is the same, they are."""
    encoder = load_frozen(reference) if isinstance(reference, str) else reference
    return FeatureBank(encoder, size, batch_size, folder=folder).summaries(data)
