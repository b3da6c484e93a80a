"""The loader of pictures with maps for several tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from eyespot.data.labelled.samples import MultiTaskData, MultiTaskSample
from eyespot.data.loading.batch import MapBatch
from eyespot.data.loading.batch_loader import BatchLoader, BatchReader
from eyespot.data.loading.sampling import SamplingPlan
from eyespot.data.views.config import PairedViewConfig
from eyespot.data.views.paired import paired_view
from eyespot.dense_tasks import DenseTask


@dataclass(frozen=True)
class MultiTaskLoaderConfig:
    """All that makes the batches what they are, beside the data themselves.

    Attributes:
        data: name of the data.
        tasks: what they are labelled for.
        view: how pictures are seen.
        seed: of the order and of the views.
        workers: processes that read pictures; changes nothing in the batches, nor does `keep_decoded`.
        keep_decoded: whether every picture that was read is kept in memory with its maps (in each worker).
    """

    data: str
    tasks: dict[str, DenseTask]
    view: PairedViewConfig
    seed: int = 0
    workers: int = 0
    keep_decoded: bool = False


class MultiTaskLoader(BatchLoader[MapBatch]):
    """Batches of pictures with maps for several tasks; see `BatchLoader`.

    Args:
        data: pictures with their maps.
        config: how they are seen.
        batch_size: pictures per step over all ranks together; the batch of a step does not depend on `world_size`.
        rank: number of this process.
        world_size: number of processes.
        seed: of the order and of the views.
        workers: processes that read pictures; 0 reads them in this process.
        keep_decoded: keep every picture that was read in memory with its maps (in each worker), for small sets.

    Raises:
        ValueError: the numbers do not fit together.
    """

    def __init__(
        self,
        data: MultiTaskData,
        config: PairedViewConfig,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        workers: int = 0,
        keep_decoded: bool = False,
    ) -> None:
        self.config = MultiTaskLoaderConfig(data.name, dict(data.tasks), config, seed, workers, keep_decoded)
        self.sources = [data]
        plan = SamplingPlan([len(data)], batch_size, seed=seed)
        super().__init__(_MultiTaskReader(data, self.config), plan, rank, world_size, workers)


class _MultiTaskReader(BatchReader):
    """Makes a `MapBatch`."""

    def __init__(self, data: MultiTaskData, config: MultiTaskLoaderConfig) -> None:
        super().__init__([data], config.keep_decoded)
        self.data = data
        self.config = config

    def read(self, source: int, index: int) -> MultiTaskSample:
        return self.data.read(index)

    def seen(self, read: MultiTaskSample, source: int, index: int, view: int) -> MultiTaskSample:
        return paired_view(read, self.config.tasks, self.config.view, self.config.seed, source, index, view)

    def stacked(self, views: Sequence[MultiTaskSample]) -> dict[str, Any]:
        maps = {task: torch.stack([view.maps[task] for view in views]) for task in self.config.tasks}
        return {"images": torch.stack([view.image for view in views]), "maps": maps}
