"""Three small experts with truly different aims, trained on the toybox's labels: the quickstart's committee."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn

from eyespot.data.loading.batch import Batch
from eyespot.data.toybox import SEMANTIC_CLASSES, WORDS, Scenes, phrases, render
from eyespot.data.toybox.spec import FIRST_EXPERT
from eyespot.encoders import Encoder, load_encoder, save_encoder
from eyespot.engine.config import EngineConfig, OptimConfig
from eyespot.engine.first_process import first_awaited
from eyespot.engine.task import Task
from eyespot.engine.trainer import Trainer
from eyespot.features import Features
from eyespot.pictures import as_unit_floats
from eyespot.quickstart.image_text import PhraseMatching, save_phrases
from eyespot.randomness import numpy_generator, seed_everything

LICENSE = "apache-2.0"
"""Of weights that saw nothing but our own toybox."""


class WhatHead(PhraseMatching):
    """What is it? The main object in words ("a striped green box"), from the summary: an image-text expert."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__(encoder.summary_dim)

    def forward(self, features: Features, batch: Batch) -> Tensor:  # type: ignore[override]
        """Contrastive loss between summaries and phrases."""
        return super().forward(features.summary, phrases(batch["pattern"], batch["colour"], batch["shape"]))


class WhereHead(nn.Module):
    """What is where, and how far away? Semantic mask and log depth of every pixel, from the patches."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.read_off = nn.Conv2d(encoder.patch_dim, len(SEMANTIC_CLASSES) + 1, 1)

    def forward(self, features: Features, batch: Batch) -> Tensor:
        """Cross-entropy plus mean absolute error of log depth, at the picture's resolution."""
        maps = F.interpolate(self.read_off(features.patches).float(), batch["depth"].shape[1:], mode="bilinear")
        depth_loss = F.l1_loss(maps[:, -1], batch["depth"].log())
        return F.cross_entropy(maps[:, :-1], batch["semantic"]) + depth_loss


class ReadHead(nn.Module):
    """What does the card say? The word, from the summary; scenes without a card do not count."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.classify = nn.Linear(encoder.summary_dim, len(WORDS))

    def forward(self, features: Features, batch: Batch) -> Tensor:
        """Cross-entropy over the words."""
        return F.cross_entropy(self.classify(features.summary).float(), batch["word"], ignore_index=-1)


EXPERTS: dict[str, Callable[[Encoder], nn.Module]] = {"what": WhatHead, "where": WhereHead, "read": ReadHead}


class SceneBatches:
    """Rendered scenes with their labels, as batches that are a pure function of the step.

    Args:
        count: scenes.
        size: pixels per side.
        batch_size: scenes per step.
        seed: of the order.
        rank, world_size: which slice of each batch this process takes.
    """

    def __init__(self, count: int, size: int, batch_size: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        self.count, self.size, self.batch_size, self.seed = count, size, batch_size, seed
        share = batch_size // world_size
        self._slice = slice(rank * share, (rank + 1) * share)
        scenes = render(range(FIRST_EXPERT, FIRST_EXPERT + count), size)
        self._labels = _labels(scenes)
        self._labels["images"] = (scenes.images * 255).round().to(torch.uint8)

    def batch(self, step: int) -> Batch:
        """The batch of one step."""
        epoch, place = divmod(step, max(1, self.count // self.batch_size))
        order = numpy_generator(self.seed, "lessons", epoch).permutation(self.count)
        chosen = order[place * self.batch_size : (place + 1) * self.batch_size][self._slice]
        rows = torch.from_numpy(chosen)
        return {"step": step, **{name: values[rows] for name, values in self._labels.items()}}

    def batches(self, start_step: int = 0) -> Iterator[Batch]:
        """All batches from a step on, without end."""
        step = start_step
        while True:
            yield self.batch(step)
            step += 1

    def fingerprint(self) -> str:
        """Tells whether these are the same scenes in the same order; worded as in the checkpoints of older runs."""
        return f"toybox lessons {self.count}@{self.size} seed {self.seed}"


def _labels(scenes: Scenes) -> dict[str, Tensor]:
    names = ("shape", "colour", "pattern", "word", "semantic", "depth")
    return {name: getattr(scenes, name) for name in names}


class ExpertTask(Task):
    """Supervised training of one expert.

    Args:
        encoder: the expert to be.
        head: turns its features and a batch into a loss.
    """

    on_device = ("images", "depth", "semantic", "word", "shape", "colour", "pattern")

    def __init__(self, encoder: Encoder, head: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The head's loss."""
        return {"loss": self.head(self.encoder(as_unit_floats(batch["images"])), batch)}

    @property
    def students(self) -> Mapping[str, nn.Module]:
        """The expert."""
        return {"expert": self.encoder}


def train_expert(
    fabric: Fabric,
    name: str,
    spec: str,
    batches: SceneBatches,
    optim: OptimConfig,
    engine: EngineConfig,
    run: Path,
    seed: int,
) -> Path:
    """Trains one expert, unless it is there; returns its model folder, ready for `load_encoder("run/...")`."""
    folder = run / "experts" / name
    if (folder / "config.json").is_file():
        return folder
    seed_everything(seed, "expert", name)
    encoder = load_encoder(spec, pretrained=False)
    head = EXPERTS[name](encoder)
    trainer = Trainer(
        fabric,
        ExpertTask(encoder, head),
        batches,
        optim=optim,
        engine=engine,
        folder=run / f"expert-{name}",
        metrics_path=run / "metrics.jsonl",
        stage=f"expert-{name}",
        seed=seed,
    )
    with first_awaited():
        trained = trainer.train()["expert"]
        assert isinstance(trained, Encoder)
        if fabric.is_global_zero:
            if isinstance(head, PhraseMatching):
                save_phrases(head.tower, text_tower_file(run, name))
            save_encoder(trained, folder, license=LICENSE)
    return folder


def text_tower_file(run: Path, name: str) -> Path:
    """Where an image-text expert's text tower lies."""
    return run / "experts" / f"{name}-text.safetensors"


def text_tower_spec(run: Path, name: str) -> str:
    """How `eyespot.encoders.text.encoding.load_text_tower` finds it."""
    return f"python/eyespot.quickstart.image_text:load_phrases?file={text_tower_file(run, name)}"
