"""Text towers: the other half of image-text models, and what they say about class names.

Zero-shot classification compares a summary with embeddings of class names. These come from a text tower, or from a
file (`text_embeddings`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch.nn.functional as F
from torch import Tensor

from eyespot.encoders.sources.python import load_factory
from eyespot.encoders.text.embeddings import TextEmbeddings, load_text_embeddings, save_text_embeddings
from eyespot.encoders.text.towers import load_hf_text_tower, load_open_clip_text_tower
from eyespot.files import read_text
from eyespot.specs import read_options, write_options

__all__ = [
    "TEMPLATES",
    "TextEmbeddings",
    "TextTower",
    "class_embeddings",
    "load_text_embeddings",
    "load_text_tower",
    "read_templates",
    "save_text_embeddings",
]


@runtime_checkable
class TextTower(Protocol):
    """Texts in, vectors in the space of an image tower's summaries out.

    Attributes:
        name: the spec it was loaded from.
        width: C, width of the embeddings.
    """

    name: str
    width: int

    def embed(self, texts: Sequence[str]) -> Tensor:
        """[N, C] float32 on the CPU, not normalised, without gradient."""
        ...


def _imagenet_templates() -> tuple[str, ...]:
    try:
        from open_clip import OPENAI_IMAGENET_TEMPLATES
    except ImportError as error:
        raise ImportError("the templates 'imagenet' are open_clip's: pip install 'eyespot[open_clip]'") from error
    return tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES)


TEMPLATES: dict[str, Callable[[], tuple[str, ...]]] = {
    "plain": lambda: ("a photo of a {}.",),
    "name": lambda: ("{}",),
    "imagenet": _imagenet_templates,
}
"""Named sets of templates: CLIP's plain sentence, the bare name, and OpenAI's 80 sentences for ImageNet."""


def load_text_tower(spec: str, **options: Any) -> TextTower:
    """Loads the text tower of an image-text model; those of libraries are frozen and in eval mode.

    Args:
        spec: "open_clip/NAME[.tag]" (`open_clip/local-dir:FOLDER`, `open_clip/hf-hub:REPO`), "hf/REPO" or
            "hf/FOLDER" (CLIP, SigLIP, SigLIP2 and their like), or "python/module:factory" of something that is a
            `TextTower`. Options follow as in `load_encoder`, e.g. "?weights=FILE" for open_clip.
        options: the same options as keywords.

    Raises:
        ValueError: another prefix, an unknown option, no text tower in it, or weights that do not fit.
        FileNotFoundError, ImportError, RuntimeError: see `load_encoder`.
    """
    path, _, query = spec.partition("?")
    prefix, _, rest = path.partition("/")
    options = {**read_options(query), **options}
    if prefix not in _SOURCES or not rest:
        raise ValueError(f"{spec!r} names no text tower; write {', '.join(f'{known}/...' for known in _SOURCES)}")
    try:
        tower = _SOURCES[prefix](rest, **options)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise ValueError(f"{spec}: {error}") from error
    tower.name = f"{path}?{write_options(options)}" if options else path
    return tower


def _python_text_tower(target: str, **options: Any) -> TextTower:
    tower = load_factory(target)(**options)
    if not isinstance(tower, TextTower):
        raise ValueError(f"python/{target}: a text tower has name, width and embed(texts); this is {type(tower)}")
    return tower


_SOURCES: dict[str, Callable[..., TextTower]] = {
    "open_clip": load_open_clip_text_tower,
    "hf": load_hf_text_tower,
    "python": _python_text_tower,
}


def read_templates(wording: str | Sequence[str]) -> tuple[str, ...]:
    """Templates by name, from a file, or as they are.

    Args:
        wording: one or several of: a name in `TEMPLATES`; a text file with one template per line; a template.

    Raises:
        ValueError: a template without exactly one {}, or none at all.
    """
    entries = (wording,) if isinstance(wording, str) else wording
    templates = tuple(template for entry in entries for template in _templates_of(entry))
    wrong = [template for template in templates if template.count("{}") != 1]
    if wrong or not templates:
        shown = f", unlike {wrong[0]!r}" if wrong else ""
        raise ValueError(f"templates hold one {{}} for the class name{shown}; named ones are {', '.join(TEMPLATES)}")
    return templates


def _templates_of(entry: str) -> tuple[str, ...]:
    if entry in TEMPLATES:
        return TEMPLATES[entry]()
    if "{}" not in entry and Path(entry).is_file():
        lines = read_text(entry).splitlines()
        return tuple(line.strip() for line in lines if line.strip())
    return (entry,)


def class_embeddings(
    tower: TextTower, names: Sequence[str], templates: str | Sequence[str] = "plain"
) -> TextEmbeddings:
    """Embeddings of class names by prompt ensembling (CLIP, section 3.1.4).

    Per class: the mean over all templates of the L2-normalised embeddings of the sentences, L2-normalised again.

    Args:
        tower: reads the sentences.
        names: N class names, as they are to stand in a sentence.
        templates: see `read_templates`.

    Returns:
        N unit vectors.
    """
    wording = read_templates(templates)
    embedded = tower.embed([template.replace("{}", name) for name in names for template in wording])
    means = F.normalize(embedded.float(), dim=1).unflatten(0, (len(names), len(wording))).mean(1)
    return TextEmbeddings(tuple(names), F.normalize(means, dim=1))
