"""Linear semantic segmentation on frozen patches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyespot.data.labelled.base import SegmentationData
from eyespot.data.views.resizing import resized_image
from eyespot.encoders.base import Encoder
from eyespot.evaluate.extraction import FeatureBank, eval_mode
from eyespot.evaluate.probing.background import prepared
from eyespot.evaluate.probing.cells import class_shares, labelled_cells
from eyespot.evaluate.probing.dense_views import SegmentationViews, segmentation_view, short_side_size
from eyespot.evaluate.probing.live_probe import LiveConfig, run_schedule, train_live, views_of_step
from eyespot.evaluate.probing.logistic import fit_classes
from eyespot.evaluate.probing.probe import LinearMap, class_map, linear_head, predictions
from eyespot.evaluate.probing.sliding import sliding_map
from eyespot.evaluate.protocols.counting import confusion


@dataclass(frozen=True)
class PublishedSegmentation(SegmentationViews, LiveConfig):
    """EUPE's linear segmentation (paper notes, C; `config-ade20k-linear-training.yaml` of the release).

    Attributes:
        dropout: share of the channels that are dropped as a whole while the head is trained.
        stride: pixels between the test's windows of `crop` pixels.
    """

    steps: int = 40_000
    batch_size: int = 16
    learning_rate: float = 1e-3
    weight_decay: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    warmup: float = 1500 / 40_000
    train_mode_share: float = 5000 / 40_000  # until the first validation
    dropout: float = 0.1
    stride: int = 341


PUBLISHED = PublishedSegmentation()


class MeanIoU:
    """Intersection over union, averaged over the classes that occur in the labels or in the predictions.

    Pixels are pooled over all pictures, as is usual for mIoU; pixels labelled `ignore` count for nothing.
    """

    def __init__(self, classes: int, ignore: int) -> None:
        self.ignore = ignore
        self.counts = torch.zeros(classes, classes, dtype=torch.int64)

    def update(self, predicted: Tensor, truth: Tensor) -> None:
        """Counts two integer maps of one shape."""
        known = truth != self.ignore
        self.counts += confusion(predicted.cpu()[known], truth[known], len(self.counts))

    def compute(self) -> float:
        """Mean IoU in [0, 1]; NaN if every pixel was ignored."""
        counts = self.counts.double()
        both = counts.diagonal()
        either = counts.sum(dim=0) + counts.sum(dim=1) - both
        return float((both[either > 0] / either[either > 0]).mean())


def refuse_single_class(metric: MeanIoU) -> None:
    """Refuses a score for which any answer is right that names the only class there is.

    Raises:
        ValueError: fewer than two classes in the labels.
    """
    classes = int((metric.counts.sum(dim=1) > 0).sum())
    if classes < 2:
        raise ValueError(
            f"the validation masks show {('no class', 'a single class')[classes]} beside pixels labelled "
            f"{metric.ignore}, which count for nothing, so there is nothing to measure; of masks that hold 0 and 255, "
            "say that both are classes: mask_folder:FOLDER?numbers=0,255"
        )


def pixel_cross_entropy(logits: Tensor, truth: Tensor, ignore: int) -> Tensor:
    """Mean cross-entropy of logits [b, K, ...] at the labelled ones of pixels [b, ...]; 0 if none is labelled."""
    truth = truth.long()
    total = F.cross_entropy(logits, truth, ignore_index=ignore, reduction="sum")
    return total / (truth != ignore).sum().clamp(min=1)


def run(
    bank: FeatureBank,
    data: SegmentationData,
    seed: int = 0,
    *,
    schedule: str = "quick",
    steps: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    short_side: int | None = None,
    crop: int | None = None,
    stride: int | None = None,
    train_mode: bool = False,
    workers: int | None = None,
) -> dict[str, float]:
    """The mIoU of a linear probe: 1x1 convolution on patches, cross-entropy, bilinear upsampling.

    `schedule="quick"` is ours: multinomial logistic regression from patches to classes, fitted to the end by L-BFGS,
    with the penalty chosen on held-out training pictures (`probing.logistic`), so no learning rate favours one encoder
    over another. Features are extracted once: no random scaling, cropping, flipping or photometric distortion, no
    dropout, and the whole picture at one size instead of a sliding window.

    `schedule="published"` is EUPE's protocol, all of it, on live features: see `PublishedSegmentation` and
    `SegmentationViews`; batch norm before the convolution. Pictures are taken at their own size, so the evaluation's
    `size` plays no part. Deviations: the last head counts, not the best of eight that are validated on the way; within
    the warm-up the rate follows the cosine of the rest, at most 3.5 % above the official one; colours of padding are
    rounded to 8 bits; one process, so plain batch norm stands for the synchronised one. Windows are rounded to a
    multiple of the stride of the encoder; one with a native size gets windows of that size, at a step that is the same
    share of them, from the same pictures.

    Args:
        bank: the encoder.
        data: pictures and masks.
        seed: names the cells of large data; published: the initial weights, the batches and the views.
        schedule: quick or published.
        steps: published: optimiser steps; warm-ups shrink with them.
        batch_size: published: pictures per step.
        learning_rate: published: peak.
        short_side: published: pixels of the shorter side, before random scaling and for the test.
        crop: published: side of the views and of the test's windows.
        stride: published: pixels between windows of `crop`.
        train_mode: published: the backbone in train mode for the first eighth of the steps, as in EUPE's and DINOv3's
            code, where it ends with the first validation; see `live_probe.train_live`. timm's DINOv3 and EUPE models
            have the random rescaling of positions that this keeps active, but only if built with
            `rope_rescale_coords=2`; a warning says if nothing is random.
        workers: published: threads that prepare views.

    Raises:
        ValueError: an unknown schedule, an option that the quick one does not have, or validation masks of fewer than
            two classes.
    """
    options = {
        "steps": steps,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "short_side": short_side,
        "crop": crop,
        "stride": stride,
        "train_mode": train_mode,
        "workers": workers,
    }
    metric = MeanIoU(data.classes, data.ignore)
    found = run_schedule(schedule, (bank, data, seed), options, quick=_quick, published=(_published, PUBLISHED))
    for predicted, truth in found:
        metric.update(predicted, truth)
    refuse_single_class(metric)
    return {"mIoU": metric.compute()}


def quick_head(patches: Tensor, data: SegmentationData, seed: int) -> LinearMap:
    """The quick probe, [b, D, h, w] patches to [b, K, h, w] logits, fitted on the patches of the training pictures."""
    cells = labelled_cells(
        patches, data.train.labels, lambda mask, grid: class_shares(mask, data.classes, data.ignore, grid), seed
    )
    return fit_classes(cells)


def _quick(bank: FeatureBank, data: SegmentationData, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Predicted and true classes of each validation picture."""
    train, val = bank.features(data.train.pictures), bank.features(data.val.pictures)
    head = quick_head(train.patches, data, seed)
    for logits, truth in predictions(head, val.patches, data.val.labels):
        yield class_map(logits, (truth.shape[0], truth.shape[1])), truth


