"""Linear surface normals on frozen patches."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from eyespot.data.labelled.base import NormalsData
from eyespot.evaluate.extraction import FeatureBank
from eyespot.evaluate.probing.cells import cell_means, labelled_cells
from eyespot.evaluate.probing.probe import LinearMap, predictions, upsampled
from eyespot.evaluate.probing.ridge import fit_ridge

WITHIN = (11.25, 22.5, 30.0)
BINS_PER_DEGREE = 100


class AngularErrors:
    """Angles between predicted and true normals, pooled over the measured pixels of all pictures.

    The median is read from a histogram of steps of 0.01 degrees, so that memory does not grow with the pictures.
    """

    def __init__(self) -> None:
        self.total = 0.0
        self.count = 0
        self.within = torch.zeros(len(WITHIN), dtype=torch.int64)
        self.histogram = torch.zeros(180 * BINS_PER_DEGREE, dtype=torch.int64)

    def update(self, predicted: Tensor, truth: Tensor) -> None:
        """Counts two maps [3, H, W]: vectors of any length, and true unit normals, 0 0 0 where nothing is measured."""
        measured = (truth != 0).any(dim=0)
        angles = angles_between(predicted[:, measured].double(), truth[:, measured].double())
        self.total += float(angles.sum())
        self.count += len(angles)
        self.within += torch.stack([(angles < limit).sum() for limit in WITHIN])
        bins = (angles * BINS_PER_DEGREE).long().clamp(max=len(self.histogram) - 1)
        self.histogram += torch.bincount(bins, minlength=len(self.histogram))

    def compute(self) -> dict[str, float]:
        """Mean and median in degrees, and the shares of angles below 11.25, 22.5 and 30 degrees.

        Raises:
            ValueError: nothing was measured.
        """
        if self.count == 0:
            raise ValueError("no picture of the validation split has a measured normal")
        middle = int(torch.searchsorted(2 * self.histogram.cumsum(0), self.count))
        shares = {f"within {limit:g}": int(hits) / self.count for limit, hits in zip(WITHIN, self.within, strict=True)}
        return {"mean": self.total / self.count, "median": (middle + 0.5) / BINS_PER_DEGREE, **shares}


def angles_between(one: Tensor, other: Tensor) -> Tensor:
    """Angles [...] in degrees, 0 to 180, between vectors [3, ...] of any length; 90 where one of them is 0."""
    one, other = F.normalize(one, dim=0), F.normalize(other, dim=0)
    # Exact also for tiny angles, where the arc cosine is not.
    return torch.rad2deg(2 * torch.atan2((one - other).norm(dim=0), (one + other).norm(dim=0)))


def quick_head(patches: Tensor, data: NormalsData, seed: int) -> LinearMap:
    """The probe, [b, D, h, w] patches to vectors [b, 3, h, w], fitted on the patches of the training pictures."""
    cells = labelled_cells(
        patches, data.train.labels, lambda normals, grid: cell_means(normals, (normals != 0).any(dim=0), grid), seed
    )
    return fit_ridge(cells)


def run(bank: FeatureBank, data: NormalsData, seed: int = 0) -> dict[str, float]:
    """Angular errors of a linear probe: ridge regression from patches to unit vectors.

    Ours, in the form of the quick depth probe (EUPE has none): the vectors are upsampled bilinearly and taken for their
    direction; mean, median and the shares within 11.25, 22.5 and 30 degrees are those usual since Fouhey et al. (2013),
    pooled over pixels.

    Args:
        bank: the encoder.
        data: pictures and maps of normals.
        seed: names the cells of large data.

    Raises:
        ValueError: no picture of the validation split has a measured normal.
    """
    train, val = bank.features(data.train.pictures), bank.features(data.val.pictures)
    head = quick_head(train.patches, data, seed)
    errors = AngularErrors()
    for normals, truth in predictions(head, val.patches, data.val.labels):
        errors.update(upsampled(normals, (truth.shape[1], truth.shape[2])), truth)
    return errors.compute()
