"""Files of other runtimes as encoders: what all formats share. Each format brings a `Session`."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from eyespot.encoders.base import Encoder, checked_names
from eyespot.features import Features

CLASS_OUTPUTS = ("logits", "log_probs")
"""Names under which files give what their class head says."""

MOST_AT_ONCE = 8  # runtimes keep the memory of the largest batch they have seen: gigabytes for 64 pictures


class Session(Protocol):
    """A file, loaded by its runtime and ready to run.

    Attributes:
        batch: how many pictures a run takes; None for any number.
        size: (height, width) in pixels that it takes; None for any multiple of the stride.
        outputs: names of what it can give.
        metadata: facts written inside the file, e.g. `license`.
    """

    @property
    def batch(self) -> int | None: ...  # noqa: D102

    @property
    def size(self) -> tuple[int, int] | None: ...  # noqa: D102

    @property
    def outputs(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def metadata(self) -> dict[str, str]: ...  # noqa: D102

    def run(self, images: Tensor, names: Sequence[str]) -> list[Tensor]:
        """The named outputs, float32 on the CPU, for `images` [b, 3, H, W], float32 on the CPU, contiguous."""
        ...


class FileEncoder(Encoder):
    """A file of another runtime as (frozen) encoder.

    A file that `eyespot export` wrote, or that follows the same contract, needs no options: input [batch, 3, H, W] RGB
    in [0, 1]; outputs `summary` [batch, C] and `patches` [batch, D, h, w]. For any other file they name what is what.

    Args:
        kind: prefix of the spec.
        path: the file.
        session: the file, opened.
        summary: name of the summary output, or "mean" for the spatial mean of the patches.
        patches: name of the dense output, a map [batch, D, h, w] or tokens [batch, N, D], row-major, on a grid with the
            aspect of the picture.
        logits: name of the output of a class head, which then fills `Features.logits`; True for the one that is called
            `logits` or `log_probs`, whichever there is. False computes none. Log-probabilities are logits up to a
            constant per picture: their softmax is the same at any temperature. Of probabilities the logarithm is taken,
            and a warning says so.
        prefix: leading tokens that are not patches, if the dense output is tokens.
        mean, std: normalisation the graph expects and does not do itself, three numbers each.
        size: (height, width), or the side of a square, to use when the file leaves the size open.
        license: licence of the weights; the file's own metadata entry `license` if not given.

    Attributes:
        facts: what `eyespot export` noted in the file: the model, its outputs, classes and more; see `deploy.graph`.

    Raises:
        ValueError: the named outputs do not exist or have other shapes.
    """

    def __init__(
        self,
        kind: str,
        path: str | Path,
        session: Session,
        *,
        summary: str = "summary",
        patches: str = "patches",
        logits: str | bool = False,
        prefix: int = 0,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        size: int | tuple[int, int] | None = None,
        license: str | None = None,
    ) -> None:
        super().__init__(mean, std)
        self.path = Path(path)
        # with its weights beside it: OpenVINO's .bin, the .data of a large ONNX file
        beside = (self.path.with_suffix(".bin"), self.path.with_name(f"{self.path.name}.data"))
        self.files = [self.path, *(file for file in beside if file.is_file())]
        self.name = f"{kind}/{self.path}"
        self.session = session
        self.outputs = (str(summary), str(patches))  # a spec's "?patches=495" arrives as a number
        self.logits = self._class_output() if logits is True else str(logits) if logits is not False else None
        self.prefix = prefix
        self._are_probabilities = False
        self.facts: dict[str, Any] = json.loads(session.metadata.get("eyespot", "{}"))
        self.license = license or session.metadata.get("license")
        self.lineage = self.facts.get("teachers", [])
        self._check_names()
        self.native_size = session.size
        self.default_size = session.size or ((size, size) if isinstance(size, int) else size) or (224, 224)
        self._read_shapes()

    @property
    def _wanted(self) -> tuple[str, ...]:
        return (*self.outputs, *([] if self.logits is None else [self.logits]))

    def export_form(self) -> Encoder:
        """See `Encoder.export_form`: there is none."""
        raise ValueError(f"{self.name} is a file of another runtime already; export the model it was made from")

    def with_new_head(self, num_classes: int) -> Encoder | None:
        """See `Encoder.with_new_head`: a file's head, or that it has none, stays."""
        raise ValueError(
            f"{self.name} tells {self.num_classes} classes apart, not {num_classes}, and its head stays as it is"
        )

    def _check_names(self) -> None:
        missing = [name for name in self._wanted if name not in (*self.session.outputs, "mean")]
        if missing:
            raise ValueError(
                f"{self.name} has no output {' or '.join(missing)}; it has {', '.join(self.session.outputs)}. Name "
                f"them: {self.name}?patches=NAME&summary=NAME (summary=mean takes the spatial mean of the patches)"
            )

    def _class_output(self) -> str:
        for name in CLASS_OUTPUTS:
            if name in self.session.outputs:
                return name
        raise ValueError(
            f"{self.name} has no output {' or '.join(CLASS_OUTPUTS)}, so it is no classifier; it has "
            f"{', '.join(self.session.outputs)}. If one of them is a class head's, name it: {self.name}?logits=NAME"
        )

    def _read_shapes(self) -> None:
        """Widths and stride, from one run on a grey picture."""
        height, width = self.default_size
        features = self._encode(torch.full((1, 3, height, width), 0.5))
        self.summary_dim = features.summary.shape[1]
        self.patch_dim = features.patches.shape[1]
        self.stride = -(-height // features.grid[0])
        if features.logits is not None:
            self.num_classes = features.logits.shape[1]
            self._are_probabilities = self._gives_probabilities((height, width))
            names = self.facts.get("class_names") if self.logits == "logits" else None
            self.class_names = checked_names(names, self.num_classes, self.name)

    def _gives_probabilities(self, size: tuple[int, int]) -> bool:
        """Whether the class output has been through a softmax already: another one would make every answer unsure."""
        noise = torch.rand(3, 3, *size, generator=torch.Generator().manual_seed(0))
        noise[0] = noise[0].round()
        logits = self._encode(noise).logits
        assert logits is not None
        found = logits.shape[1] > 1 and bool((logits >= 0).all() and ((logits.sum(1) - 1).abs() < 1e-2).all())
        if found:
            warnings.warn(
                f"{self.name}: output {self.logits} holds probabilities (they sum to 1); their logarithm is taken as "
                "logits. If the file has an output before its softmax, that is more exact: ?logits=NAME",
                stacklevel=2,
            )
        return found

    def _encode(self, images: Tensor) -> Features:
        found = self._run(images.detach().float().cpu())
        patches = self._as_map(found[self.outputs[1]], images.shape[2] / images.shape[3])
        summary = patches.mean((2, 3)) if self.outputs[0] == "mean" else found[self.outputs[0]].flatten(1)
        logits = None if self.logits is None else found[self.logits].flatten(1)
        if logits is not None and self._are_probabilities:
            logits = logits.clamp(min=torch.finfo(torch.float32).tiny).log()
        return Features(summary, patches, logits).to(images.device)

    def _run(self, images: Tensor) -> dict[str, Tensor]:
        """The named outputs; few pictures at a time, and in the file's own batch size if it has one."""
        names = [name for name in dict.fromkeys(self._wanted) if name != "mean"]
        runs = [self._run_piece(piece, names) for piece in images.split(self.session.batch or MOST_AT_ONCE)]
        return {name: torch.cat(column) for name, column in zip(names, zip(*runs, strict=True), strict=True)}

    def _run_piece(self, piece: Tensor, names: list[str]) -> list[Tensor]:
        lacking = (self.session.batch or 0) - len(piece)
        filled = F.pad(piece, (0, 0) * 3 + (0, lacking)) if lacking > 0 else piece
        return [value[: len(piece)] for value in self.session.run(filled.contiguous(), names)]

    def _as_map(self, patches: Tensor, aspect: float) -> Tensor:
        if patches.ndim == 4:
            return patches
        tokens = patches[:, self.prefix :]
        count = tokens.shape[1]
        grid = (round((count * aspect) ** 0.5), round((count / aspect) ** 0.5))
        if patches.ndim != 3 or grid[0] * grid[1] != count:
            raise ValueError(
                f"{self.name}: output {self.outputs[1]} of shape {tuple(patches.shape)} is neither a map "
                f"[batch, D, h, w] nor {self.prefix} prefix tokens and a grid like the picture; set prefix=K"
            )
        return tokens.unflatten(1, grid).permute(0, 3, 1, 2)


def existing(path: str | Path, kind: str) -> Path:
    """The path, if there is a file (or, for formats that are folders, a folder).

    Raises:
        FileNotFoundError: there is none.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no {kind} file at {path} (an absolute path is written {kind}//path/to/file)")
    return path


def open_size(kind: str, shape: Sequence[Any], path: Path) -> tuple[int | None, tuple[int, int] | None]:
    """Batch and size that an input of this shape takes; what is no number is open.

    Raises:
        ValueError: the input does not take pictures [batch, 3, H, W].
    """
    if len(shape) != 4 or (isinstance(shape[1], int) and shape[1] != 3):
        raise ValueError(f"{kind}/{path}: the first input must be pictures [batch, 3, H, W], it is {list(shape)}")
    batch, _, height, width = shape
    size = (height, width) if isinstance(height, int) and isinstance(width, int) else None
    return batch if isinstance(batch, int) else None, size
