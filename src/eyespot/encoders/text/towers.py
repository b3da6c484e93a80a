"""Text towers of open_clip and transformers, see `text.TextTower`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eyespot.encoders.sources.open_clip_models import (
    OpenClipModel,
    find_open_clip_model,
    import_open_clip,
    load_tower_weights,
)

BATCH = 64


class LibraryTextTower(nn.Module, ABC):
    """A text tower of a library: frozen, in eval mode, read in batches of 64.

    Args:
        model: the library's model, on the CPU; `to(device)` moves it.
        name: the spec shown to people.
    """

    def __init__(self, model: nn.Module, name: str) -> None:
        super().__init__()
        self.model = model
        self.name = name
        self.eval().requires_grad_(False)
        self.width = self._embed(["a"], torch.device("cpu")).shape[1]

    @torch.inference_mode()
    def embed(self, texts: Sequence[str]) -> Tensor:
        """[N, C] float32 on the CPU, not normalised."""
        device = next(self.model.parameters()).device
        pieces = [list(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)]
        found = [self._embed(piece, device).float().cpu() for piece in pieces]
        return torch.cat(found) if found else torch.zeros(0, self.width)

    @abstractmethod
    def _embed(self, texts: list[str], device: torch.device) -> Tensor:
        """[n, C] for at most 64 texts."""


class OpenClipTextTower(LibraryTextTower):
    """A model of open_clip and its tokenizer; the image tower may be missing."""

    def __init__(self, model: nn.Module, tokenizer: Any, name: str) -> None:
        self._tokenizer = tokenizer
        super().__init__(model, name)

    def _embed(self, texts: list[str], device: torch.device) -> Tensor:
        return self.model.encode_text(self._tokenizer(texts).to(device), normalize=False)  # type: ignore[operator]


class HfTextTower(LibraryTextTower):
    """A model of transformers with `get_text_features` (CLIP, MetaCLIP, SigLIP, SigLIP2 ...) and its tokenizer.

    SigLIP and SigLIP2 saw texts padded on the right to full length, padding not masked, in training, and pool at the
    last place; so they get them here, whatever the tokenizer's own defaults are.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str) -> None:
        self._tokenizer = tokenizer
        self._is_siglip = "siglip" in model.config.model_type
        self._length = model.config.text_config.max_position_embeddings
        super().__init__(model, name)

    def _embed(self, texts: list[str], device: torch.device) -> Tensor:
        padding = {"padding": "max_length", "padding_side": "right"} if self._is_siglip else {"padding": True}
        tokens = self._tokenizer(texts, **padding, max_length=self._length, truncation=True, return_tensors="pt").to(
            device
        )
        masks = {} if self._is_siglip else {"attention_mask": tokens.get("attention_mask")}
        found = self.model.get_text_features(input_ids=tokens["input_ids"], **masks)  # type: ignore[operator]
        return found if isinstance(found, Tensor) else found.pooler_output  # a bare tensor before transformers 5


def load_open_clip_text_tower(
    rest: str, *, pretrained: bool = True, weights: str | Path | None = None
) -> OpenClipTextTower:
    """Builds the text tower of `open_clip/NAME[.tag]`, `open_clip/local-dir:FOLDER` or `open_clip/hf-hub:REPO`.

    Args:
        rest: see `create_open_clip_encoder`.
        pretrained: load the released weights (downloads them unless cached). Without, weights are random.
        weights: a checkpoint of the whole model, or of it without image tower, to load strictly instead.

    Raises:
        ValueError, FileNotFoundError, ImportError, RuntimeError: see `create_open_clip_encoder`.
    """
    model = find_open_clip_model(rest)
    pair: Any = model.pretrained() if pretrained and weights is None else model.tower("text")
    del pair.visual
    if weights is not None:
        load_tower_weights(pair, weights, "text")
    return OpenClipTextTower(pair, _open_clip_tokenizer(model), f"open_clip/{rest}")


def _open_clip_tokenizer(model: OpenClipModel) -> Any:
    try:
        return import_open_clip().get_tokenizer(model.name)
    except Exception as error:
        wanted = model.config["text_cfg"].get("hf_tokenizer_name")
        raise RuntimeError(
            f"open_clip/{model.spec}: no tokenizer ({type(error).__name__}: {error}). Offline? Bring a folder with "
            f"open_clip_config.json, the weights and the tokenizer's files (those of {wanted}), and write "
            "open_clip/local-dir:FOLDER"
        ) from error


def load_hf_text_tower(rest: str) -> HfTextTower:
    """Builds the text tower of `hf/REPO` or `hf/FOLDER`.

    Args:
        rest: a repository of the Hugging Face hub, or a folder with configuration, weights and tokenizer.

    Raises:
        ValueError: no text tower in it, or the weights do not fit.
        ImportError: transformers is missing.
        FileNotFoundError: it is not there and could not be fetched; says what to bring.
    """
    try:
        from transformers import AutoModel, AutoTokenizer
    except ImportError as error:
        raise ImportError("hf/ models need transformers: pip install 'eyespot[hf]'") from error
    try:
        tokenizer = AutoTokenizer.from_pretrained(rest)
        model, report = AutoModel.from_pretrained(rest, dtype=torch.float32, output_loading_info=True)
    except OSError as error:
        raise FileNotFoundError(
            f"hf/{rest} could not be loaded ({type(error).__name__}: {error}). Offline? Bring config.json, "
            "model.safetensors and the tokenizer's files in one folder and write hf//path/to/folder"
        ) from error
    if not hasattr(model, "get_text_features"):
        raise ValueError(f"hf/{rest} is a {type(model).__name__}, which has no text tower")
    lacking = sorted([*report["missing_keys"], *(str(entry[0]) for entry in report["mismatched_keys"])])
    if lacking:
        raise ValueError(f"hf/{rest}: the weights do not fit {type(model).__name__}: {', '.join(lacking[:6])}")
    return HfTextTower(model, tokenizer, f"hf/{rest}")
