"""Linear monocular depth on frozen patches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from eyespot.data.labelled.base import DepthData
from eyespot.encoders.base import Encoder
from eyespot.evaluate.extraction import FeatureBank, eval_mode
from eyespot.evaluate.probing.background import prepared
from eyespot.evaluate.probing.cells import cell_means, labelled_cells
from eyespot.evaluate.probing.dense_views import DepthViews, depth_view
from eyespot.evaluate.probing.live_probe import LiveConfig, run_schedule, train_live, views_of_step
from eyespot.evaluate.probing.probe import LinearMap, linear_head, predictions, upsampled
from eyespot.evaluate.probing.ridge import fit_ridge
from eyespot.evaluate.probing.sliding import sliding_map


@dataclass(frozen=True)
class PublishedDepth(DepthViews, LiveConfig):
    """EUPE's linear depth (paper notes, C; `config-nyu.yaml` of the release).

    Attributes:
        mean_only: share of the steps, from the start, in which the loss is its mean term alone.
        epsilon: metres added to both depths before the logarithm.
        stride_share: pixels between the test's windows, as a share of them; only for encoders with a native size, so
            ours (that of segmentation).
    """

    steps: int = 38_400
    batch_size: int = 16
    learning_rate: float = 3e-4
    weight_decay: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.99)
    warmup: float = 12_800 / 38_400
    beta1_cycle: tuple[float, float] | None = (0.85, 0.95)
    clip: float | None = 35.0
    mean_only: float = 100 / 38_400
    epsilon: float = 1e-3
    stride_share: float = 2 / 3


PUBLISHED = PublishedDepth()
BINS = 256
MEAN_WEIGHT = 0.15


class BinnedDepth(nn.Module):
    """Depth as an expectation over linear bins.

    ReLU + 0.1, normalised to sum 1 over the bins, times the bins' depths (EUPE's and DINOv3's head; paper notes, C).

    Args:
        channels: width of the patches.
        low, high: depth in metres of the first and the last bin.
        bins: how many.
        seed: names the initial weights.
    """

    totals: Tensor

    def __init__(self, channels: int, low: float, high: float, bins: int = BINS, seed: int = 0) -> None:
        super().__init__()
        if not 0 < low < high:
            raise ValueError(f"depth bins need 0 < low < high, got {low} and {high}")
        self.scores = linear_head(channels, bins, seed)
        depths = torch.linspace(low, high, bins)
        # One product gives the weighted sum of the depths and the sum of the weights.
        self.register_buffer("totals", torch.stack([depths, torch.ones(bins)]))

    def forward(self, patches: Tensor) -> Tensor:
        """[b, D, h, w] patches to [b, 1, h, w] metres."""
        weights = self.scores(patches).relu() + 0.1
        depth, weight = (self.totals @ weights.flatten(2)).unflatten(2, weights.shape[2:]).split(1, dim=1)
        return depth / weight


def scale_invariant_log_loss(
    depth: Tensor, truth: Tensor, mean_weight: float = MEAN_WEIGHT, epsilon: float = 0.0, variance_weight: float = 1.0
) -> Tensor:
    """Root of (variance + `mean_weight` * squared mean) of the log ratio, over pixels with truth > 0.

    Args:
        depth: predictions in metres, positive.
        truth: metres, of the same shape; 0 = no measurement.
        mean_weight: 0.15 in EUPE's protocol; 1 would make it the plain RMS of the log ratio.
        epsilon: metres added to both before the logarithm.
        variance_weight: of the variance; 0 in the first steps of EUPE's protocol.

    Returns:
        A scalar; 0 if fewer than two pixels are measured.
    """
    valid = truth > 0
    if int(valid.sum()) < 2:
        return depth.sum() * 0
    ratio = (depth[valid] + epsilon).log() - (truth[valid] + epsilon).log()
    return (variance_weight * ratio.var() + mean_weight * ratio.mean() ** 2 + 1e-12).sqrt()


def depth_errors(depth: Tensor, truth: Tensor) -> dict[str, float] | None:
    """RMSE (metres), AbsRel and delta1 (share of ratios below 1.25) of one picture, where truth > 0.

    Returns:
        None if nothing in the picture is measured.
    """
    valid = truth > 0
    if not bool(valid.any()):
        return None
    predicted, true = depth[valid].double(), truth[valid].double()
    return {
        "RMSE": float((predicted - true).square().mean().sqrt()),
        "AbsRel": float(((predicted - true).abs() / true).mean()),
        "delta1": float((torch.maximum(predicted / true, true / predicted) < 1.25).double().mean()),
    }


def mean_errors(found: Iterable[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """`depth_errors` of predicted and true maps, averaged over the pictures that have a measured pixel.

    Raises:
        ValueError: none has.
    """
    results = [depth_errors(depth, truth) for depth, truth in found]
    measured = [errors for errors in results if errors is not None]
    if not measured:
        raise ValueError("no picture of the validation split has a measured depth")
    return {name: sum(errors[name] for errors in measured) / len(measured) for name in measured[0]}


def run(
    bank: FeatureBank,
    data: DepthData,
    seed: int = 0,
    *,
    schedule: str = "quick",
    steps: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    crop: tuple[int, int] | None = None,
    train_mode: bool = False,
    workers: int | None = None,
) -> dict[str, float]:
    """RMSE, AbsRel and delta1, each averaged over pictures, of a linear probe.

    `schedule="quick"` is ours: ridge regression from patches to metres, in closed form, with the penalty chosen on
    held-out training pictures (`probing.ridge`), upsampled bilinearly. It is the linear map of least squared error, so
    no learning rate favours one encoder over another; the published head and loss differ. Features are extracted once,
    without augmentation, from the whole picture, and not mirrored in the test.

    `schedule="published"` is EUPE's protocol, all of it, on live features: see `PublishedDepth` and `DepthViews`. The
    head: batch norm, 1x1 convolution to 256 linear bins, expectation; scale-invariant log loss with mean weight 0.15.
    Pictures are taken at their own size, so the evaluation's `size` plays no part; for the test they are padded
    centrally to a multiple of the encoder's stride, and the mean of the prediction and of that for the mirrored picture
    counts. True depths outside the open range of the bins are not measured. Deviations: colours are rounded to 8 bits;
    the padding is cut off the prediction (nothing changes where there is none, as for NYUv2 and strides of 16); one
    process, so plain batch norm; float32 throughout. An encoder with a native size gets views of that size, and windows
    of it slide over the test's pictures. That pixels outside NYUv2's Eigen crop do not count, and that views are
    cut within its borders, is a matter of the data (`DepthData`).

    Args:
        bank: the encoder.
        data: pictures and depth maps.
        seed: names the cells of large data; published: the initial weights, the batches and the views.
        schedule: quick or published.
        steps: published: optimiser steps; warm-ups shrink with them.
        batch_size: published: pictures per step.
        learning_rate: published: peak.
        crop: published: (height, width) of the views.
        train_mode: published: the backbone in train mode while the head is trained, as in EUPE's and DINOv3's code; see
            `segmentation.run`.
        workers: published: threads that prepare views.

    Raises:
        ValueError: no picture of the validation split has a measured pixel, an unknown schedule, or an option that the
            quick one does not have.
    """
    options = {
        "steps": steps,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "crop": crop,
        "train_mode": train_mode,
        "workers": workers,
    }
    found = run_schedule(schedule, (bank, data, seed), options, quick=_quick, published=(_published, PUBLISHED))
    return mean_errors(found)


def quick_head(patches: Tensor, data: DepthData, seed: int) -> LinearMap:
    """The quick probe, [b, D, h, w] patches to [b, 1, h, w] metres, fitted on the patches of the training pictures."""
    cells = labelled_cells(
        patches, data.train.labels, lambda depth, grid: cell_means(depth[None], depth > 0, grid), seed
    )
    return fit_ridge(cells, (data.low, data.high))


def _quick(bank: FeatureBank, data: DepthData, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Predicted and true depth [H, W] of each validation picture."""
    train, val = bank.features(data.train.pictures), bank.features(data.val.pictures)
    head = quick_head(train.patches, data, seed)
    for depth, truth in predictions(head, val.patches, data.val.labels):
        yield upsampled(depth, (truth.shape[0], truth.shape[1]))[0], truth