def _published(
    bank: FeatureBank, data: SegmentationData, seed: int, config: PublishedSegmentation
) -> Iterator[tuple[Tensor, Tensor]]:
    """Predicted and true classes of each validation picture."""
    encoder = bank.encoder
    window = encoder.fitting_size(config.crop)
    config = replace(config, short_side=max(config.short_side, *window))
    head = nn.Sequential(nn.Dropout2d(config.dropout), *linear_head(encoder.patch_dim, data.classes, seed))
    fill = encoder.mean.flatten().cpu()

    def view(picture: Tensor, mask: Tensor, step: int, place: int) -> tuple[Tensor, Tensor]:
        return segmentation_view(picture, mask, config, window, data.ignore, fill, seed, step, place)

    train_live(
        encoder,
        head,
        lambda step: views_of_step(data.train, config.batch_size, seed, step, view),
        lambda logits, truth, _: pixel_cross_entropy(logits, truth, data.ignore),
        config,
        seed,
        bank.progress,
    )
    with eval_mode(encoder):
        yield from _tested(encoder, head, data, config, window)


def _tested(
    encoder: Encoder, head: nn.Module, data: SegmentationData, config: PublishedSegmentation, window: tuple[int, int]
) -> Iterator[tuple[Tensor, Tensor]]:
    stride = (window[0] * config.stride // config.crop, window[1] * config.stride // config.crop)
    pictures, labels = data.val.pictures, data.val.labels

    def picture(index: int) -> tuple[Tensor, Tensor]:
        whole = pictures.original(index)
        size = short_side_size((whole.shape[1], whole.shape[2]), config.short_side)
        return resized_image(whole, size), labels[index]

    for whole, truth in prepared(picture, len(pictures), config.workers):
        scores = sliding_map(
            lambda windows: head(encoder(windows).patches.float()),
            whole.to(encoder.device).float() / 255,
            window,
            stride,
            encoder.mean.flatten(),
        )
        yield class_map(scores, (truth.shape[0], truth.shape[1])), truth
