"""Exhibits: what encoders make of a few pictures. Each encoder is looked at by itself; drawing comes last.

So no more than one encoder need be in memory, and what was expensive to find out is kept in a folder.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from safetensors.torch import save_file
from torch import Tensor

from eyespot.encoders.weights import read_weights
from eyespot.evaluate.extraction import FeatureBank
from eyespot.evaluate.finished import FinishedMeasurements
from eyespot.files import UnreadableFileError, atomic_path, understood
from eyespot.report.exhibits.figures import AnyFigure

Findings = Mapping[str, Sequence[Tensor]]
"""Label of an encoder -> what an exhibit's `look` found."""


class Exhibit(Protocol):
    """One kind of figure."""

    @property
    def name(self) -> str:
        """Of a task, or of what is shown."""
        ...

    @property
    def setting(self) -> Mapping[str, Any] | None:
        """All that `look` depends on beside encoder and data, JSON-able; None if looking is cheap: nothing is kept."""
        ...

    @property
    def data(self) -> Any:
        """Pictures, and labels, as the tasks take them."""
        ...

    def look(self, bank: FeatureBank) -> list[Tensor]:
        """What one encoder makes of the pictures; small tensors."""
        ...

    def draw(self, findings: Findings) -> list[AnyFigure]:
        """The figures, all encoders side by side."""
        ...


class Gallery:
    """Shows encoders to exhibits, one after the other, and then hangs the figures.

    Args:
        exhibits: what to show.
        folder: keeps there what exhibits found, if that was expensive; None keeps nothing.
    """

    def __init__(self, exhibits: Sequence[Exhibit], folder: Path | None = None) -> None:
        self.exhibits = list(exhibits)
        self._folder = folder
        self._findings: list[dict[str, list[Tensor]]] = [{} for _ in self.exhibits]

    def add(self, label: str, bank: FeatureBank) -> None:
        """Looks through one encoder; its weights are not needed any more after that."""
        for exhibit, findings in zip(self.exhibits, self._findings, strict=True):
            findings[label] = self._look(exhibit, bank)

    def figures(self) -> list[AnyFigure]:
        """All figures, in the order of the exhibits."""
        hung: list[AnyFigure] = []
        for exhibit, findings in zip(self.exhibits, self._findings, strict=True):
            hung += exhibit.draw(findings) if findings else []
        return hung

    def _look(self, exhibit: Exhibit, bank: FeatureBank) -> list[Tensor]:
        file = self._file(exhibit, bank)
        if file is not None and file.is_file():
            try:
                with understood(file):
                    kept = read_weights(file)
                    return [kept[f"{place:03d}"] for place in range(len(kept))]
            except UnreadableFileError as error:
                warnings.warn(f"{error}; it is looked at again", stacklevel=2)
        found = exhibit.look(bank)
        if file is not None:
            with atomic_path(file) as temporary:
                save_file({f"{place:03d}": one.contiguous() for place, one in enumerate(found)}, temporary)
        return found

    def _file(self, exhibit: Exhibit, bank: FeatureBank) -> Path | None:
        if self._folder is None or exhibit.setting is None:
            return None
        setting = {"size": bank.encoder.fitting_size(bank.size), **exhibit.setting}
        key = FinishedMeasurements(self._folder).key(bank.encoder, f"shown {exhibit.name}", exhibit.data, setting)
        return None if key is None else self._folder / f"{key}.safetensors"
