"""An image-text expert on the toybox: a text tower of a few words, trained beside its picture tower.

It stands for the CLIPs of this world, so that zero-shot classification can be shown, and tested, without any download.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from eyespot.data.toybox import COLOURS, SHAPES
from eyespot.encoders.weights import load_strictly, read_weights
from eyespot.files import atomic_path, understood

WORDS_KNOWN = ("a", "an", "striped", "checkered", "dotted", *COLOURS, *SHAPES)
HIDDEN = 128
FIRST_LOGIT_SCALE = 10.0


class PhraseTower(nn.Module):
    """Phrases such as "a striped green box" in, vectors in the space of a picture tower's summaries out.

    A sum of word vectors and one layer: what a phrase of the toybox says does not hang on its word order.

    Args:
        width: of the picture tower's summary.
        name: the spec it was loaded from.
    """

    def __init__(self, width: int, name: str = "phrases") -> None:
        super().__init__()
        self.name = name
        self.width = width
        self.words = nn.EmbeddingBag(len(WORDS_KNOWN), HIDDEN, mode="sum")
        self.project = nn.Linear(HIDDEN, width)

    def forward(self, texts: Sequence[str]) -> Tensor:
        """[N, width], not normalised."""
        numbers = [_numbers(text) for text in texts]
        starts = torch.tensor([0, *(len(words) for words in numbers[:-1])]).cumsum(0)
        words = torch.tensor([number for words in numbers for number in words])
        device = self.project.weight.device
        return self.project(F.gelu(self.words(words.to(device), starts.to(device))))

    @torch.no_grad()
    def embed(self, texts: Sequence[str]) -> Tensor:
        """See `encoders.text.TextTower`."""
        return self(texts).float().cpu()


class PhraseMatching(nn.Module):
    """Which phrase belongs to which picture of the batch? Softmax over cosines, both ways (the CLIP loss).

    Equal phrases in a batch share the target evenly.

    Args:
        width: of the picture tower's summary.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.tower = PhraseTower(width)
        self.log_scale = nn.Parameter(torch.tensor(FIRST_LOGIT_SCALE).log())

    def forward(self, summaries: Tensor, phrases: Sequence[str]) -> Tensor:
        """Loss of [N, width] summaries and their N phrases."""
        pictures, texts = F.normalize(summaries.float(), dim=1), F.normalize(self.tower(phrases).float(), dim=1)
        number = {phrase: place for place, phrase in enumerate(dict.fromkeys(phrases))}
        kind = torch.tensor([number[phrase] for phrase in phrases], device=pictures.device)
        targets = (kind[:, None] == kind).float()
        targets /= targets.sum(1, keepdim=True)
        logits = self.log_scale.exp() * pictures @ texts.T
        return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2


def save_phrases(tower: PhraseTower, file: Path) -> None:
    """Writes a text tower."""
    state = {name: value.detach().cpu().contiguous() for name, value in tower.state_dict().items()}
    with atomic_path(file) as temporary:
        save_file(state, temporary)


def load_phrases(file: str) -> PhraseTower:
    """Reads what `save_phrases` wrote; the spec is "python/eyespot.quickstart.image_text:load_phrases?file=FILE".

    Raises:
        FileNotFoundError: no such file.
    """
    if not Path(file).is_file():
        raise FileNotFoundError(f"no text tower at {file}; eyespot quickstart makes one")
    state = read_weights(file)
    with understood(file, "eyespot quickstart makes a new one"):
        tower = PhraseTower(len(state["project.bias"]))
    load_strictly(tower, state, file)
    return tower.eval()


def _numbers(text: str) -> list[int]:
    words = re.findall(r"[a-z]+", text.lower())
    known = [WORDS_KNOWN.index(word) for word in words if word in WORDS_KNOWN]
    if not known:
        raise ValueError(f"none of the words in {text!r} is known; there are {', '.join(WORDS_KNOWN)}")
    return known
