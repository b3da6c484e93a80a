"""Classification by a model's own class head: top-1, top-5, calibration, and what it takes for what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from eyespot.data.labelled.base import ClassificationData, LabelledPictures
from eyespot.evaluate.extraction import FeatureBank, eval_mode, read_ahead
from eyespot.evaluate.protocols.counting import confusion

BELOW_ONE = 1 - 1e-7


class ClassHead(Protocol):
    """What there is to know of a class head: an encoder has it, and a run before its students are made."""

    @property
    def name(self) -> str:
        """What errors call it."""
        ...

    @property
    def num_classes(self) -> int:
        """How many outputs there are; 0 without a head."""
        ...

    @property
    def class_names(self) -> Sequence[str] | None:
        """Of the outputs in order, where known."""
        ...


def run(
    bank: FeatureBank, data: ClassificationData, seed: int = 0, bins: int = 15, per_class: bool = False
) -> dict[str, float]:
    """What the class head says of the validation pictures, none of which it is trained on here. Nothing is random.

    Args:
        bank: an encoder with a class head, see `load_classifier`.
        data: the validation split is looked at, pictures without a label are left out. Its classes are those of the
            head, in any order if both are known by name, see `class_places`.
        seed: not used; it is there because every task has one.
        bins: of the calibration error.
        per_class: whether the accuracy of every class is given too, as `accuracy of NAME`.

    Returns:
        top1 and top5, shares of the pictures; ECE, the expected calibration error in [0, 1]; NLL, the mean negative
        logarithm (in nats) of the probability that the head gives to the true class.

    Raises:
        ValueError: an encoder without a head, classes that do not belong together, no labelled picture, NaN.
    """
    logits, labels = answers(bank, data)
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices
    hits = best == labels[:, None]
    found = {
        "top1": float(hits[:, 0].double().mean()),
        "top5": float(hits.any(1).double().mean()),
        "ECE": expected_calibration_error(logits, labels, bins),
        "NLL": float(F.cross_entropy(logits.double(), labels)),
    }
    if per_class:
        shares = class_accuracies(confusion(best[:, 0], labels, logits.shape[1]))
        places = class_places(bank.encoder, data.classes).tolist()
        named = {f"accuracy of {name}": float(shares[place]) for name, place in zip(data.classes, places, strict=True)}
        found |= named
    return found


def check(head: ClassHead, data: ClassificationData, **options: object) -> None:
    """Refuses what `run` could not measure, before a picture is looked at.

    Raises:
        ValueError: no head, classes that do not belong together, no labelled picture.
    """
    class_places(head, data.classes)
    if not bool((data.val.labels >= 0).any()):
        raise ValueError("classification needs validation pictures with labels, there are none")


def answers(bank: FeatureBank, data: ClassificationData) -> tuple[Tensor, Tensor]:
    """Logits float32 [N, K] of the labelled validation pictures, on the CPU, and labels int64 [N] as places in them.

    The encoder runs in eval mode, without gradients, at the bank's size and batch size.

    Raises:
        ValueError: see `run`.
    """
    encoder = bank.encoder
    check(encoder, data)
    places, known = class_places(encoder, data.classes), data.val.labels >= 0
    logits = _logits(bank, data.val)[known]
    if not bool(logits.isfinite().all()):
        raise ValueError(f"{encoder.name} returned NaN or infinity; its answers cannot be evaluated")
    return logits, places[data.val.labels[known]]


@torch.inference_mode()
def _logits(bank: FeatureBank, split: LabelledPictures) -> Tensor:
    encoder, count, found = bank.encoder, len(split.pictures), []
    parts = [range(start, min(start + bank.batch_size, count)) for start in range(0, count, bank.batch_size)]
    with eval_mode(encoder):
        images = read_ahead(split.pictures, parts, encoder.fitting_size(bank.size))
        for part, batch in zip(parts, images, strict=True):
            logits = encoder(batch.to(encoder.device)).logits
            assert logits is not None, f"{encoder.name} states {encoder.num_classes} classes but gives no logits"
            found.append(logits.float().cpu())
            if bank.progress is not None:
                bank.progress(part.stop, count)
    return torch.cat(found).clone()  # outside of inference mode tensors can be used freely


def class_places(encoder: ClassHead, classes: Sequence[str]) -> Tensor:
    """For each class of the data its place among the head's outputs, int64.

    By name where all of the data's classes are found among the head's (case, underscores and outer blanks do not
    count): the data may then have another order and fewer classes; the others stay possible wrong answers. By value
    where the data's names are whole numbers (folders 0, 1, 10, 2 ...). By position where the head's names are unknown
    or one occurs twice, and the counts agree.

    Raises:
        ValueError: an encoder without a head, another number of classes, names of which only some or none are shared,
            or numbers beyond the head's outputs.
    """
    if not encoder.num_classes:
        raise ValueError(
            f"{encoder.name} has no class head; load it with one: eyespot.load_classifier(spec), or name its size in "
            "the spec (timm/NAME?num_classes=1000)"
        )
    own = {_plain(name): place for place, name in enumerate(encoder.class_names or ())}
    if len(own) < len(encoder.class_names or ()) or len({_plain(name) for name in classes}) < len(classes):
        own = {}  # two classes of one name (ImageNet has two cranes) cannot be told apart by it
    missing = [name for name in classes if _plain(name) not in own]
    if not missing:
        return torch.tensor([own[_plain(name)] for name in classes])
    numbers = _whole_numbers(classes)
    if numbers is not None and len(missing) == len(classes):
        if max(numbers) >= encoder.num_classes:
            raise ValueError(
                f"the data's classes are numbers up to {max(numbers)}, {encoder.name} has outputs 0 to "
                f"{encoder.num_classes - 1}; give the folders names, or numbers from 0"
            )
        return torch.tensor(numbers)
    if own:
        raise ValueError(
            f"{encoder.name} knows {len(classes) - len(missing)} of the data's {len(classes)} classes by name, but not "
            f"{', '.join(missing[:5])}; give it the data's names (class_names=) or data of its own classes"
        )
    if len(classes) != encoder.num_classes:
        raise ValueError(
            f"the data have {len(classes)} classes, {encoder.name} tells {encoder.num_classes} apart, and names do not "
            "say which is which (class_names= of load_classifier gives the model the data's): by number there must be "
            "equally many"
        )
    return torch.arange(len(classes))


def _whole_numbers(names: Sequence[str]) -> list[int] | None:
    """The values of names that are all whole numbers, each another; None for other names."""
    if not all(name.isascii() and name.isdigit() for name in names):
        return None
    values = [int(name) for name in names]
    return values if len(set(values)) == len(values) else None


def _plain(name: str) -> str:
    return name.replace("_", " ").strip().casefold()


def expected_calibration_error(logits: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Expected calibration error of Guo et al. (arXiv 1706.04599, equation 3), in [0, 1].

    Pictures are put into bins of equal width by their confidence, the largest softmax probability; the error is the
    difference of mean confidence and accuracy, mean over the bins weighted by their pictures.

    Args:
        logits: [N, K].
        labels: int64 [N].
        bins: their number.
    """
    # a confidence of exactly 1 belongs to the last bin
    probabilities, said = logits.double().softmax(1).clamp(max=BELOW_ONE).max(dim=1)
    confidences, hits = probabilities.float(), (said == labels).float()
    places = torch.bucketize(confidences, torch.linspace(0, 1, bins + 1), right=True) - 1
    count, confidence, accuracy = (
        torch.zeros(bins).scatter_add_(0, places, values)
        for values in (torch.ones_like(confidences), confidences, hits)
    )
    gaps = (accuracy / count - confidence / count).nan_to_num(0).abs()
    return float((gaps * (count / len(labels))).sum())


def class_accuracies(counts: Tensor) -> Tensor:
    """Share of each class's pictures that were recognised, float64 [K]; NaN for a class without pictures.

    Args:
        counts: [K, K], see `confusion`.
    """
    return counts.diagonal().double() / counts.sum(1)
