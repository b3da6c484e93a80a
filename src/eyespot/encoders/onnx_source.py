"""`onnx/FILE`: any ONNX graph that turns pictures into features, run by ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eyespot.encoders.base import Encoder
from eyespot.features import Features

MOST_AT_ONCE = 8  # ONNX Runtime keeps the memory of the largest batch it has seen: gigabytes for 64 pictures


class OnnxEncoder(Encoder):
    """An ONNX file as (frozen) encoder.

    A file that follows our contract needs no options: input [batch, 3, H, W] RGB in [0, 1]; outputs `summary`
    [batch, C] and `patches` [batch, D, h, w]. For any other file the options name what is what.

    Args:
        path: the file.
        summary: name of the summary output, or "mean" for the spatial mean of the patches.
        patches: name of the dense output, a map [batch, D, h, w] or tokens [batch, N, D], row-major, on a grid with the
            aspect of the picture.
        prefix: leading tokens that are not patches, if the dense output is tokens.
        mean, std: normalisation the graph expects and does not do itself, three numbers each.
        size: (height, width), or the side of a square, to use when the file leaves the size open.
        license: licence of the weights; the file's own metadata entry `license` if not given.

    Raises:
        ImportError: onnxruntime is missing.
        FileNotFoundError: no such file.
        ValueError: the file is damaged, or the named outputs do not exist or have other shapes.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        summary: str = "summary",
        patches: str = "patches",
        prefix: int = 0,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        size: int | tuple[int, int] | None = None,
        license: str | None = None,
    ) -> None:
        super().__init__(mean, std)
        self.path = Path(path)
        self.name = f"onnx/{self.path}"
        self.outputs = (str(summary), str(patches))  # a spec's "?patches=495" arrives as a number
        self.prefix = prefix
        self.session = _session(self.path)
        self.license = license or self.session.get_modelmeta().custom_metadata_map.get("license")
        self._check_names()
        self.native_size = self._fixed_size()
        self.default_size = self.native_size or ((size, size) if isinstance(size, int) else size) or (224, 224)
        self._read_shapes()

    def _check_names(self) -> None:
        known = [output.name for output in self.session.get_outputs()]
        wanted = [name for name in self.outputs if name != "mean"]
        missing = [name for name in wanted if name not in known]
        if missing:
            raise ValueError(
                f"{self.name} has no output {' or '.join(missing)}; it has {', '.join(known)}. Name them: "
                f"{self.name}?patches=NAME&summary=NAME (summary=mean takes the spatial mean of the patches)"
            )

    def _fixed_size(self) -> tuple[int, int] | None:
        shape = self.session.get_inputs()[0].shape
        if len(shape) != 4 or (isinstance(shape[1], int) and shape[1] != 3):
            raise ValueError(f"{self.name}: the first input must be pictures [batch, 3, H, W], it is {shape}")
        if isinstance(shape[0], int) and shape[0] != 1:
            raise ValueError(f"{self.name} takes batches of {shape[0]} only; export it with an open batch size")
        height, width = shape[2:]
        return (height, width) if isinstance(height, int) and isinstance(width, int) else None

    def _read_shapes(self) -> None:
        """Widths and stride, from one run on a grey picture."""
        height, width = self.default_size
        features = self._encode(torch.full((1, 3, height, width), 0.5))
        self.summary_dim = features.summary.shape[1]
        self.patch_dim = features.patches.shape[1]
        self.stride = -(-height // features.grid[0])

    def _encode(self, images: Tensor) -> Features:
        found = self._run(images.detach().float().cpu())
        patches = self._as_map(found[self.outputs[1]], images.shape[2] / images.shape[3])
        summary = patches.mean((2, 3)) if self.outputs[0] == "mean" else found[self.outputs[0]].flatten(1)
        return Features(summary, patches).to(images.device)

    def _run(self, images: Tensor) -> dict[str, Tensor]:
        """The named outputs; few pictures at a time, and one by one if the file was made for batches of one."""
        entry = self.session.get_inputs()[0]
        names = [name for name in dict.fromkeys(self.outputs) if name != "mean"]
        pieces = images.split(1 if entry.shape[0] == 1 else MOST_AT_ONCE)
        runs = [self.session.run(names, {entry.name: piece.numpy()}) for piece in pieces]
        columns = [torch.cat([torch.from_numpy(value) for value in column]) for column in zip(*runs, strict=True)]
        return dict(zip(names, columns, strict=True))

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


def _session(path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError("onnx/ encoders need ONNX Runtime: pip install 'eyespot[onnx]'") from error
    if not path.is_file():
        raise FileNotFoundError(f"no ONNX file at {path} (an absolute path is written onnx//path/to/file.onnx)")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ValueError(f"{path} cannot be read as an ONNX graph: {error}") from error
