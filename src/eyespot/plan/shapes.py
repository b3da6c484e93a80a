"""Models without numbers: what they compute and how much memory that takes is seen, and nothing is computed.

Tensors here are PyTorch's fake tensors: they know shape, type and device, and every operation on them gives the shape
of its result. So a model of two billion parameters is looked at in a second, on a laptop, without its weights.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from eyespot.encoders import Encoder, load_encoder
from eyespot.encoders.kinds import build_encoder
from eyespot.encoders.saved import CONFIG_FILE, find_model_folder
from eyespot.features import Features
from eyespot.pictures import ImageSize
from eyespot.plan.onnx_flops import onnx_forward_flops, onnx_parameters
from eyespot.specs import read_options, write_options

LIBRARY_SOURCES = ("timm", "eupe", "open_clip")  # architectures come with a library; only their weights are fetched
OTHER_RUNTIMES = ("openvino", "executorch", "litert")


class UnseenModelError(ValueError):
    """A model that cannot be looked at without fetching something, or at all."""


@dataclass(frozen=True)
class PlannedModel:
    """A model as the plan sees it.

    Attributes:
        spec: as the configuration names it.
        encoder: with fake tensors, or a `StandIn` for a file of another runtime.
        weight_bytes: of its parameters and buffers in memory.
        parameters: how many.
        file_flops: for files, operations of one picture by (height, width); None where torch sees the operations.
    """

    spec: str
    encoder: Encoder
    weight_bytes: int
    parameters: int
    file_flops: Callable[[ImageSize], int] | None = None

    def flops_in_file(self, size: int | None) -> int:
        """Operations of one picture that torch does not see, at the wanted side (None: the default)."""
        return self.file_flops(self.encoder.fitting_size(size)) if self.file_flops else 0


class StandIn(Encoder):
    """Gives features of the right shape and computes nothing.

    Args:
        model: the encoder that it stands for.
    """

    def __init__(self, model: Encoder) -> None:
        super().__init__()
        self.name, self.stride = model.name, model.stride
        self.summary_dim, self.patch_dim = model.summary_dim, model.patch_dim
        self.native_size, self.default_size = model.native_size, model.default_size

    def _check_range(self, images: Tensor) -> None:
        """Fake pictures have no range."""

    def _encode(self, images: Tensor) -> Features:
        count, _, height, width = images.shape
        grid = (-(-height // self.stride), -(-width // self.stride))
        return Features(images.new_empty(count, self.summary_dim), images.new_empty(count, self.patch_dim, *grid))


class ShapeWorld:
    """All models of a plan, each looked up once, in one world of fake tensors.

    Args:
        stand_ins: spec -> the spec of a model of the same shape to look at in its place.

    Attributes:
        mode: the world: tensors made inside `with world.mode` are fake.
    """

    def __init__(self, stand_ins: Mapping[str, str] | None = None) -> None:
        self.mode = FakeTensorMode()
        self._stand_ins = dict(stand_ins or {})
        self._known: dict[str, PlannedModel] = {}

    def teacher(self, spec: str) -> PlannedModel:
        """The model that `spec` names, to be looked at; the same one for the same spec.

        Raises:
            UnseenModelError: it is not on this machine; says how to go on.
            ValueError, FileNotFoundError: there is no such model.
        """
        if spec not in self._known:
            self._known[spec] = self.student(spec)
        return self._known[spec]

    def student(self, spec: str) -> PlannedModel:
        """A copy of its own of the model, to be trained; see `teacher`."""
        model = _build(self._stand_ins.get(spec, spec))
        tensors = [*model.parameters(), *model.buffers()]
        weight_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        if model.files:  # of ONNX: files of other runtimes are refused in `_build`
            file = model.files[0]
            weight_bytes = sum(part.stat().st_size for part in model.files)
            flops = partial(onnx_forward_flops, file)
            return PlannedModel(spec, self._faked(StandIn(model)), weight_bytes, onnx_parameters(file), flops)
        return PlannedModel(spec, self._faked(model), weight_bytes, parameters)

    def _faked(self, model: Encoder) -> Encoder:
        with self.mode:
            model._apply(_fake)
        model._check_range = _nothing_to_check  # type: ignore[method-assign]
        return model


def _fake(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cpu")


def _nothing_to_check(images: Tensor) -> None:
    """Fake pictures have no range."""


def _build(spec: str) -> Encoder:
    """The model with random or no numbers, without fetching anything."""
    prefix, _, rest = spec.partition("?")[0].partition("/")
    if prefix in LIBRARY_SOURCES:
        with torch.device("meta"):
            return load_encoder(_without_weights(spec))
    if prefix == "run":
        return _build_saved(rest)
    if prefix in OTHER_RUNTIMES:
        raise UnseenModelError(_unseen(spec, "what a file of this runtime computes is not visible"))
    if prefix == "hf":
        return _from_local_folder(spec, _local_hub_folder(spec, rest))
    if prefix == "torchhub" and not rest.startswith(("/", ".", "~")):
        raise UnseenModelError(_unseen(spec, "its code would have to be fetched"))
    return load_encoder(spec)


def _without_weights(spec: str) -> str:
    path, _, query = spec.partition("?")
    options = {key: value for key, value in read_options(query).items() if key != "weights"}
    return f"{path}?{write_options({**options, 'pretrained': False})}"


def _from_local_folder(spec: str, folder: Path) -> Encoder:
    query = spec.partition("?")[2]
    local = _without_weights(f"hf/{folder}" + (f"?{query}" if query else ""))
    try:
        return load_encoder(local)
    except (ValueError, ImportError) as error:
        raise UnseenModelError(_unseen(spec, str(error))) from error


def _local_hub_folder(spec: str, rest: str) -> Path:
    """The model's folder, if it is one or lies in the hub's cache."""
    if Path(rest).is_dir():
        return Path(rest)
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(rest, local_files_only=True, allow_patterns=["config.json"]))
    except Exception as error:  # the hub's client has many
        raise UnseenModelError(_unseen(spec, "it is not on this machine, and a plan fetches nothing")) from error


def _build_saved(folder: str) -> Encoder:
    """A saved model, from the spec that it was first built from, or by its own class."""
    config = json.loads((find_model_folder(folder) / CONFIG_FILE).read_text(encoding="utf-8"))
    return build_encoder(config) if "class" in config["eyespot"] else _build(config["eyespot"]["spec"])


def _unseen(spec: str, reason: str) -> str:
    return (
        f"{spec} cannot be looked at: {reason}. Name a model of the same shape to plan with: "
        f"--stand-in {spec}=timm/NAME"
    )
