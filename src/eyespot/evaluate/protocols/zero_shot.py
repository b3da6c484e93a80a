"""Zero-shot classification: summaries against class names, in the space of an image-text teacher.

A student that never saw a text still knows the way into the space of a teacher that did: through its adapter heads,
with the standardizers undone (student -> proxy -> teacher; EUPE's protocol, paper notes, C). How EUPE chains the two
hops is not published; ours undoes the standardizer after each head, so that every hop starts from features on their
own scale.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyespot.data.labelled.base import ClassificationData
from eyespot.distill.features.chain import AdapterChain, find_route, routes, shown, width_of
from eyespot.encoders.base import Encoder
from eyespot.encoders.naming import short_names
from eyespot.encoders.text.embeddings import TextEmbeddings, load_text_embeddings
from eyespot.encoders.text.encoding import TextTower, class_embeddings, load_text_tower, read_templates
from eyespot.evaluate.extraction import FeatureBank
from eyespot.evaluate.finished import files_named

EMBEDDING_SUFFIXES = (".npy", ".safetensors")


def zero_shot_scores(summaries: Tensor, text: TextEmbeddings) -> Tensor:
    """How well each picture fits each class, [M, K].

    Args:
        summaries: [M, C] in the space of the embeddings.
        text: [K, C] class embeddings. With a bias they are the rows of a linear classifier, and scores are its logits;
            without, scores are cosines.
    """
    if text.bias is not None:
        return summaries.float() @ text.embeddings.T + text.bias
    return F.normalize(summaries.float(), dim=1) @ F.normalize(text.embeddings, dim=1).T


def text_space(encoder: Encoder, width: int, space: str | None = None) -> Callable[[Tensor], Tensor] | None:
    """The way from an encoder's summaries into a space of `width` numbers.

    Args:
        encoder: a student with adapters, or the image-text teacher itself.
        width: C of the text embeddings.
        space: the teacher's name, "clip" or "proxy/clip". None: the only one of that width.

    Returns:
        Turns [N, C] summaries into [N, width]. None for a model without adapters that is not that teacher, by width or
        by name: a DINO cannot be compared with text.

    Raises:
        ValueError: none of a student's adapters leads there, or several do.
    """
    if not encoder.adapters:
        is_teacher = space is None or short_names([encoder.name])[0] == space.rpartition("/")[2]
        return nn.Identity() if is_teacher and encoder.summary_dim == width else None
    if space is None:
        known = routes(encoder.adapters)
        fitting = [route for route in known if width_of(encoder.adapters, route) == width]
        if len(fitting) != 1:
            raise ValueError(
                f"{encoder.name}: {len(fitting)} of its adapters lead to {width} numbers, the width of the text; name "
                f"one, space=NAME. There are {shown(known)}"
            )
        return AdapterChain(encoder.adapters, fitting[0]).summary
    route = find_route(encoder.adapters, space)
    if width_of(encoder.adapters, route) != width:
        raise ValueError(
            f"the space of {space} has {width_of(encoder.adapters, route)} numbers, the text {width}: it is of another "
            "model"
        )
    return AdapterChain(encoder.adapters, route).summary


def run(
    bank: FeatureBank,
    data: ClassificationData,
    seed: int = 0,
    *,
    text: str | TextTower | TextEmbeddings,
    names: str | None = None,
    space: str | None = None,
    templates: str | Sequence[str] = "plain",
) -> dict[str, float | None]:
    """Zero-shot accuracy on the validation split. Nothing is random; `seed` is there because every task has one.

    Args:
        bank: the encoder. One that has no way into the text's space (a DINO, say) gets no values instead of an error,
            so that it may stand in a table with others.
        data: classes are compared by name; with text embeddings from a file, only classes that are found there count.
        seed: not used.
        text: an image-text model's text tower (`open_clip/NAME`, `hf/REPO`, `python/...`), a file of class-name
            embeddings, or either of them already loaded.
        names: the file of names that belongs to a .npy file of embeddings.
        space: see `text_space`.
        templates: a name from `encoders.text.TEMPLATES`, a text file with one template per line, or templates; each
            holds one {} for the class name. Their embeddings are averaged. For text towers only.

    Returns:
        accuracy and top5, as shares of the pictures that count, and classes, how many were told apart.

    Raises:
        ValueError: text in a space that the student's adapters do not lead to, or fewer than two classes are known.
    """
    classes, embeddings = _class_text(text, names, templates, tuple(data.classes))
    into_space = text_space(bank.encoder, embeddings.embeddings.shape[1], space)
    if into_space is None:
        return {"accuracy": None, "top5": None, "classes": None}
    position = torch.full((len(data.classes) + 1,), -1)
    position[torch.tensor(classes)] = torch.arange(len(classes))
    labels = position[data.val.labels]  # label -1 looks up the extra last place
    with torch.inference_mode():
        summaries = into_space(bank.summaries(data.val.pictures)[labels >= 0])
    ranked = zero_shot_scores(summaries, embeddings).topk(min(5, len(classes)), dim=1).indices
    hits = ranked == labels[labels >= 0, None]
    return {
        "accuracy": float(hits[:, 0].float().mean()),
        "top5": float(hits.any(1).float().mean()),
        "classes": float(len(classes)),
    }


def check(
    encoder: Encoder,
    data: ClassificationData,
    *,
    text: str | TextTower | TextEmbeddings,
    names: str | None = None,
    space: str | None = None,
    templates: str | Sequence[str] = "plain",
) -> None:
    """Refuses what `run` could not measure, before a picture is looked at; the text is read, and kept for `run`.

    Raises:
        ValueError: see `run`.
    """
    _, embeddings = _class_text(text, names, templates, tuple(data.classes))
    text_space(encoder, embeddings.embeddings.shape[1], space)


def _class_text(
    text: str | TextTower | TextEmbeddings, names: str | None, templates: str | Sequence[str], classes: tuple[str, ...]
) -> tuple[list[int], TextEmbeddings]:
    """Which of the classes can be told by name, and their embeddings."""
    wording = (templates,) if isinstance(templates, str) else tuple(templates)
    if isinstance(text, str):
        known, embeddings = _loaded(text, names, wording, classes, files_named([text, names, wording]))
    else:
        known, embeddings = _embedded(text, wording, classes)
    if len(known) < 2:
        raise ValueError(f"the text knows {len(known)} of the {len(classes)} classes by name; zero-shot needs two")
    return known, embeddings


@lru_cache(maxsize=8)  # the rows of a table share one text
def _loaded(
    text: str, names: str | None, wording: tuple[str, ...], classes: tuple[str, ...], _: tuple[tuple[str, int], ...]
) -> Any:
    """The last argument says what is in the files: as long as that is the same, the text is."""
    if text.partition("?")[0].endswith(EMBEDDING_SUFFIXES):
        return _embedded(load_text_embeddings(text, names), wording, classes)
    return _embedded(load_text_tower(text), wording, classes)


def _embedded(
    text: TextTower | TextEmbeddings, wording: tuple[str, ...], classes: tuple[str, ...]
) -> tuple[list[int], TextEmbeddings]:
    if isinstance(text, TextEmbeddings):
        return text.match(classes)
    readable = [name.replace("_", " ") for name in classes]
    return list(range(len(classes))), class_embeddings(text, readable, read_templates(wording))