def _published(
    bank: FeatureBank, data: DepthData, seed: int, config: PublishedDepth
) -> Iterator[tuple[Tensor, Tensor]]:
    """Predicted and true depth [H, W] of each validation picture."""
    encoder = bank.encoder
    window = encoder.fitting_size(config.crop)
    head = BinnedDepth(encoder.patch_dim, data.low, data.high, seed=seed)

    def loss(depth: Tensor, truth: Tensor, step: int) -> Tensor:
        weight = float(step >= config.mean_only * config.steps)
        return scale_invariant_log_loss(depth[:, 0], truth, epsilon=config.epsilon, variance_weight=weight)

    fill = encoder.mean.flatten().cpu()

    def view(picture: Tensor, depth: Tensor, step: int, place: int) -> tuple[Tensor, Tensor]:
        return depth_view(picture, depth, config, window, data.train_box, fill, seed, step, place)

    train_live(
        encoder,
        head,
        lambda step: views_of_step(data.train, config.batch_size, seed, step, view),
        loss,
        config,
        seed,
        bank.progress,
    )
    with eval_mode(encoder):
        for picture, truth in prepared(
            lambda index: (data.val.pictures.original(index), data.val.labels[index]),
            len(data.val.labels),
            config.workers,
        ):
            depth = _mirrored_mean(encoder, head, picture.to(encoder.device).float() / 255, config.stride_share)
            inside = (truth > data.low) & (truth < data.high)
            yield upsampled(depth, (truth.shape[0], truth.shape[1]))[0].cpu(), truth * inside


def _mirrored_mean(encoder: Encoder, head: nn.Module, picture: Tensor, stride_share: float) -> Tensor:
    """Depth [1, H, W] of a picture [3, H, W]: the mean over it and its mirror image."""
    height, width = (-(-side // encoder.stride) * encoder.stride for side in picture.shape[1:])
    window = encoder.native_size or (height, width)
    stride = (max(1, round(window[0] * stride_share)), max(1, round(window[1] * stride_share)))
    found = [
        sliding_map(
            lambda windows: head(encoder(windows).patches.float()), view, window, stride, encoder.mean.flatten()
        )
        for view in (picture, picture.flip(2))
    ]
    return (found[0] + found[1].flip(2)) / 2
