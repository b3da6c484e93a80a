"""What goes on the device: an encoder and, optionally, inner layers, a teacher's space and a zero-shot head."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from eyespot.distill.features.chain import AdapterChain, find_route
from eyespot.encoders.base import Encoder
from eyespot.encoders.text.embeddings import TextEmbeddings, load_text_embeddings
from eyespot.encoders.text.encoding import class_embeddings, load_text_tower
from eyespot.evaluate.protocols.zero_shot import EMBEDDING_SUFFIXES
from eyespot.evaluate.protocols.zero_shot import text_space as way_to_text
from eyespot.features import Features

OF_FEATURES = ("summary", "patches", "logits")
"""Names of what `Features` holds."""


class Exportable(nn.Module):
    """An encoder with named outputs: pictures [B, 3, H, W] in [0, 1] -> a tuple of tensors in the order of `names`.

    The outputs are `summary` [B, C] and `patches` [B, D, h, w]; of an encoder with a class head `logits` [B, K]; for
    each of `layers` a map `layer_N` [B, D_N, h, w]; for `space` `SPACE_summary` and `SPACE_patches`, what that teacher
    would say, in its own scale; with `text` `class_scores` [B, K], cosines between picture and class names (logits if
    the text has a bias); then what else the encoder gives, see `Encoder.named_outputs`: of one that answers tasks
    `task_NAME` [B, channels, H, W] for each, raw and as large as the picture.

    Args:
        encoder: any encoder.
        layers: blocks or stages whose maps are wanted too, ascending; see `Encoder.intermediates`.
        space: a teacher that adapters of the encoder lead to, "clip" or "proxy/clip".
        text: embeddings of class names for a zero-shot head, in the space that `text_space` leads to.
        text_space: name of that space if the width of the embeddings leaves it open.

    Raises:
        ValueError: no adapters lead to the space, or none to the text.
        NotImplementedError: `layers` of an encoder that shows none.
    """

    def __init__(
        self,
        encoder: Encoder,
        layers: Sequence[int] = (),
        space: str | None = None,
        text: TextEmbeddings | None = None,
        text_space: str | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.layers = tuple(layers)
        self.space = AdapterChain(encoder.adapters, find_route(encoder.adapters, space)) if space else None
        self.zero_shot = ZeroShotHead(encoder, text, text_space) if text else None
        self.classes = list(text.names) if text else None
        label = (space or "").rpartition("/")[2]
        self._of_features = tuple(name for name in encoder.output_names if name in OF_FEATURES)
        self._further = tuple(name for name in encoder.output_names if name not in OF_FEATURES)
        self.names = (
            *self._of_features,
            *(f"layer_{layer}" for layer in self.layers),
            *((f"{label}_summary", f"{label}_patches") if self.space else ()),
            *(("class_scores",) if self.zero_shot else ()),
            *self._further,
        )
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """All outputs, in the order of `names`."""
        found = self.encoder.named_outputs(images)
        outputs = [found[name] for name in self._of_features]
        if self.layers:
            outputs += self.encoder.intermediates(images, self.layers)
        if self.space:
            there = self.space(Features(found["summary"], found["patches"]))
            outputs += [there.summary, there.patches]
        if self.zero_shot:
            outputs.append(self.zero_shot(found["summary"]))
        return (*outputs, *(found[name] for name in self._further))


def class_text(
    source: str, classes: Sequence[str] | None = None, names: str | None = None, templates: Sequence[str] = ("plain",)
) -> TextEmbeddings:
    """Embeddings of class names for a zero-shot head.

    Args:
        source: a text tower (`open_clip/NAME`, `hf/REPO`, `python/...`) or a file of embeddings (.npy, .safetensors).
        classes: names, as they are to be read; all of a file's if None.
        names: the file of names that belongs to a .npy file.
        templates: sentences for a text tower, see `encoders.text.read_templates`.

    Raises:
        ValueError: a text tower without classes, or classes that the file does not know.
    """
    if not source.partition("?")[0].endswith(EMBEDDING_SUFFIXES):
        if not classes:
            raise ValueError(f"{source} reads any words; name the classes")
        return class_embeddings(load_text_tower(source), classes, templates)
    text = load_text_embeddings(source, names)
    if not classes:
        return text
    known, matched = text.match(classes)
    if len(known) < len(classes):
        unknown = [name for place, name in enumerate(classes) if place not in known]
        raise ValueError(f"{source} does not know {', '.join(unknown)}")
    return matched


class ZeroShotHead(nn.Module):
    """Summaries [B, C] -> scores of classes [B, K], as in `evaluate.zero_shot.zero_shot_scores`."""

    def __init__(self, encoder: Encoder, text: TextEmbeddings, space: str | None) -> None:
        super().__init__()
        way = way_to_text(encoder, text.embeddings.shape[1], space)
        if way is None:
            raise ValueError(f"{encoder.name}: nothing leads from its summaries into the space of the text")
        self.way = way
        self.cosine = text.bias is None
        weight = F.normalize(text.embeddings.float(), dim=1) if self.cosine else text.embeddings.float()
        self.classifier = nn.Linear(weight.shape[1], len(weight), bias=text.bias is not None)
        self.classifier.weight = nn.Parameter(weight)
        if text.bias is not None:
            self.classifier.bias = nn.Parameter(text.bias.float().expand(len(weight)).clone())

    def forward(self, summary: Tensor) -> Tensor:
        """Scores, [B, K]."""
        there = self.way(summary).float()
        scores: Tensor = self.classifier(F.normalize(there, dim=1) if self.cosine else there)
        return scores
