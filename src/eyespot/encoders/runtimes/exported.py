"""Files of other runtimes as encoders: what all formats share. Each format brings a `Session`."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from eyespot.encoders.base import Encoder, checked_names
from eyespot.encoders.runtimes.inputs import PictureInput
from eyespot.encoders.runtimes.stride import find_stride
from eyespot.features import Features

CLASS_OUTPUTS = ("logits", "log_probs")
"""Names under which files give what their class head says."""

MOST_AT_ONCE = 8  # runtimes keep the memory of the largest batch they have seen: gigabytes for 64 pictures


class Session(Protocol):
    """A file, loaded by its runtime and ready to run.

    Attributes:
        taken: how it takes pictures.
        outputs: names of what it can give.
        metadata: facts written inside the file, e.g. `license`.
        files: those that hold its weights, the file itself first.
    """

    @property
    def taken(self) -> PictureInput: ...  # noqa: D102

    @property
    def outputs(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def metadata(self) -> dict[str, str]: ...  # noqa: D102

    @property
    def files(self) -> Sequence[Path]: ...  # noqa: D102

    def run(self, images: Tensor, names: Sequence[str]) -> list[Tensor]:
        """The named outputs, float32 on the CPU, for `images` [b, 3, H, W], float32 on the CPU.

        Raises:
            ValueError: an output holds no floats.
        """
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
        patches: name of the dense output, a map [batch, D, h, w] or [batch, h, w, D] (told apart by the picture's
            aspect; the first if both fit), or tokens [batch, N, D], row-major, on a grid with that aspect.
        logits: name of the output of a class head, which then fills `Features.logits`; True for the one that is called
            `logits` or `log_probs`, whichever there is. False computes none. Log-probabilities are logits up to a
            constant per picture: their softmax is the same at any temperature. Of probabilities the logarithm is taken,
            and a warning says so.
        prefix: leading tokens that are not patches, if the dense output is tokens.
        mean, std: normalisation the graph expects and does not do itself, three numbers each. Not for graphs that take
            uint8, levels from 0 to 255.
        size: (height, width), or the side of a square, to use when the file leaves the size open. A file that fixes
            one of them takes this size only, else a square.
        license: licence of the weights; the file's own metadata entry `license` if not given.

    Attributes:
        facts: what `eyespot export` noted in the file: the model, its outputs, classes and more; see `deploy.graph`.

    Raises:
        ValueError: the named outputs do not exist or have other types or shapes, or a size that is no multiple of the
            stride.
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
        self._stamps = {file: _stamp(file) for file in self._all_files(session)}
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
        if session.taken.takes_levels and (tuple(mean), tuple(std)) != ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)):
            raise ValueError(
                f"{self.name} takes uint8, levels from 0 to 255, and must normalise for itself: leave mean and std out"
            )
        self._read_shapes((size, size) if isinstance(size, int) else size)

    def _all_files(self, session: Session) -> list[Path]:
        # those beside it whatever the graph says, since older versions took them for parts of it
        beside = (self.path.with_suffix(".bin"), self.path.with_name(f"{self.path.name}.data"))
        return list(dict.fromkeys([self.path, *(file for file in beside if file.is_file()), *session.files]))

    @property
    def files(self) -> list[Path]:  # type: ignore[override]
        """See `Encoder.files`.

        Raises:
            ValueError: one of them is another than when it was loaded, so that it does not say what this encoder is.
        """
        for file, stamp in self._stamps.items():
            if _stamp(file) != stamp:
                raise ValueError(f"{file} has changed since {self.name} was loaded; load it again")
        return list(self._stamps)

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

    def _read_shapes(self, size: tuple[int, int] | None) -> None:
        """Widths, stride and sizes, from runs on grey pictures.

        Args:
            size: the user's.
        """
        sides = self.session.taken.sides
        asked = size or next(((side, side) for side in sides if side is not None), (224, 224))
        height, width = (fixed or wanted for fixed, wanted in zip(sides, asked, strict=True))
        if size is not None and (height, width) != tuple(size):
            raise ValueError(f"{self.name} takes pictures of {_sides_in_words(sides)}, not of size={size[0]},{size[1]}")
        features = self._look_at_grey(height, width)
        self.summary_dim, self.patch_dim = features.summary.shape[1], features.patches.shape[1]
        self.default_size = (height, width)
        if any(sides):  # a side that is open beside a fixed one stays as it is, too: an encoder has one size or all
            self.native_size, self.stride = (height, width), -(-height // features.grid[0])
        else:
            self.stride = find_stride(self._grid_of, (height, width), features.grid, self.name)
            self.default_size = self.fitting_size(self.default_size)
            if size is not None and self.default_size != tuple(size):
                raise ValueError(f"{self.name} {self.size_error(*size)}; state that as size=")
        if features.logits is not None:
            self.num_classes = features.logits.shape[1]
            self._are_probabilities = self._gives_probabilities(self.default_size)
            names = self.facts.get("class_names") if self.logits == "logits" else None
            self.class_names = checked_names(names, self.num_classes, self.name)

    def _look_at_grey(self, height: int, width: int) -> Features:
        """What it makes of a picture, with its own errors in words of ours."""
        try:
            return self._encode(torch.full((1, 3, height, width), 0.5))
        except ValueError:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise ValueError(
                f"{self.name} cannot take a {height}x{width} picture ({reason}); if it takes one size only, state it: "
                "size=H,W"
            ) from error

    def _grid_of(self, height: int, width: int) -> tuple[int, int] | None:
        """The grid of patches of a picture; None if it cannot be taken."""
        try:
            return self._look_at_grey(height, width).grid
        except ValueError:
            return None

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
        patches = self._as_map(found[self.outputs[1]], images.shape[2], images.shape[3])
        summary = patches.mean((2, 3)) if self.outputs[0] == "mean" else self._as_vector(found, self.outputs[0])
        logits = None if self.logits is None else self._as_vector(found, self.logits)
        if logits is not None and self._are_probabilities:
            logits = logits.clamp(min=torch.finfo(torch.float32).tiny).log()
        return Features(summary, patches, logits).to(images.device)

    def _as_vector(self, found: Mapping[str, Tensor], name: str) -> Tensor:
        """[B, C] from that, or from [B, C, 1, 1], [B, 1, C] and the like."""
        value = found[name]
        if value.ndim < 2 or sum(side > 1 for side in value.shape[1:]) > 1:
            raise ValueError(
                f"{self.name}: output {name} of shape {tuple(value.shape)} is not one vector per picture; name another "
                "one" + (" (summary=mean takes the mean of the patches)" if name == self.outputs[0] else "")
            )
        return value.flatten(1)

    def _run(self, images: Tensor) -> dict[str, Tensor]:
        """The named outputs; few pictures at a time, and in the file's own batch size if it has one."""
        names = [name for name in dict.fromkeys(self._wanted) if name != "mean"]
        runs = [self._run_piece(piece, names) for piece in images.split(self.session.taken.batch or MOST_AT_ONCE)]
        return {name: torch.cat(column) for name, column in zip(names, zip(*runs, strict=True), strict=True)}

    def _run_piece(self, piece: Tensor, names: list[str]) -> list[Tensor]:
        lacking = (self.session.taken.batch or 0) - len(piece)
        filled = F.pad(piece, (0, 0) * 3 + (0, lacking)) if lacking > 0 else piece
        try:
            values = self.session.run(filled.contiguous(), names)
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from error
        for name, value in zip(names, values, strict=True):
            if value.ndim == 0 or len(value) != len(filled):
                raise ValueError(
                    f"{self.name}: output {name} of shape {tuple(value.shape)} has no row for each of {len(filled)} "
                    "pictures; export it with a batch dimension"
                )
        return [value[: len(piece)] for value in values]

    def _as_map(self, patches: Tensor, height: int, width: int) -> Tensor:
        """[B, D, h, w] from that, from [B, h, w, D] or from tokens [B, N, D], for pictures of this size."""
        if patches.ndim == 4 and _is_grid(patches.shape[2:], height, width):
            return patches
        if patches.ndim == 4 and _is_grid(patches.shape[1:3], height, width):
            return patches.permute(0, 3, 1, 2)
        if patches.ndim == 3:
            tokens = patches[:, self.prefix :]
            count, aspect = tokens.shape[1], height / width
            grid = (round((count * aspect) ** 0.5), round((count / aspect) ** 0.5))
            if count and grid[0] * grid[1] == count:
                return tokens.unflatten(1, grid).permute(0, 3, 1, 2)
        raise ValueError(
            f"{self.name}: output {self.outputs[1]} of shape {tuple(patches.shape)} for a {height}x{width} picture is "
            f"neither a map [batch, D, h, w] or [batch, h, w, D] nor {self.prefix} prefix tokens and a grid like the "
            "picture; set prefix=K"
        )


def existing(path: str | Path, kind: str) -> Path:
    """The path, if there is a file (or, for formats that are folders, a folder).

    Raises:
        FileNotFoundError: there is none.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no {kind} file at {path} (an absolute path is written {kind}//path/to/file)")
    return path


def _is_grid(grid: Sequence[int], height: int, width: int) -> bool:
    """Whether rows and columns have the aspect of a picture, but for a row or column that is cut off."""
    rows, columns = grid
    return abs(rows * width - columns * height) < max(height, width)


def _sides_in_words(sides: tuple[int | None, int | None]) -> str:
    return "x".join("any" if side is None else str(side) for side in sides)


def _stamp(file: Path) -> tuple[int, int]:
    """What changes when a file is written anew."""
    about = file.stat()
    return about.st_size, about.st_mtime_ns
