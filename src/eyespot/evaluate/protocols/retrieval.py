"""Image-text retrieval: pictures against captions, in the space of an image-text teacher."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from eyespot.data.labelled.base import RetrievalData
from eyespot.encoders.base import Encoder
from eyespot.encoders.text.encoding import TextTower, class_embeddings, load_text_tower
from eyespot.evaluate.extraction import FeatureBank
from eyespot.evaluate.finished import files_named
from eyespot.evaluate.protocols.zero_shot import text_space

RANKS = (1, 5, 10)
CHUNK = 1024


def recall_at(asked: Tensor, answers: Tensor, fitting: Tensor, ranks: Sequence[int] = RANKS) -> list[float]:
    """Share of queries that find a fitting answer among the first k by cosine similarity, for several k.

    With several fitting answers to a query one among the first k is enough, as usual for R@k on captions.

    Args:
        asked: [N, C] queries.
        answers: [M, C].
        fitting: [N, M] bool.
        ranks: the k; all M where there are fewer.

    Returns:
        One share in [0, 1] per k.
    """
    answers = F.normalize(answers.float(), dim=1)
    first = []
    for part, right in zip(asked.split(CHUNK), fitting.split(CHUNK), strict=True):
        found = (F.normalize(part.float(), dim=1) @ answers.T).topk(min(max(ranks), len(answers)), dim=1).indices
        first.append(right.gather(1, found))
    hits = torch.cat(first)
    return [float(hits[:, :k].any(dim=1).double().mean()) for k in ranks]


def run(
    bank: FeatureBank,
    data: RetrievalData,
    seed: int = 0,
    *,
    text: str | TextTower,
    space: str | None = None,
    templates: str | Sequence[str] = "name",
) -> dict[str, float | None]:
    """R@1, R@5 and R@10 from pictures to captions (I2T) and from captions to pictures (T2I). Nothing is random.

    Every caption of a picture is a query of its own and an answer of its own. (EUPE publishes no retrieval; a student
    gets into the text's space as in `zero_shot`.)

    Args:
        bank: the encoder. One that has no way into the text's space gets no values, so that it may stand in a table
            with others.
        data: pictures and captions.
        seed: not used; it is there because every task has one.
        text: an image-text model's text tower (`open_clip/NAME`, `hf/REPO`, `python/...`), or one already loaded.
        space: see `zero_shot.text_space`.
        templates: what stands around a caption, see `zero_shot.run`; the bare caption by default. CLIP's authors wrote
            "a photo of {}" for Flickr30K.

    Raises:
        ValueError: text in a space that the student's adapters do not lead to.
    """
    embedded = _captions(data, text, templates)
    into_space = text_space(bank.encoder, embedded.shape[1], space)
    if into_space is None:
        return {f"{way}-R@{k}": None for way in ("I2T", "T2I") for k in RANKS}
    with torch.inference_mode():
        pictures = into_space(bank.summaries(data.pictures))
    owner = torch.repeat_interleave(torch.tensor([len(of_picture) for of_picture in data.captions]))
    fitting = owner == torch.arange(len(pictures))[:, None]
    found = {"I2T": recall_at(pictures, embedded, fitting), "T2I": recall_at(embedded, pictures, fitting.T)}
    return {f"{way}-R@{k}": share for way, shares in found.items() for k, share in zip(RANKS, shares, strict=True)}


def check(
    encoder: Encoder,
    data: RetrievalData,
    *,
    text: str | TextTower,
    space: str | None = None,
    templates: str | Sequence[str] = "name",
) -> None:
    """Refuses what `run` could not measure, before a picture is looked at; what a spec names is read, and kept.

    Raises:
        ValueError: see `run`.
    """
    if isinstance(text, str):
        text_space(encoder, _captions(data, text, templates).shape[1], space)


def _captions(data: RetrievalData, text: str | TextTower, templates: str | Sequence[str]) -> Tensor:
    """Every caption in the text's space, [captions, C]."""
    wording = (templates,) if isinstance(templates, str) else tuple(templates)
    captions = tuple(caption for of_picture in data.captions for caption in of_picture)
    if not isinstance(text, str):
        return _embedded(text, wording, captions)
    return _embedded_by_spec(text, wording, captions, files_named([text, wording]))


@lru_cache(maxsize=2)  # the rows of a table share one text
def _embedded_by_spec(
    text: str, wording: tuple[str, ...], captions: tuple[str, ...], _: tuple[tuple[str, int], ...]
) -> Tensor:
    """The last argument says what is in the files: as long as that is the same, the text is."""
    return _embedded(load_text_tower(text), wording, captions)


def _embedded(tower: TextTower, wording: tuple[str, ...], captions: tuple[str, ...]) -> Tensor:
    return class_embeddings(tower, captions, wording).embeddings
