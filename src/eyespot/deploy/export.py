"""`export`: an encoder into a file for a device, checked before it gets its name."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from eyespot.deploy.calibration import calibration_batches
from eyespot.deploy.check import LEAST_COSINE, LEAST_COSINE_INT8, NumericCheck, numeric_check
from eyespot.deploy.exportable import Exportable
from eyespot.deploy.formats import FORMATS, Format, find_format
from eyespot.deploy.formats.int8 import first_layers
from eyespot.deploy.graph import Graph, exportable, trace
from eyespot.deploy.sensitivity import Layer, fallback, rank_layers
from eyespot.deploy.task_check import TASKS_OF_CHECK, TaskCheck, task_check
from eyespot.encoders import SOURCES, Encoder
from eyespot.encoders.frozen import load_frozen
from eyespot.encoders.runtimes.exported import FileEncoder
from eyespot.outputs import FolderKind, read_facts
from eyespot.specs import suggestion

FACTS_FILE, REFERENCE_FILE = "export.json", "reference.safetensors"
PICTURES_OF_CHECK = 4
PICTURES_OF_RANKING = 8
EXPORT_FOLDER = FolderKind(
    "an export",
    lambda folder: {"format", "eyespot"} <= read_facts(folder / FACTS_FILE).keys(),
    (FACTS_FILE, REFERENCE_FILE, *(name for kind in FORMATS.values() for name in kind.files)),
)
_LIBRARIES = (
    *("torch", "timm", "onnx", "onnxscript", "onnxruntime", "openvino", "nncf", "executorch", "torchao"),
    *("coremltools", "litert-torch", "ai-edge-litert"),
)

Open = Literal["dynamic"]


class ExportError(RuntimeError):
    """The file that was made does not do what the model does, so it was removed."""


@dataclass(frozen=True)
class Int8:
    """How to round to 8 bits.

    Attributes:
        pictures: folders or shards to calibrate on, see `eyespot.data.open_source`; the toybox if None, which knows no
            photographs.
        count: how many of them.
        weights_only: leave activations in float: a quarter of the size, little of the speed.
        keep_float: layers that stay in float, by name; None to find out which are needed.
        target: mean cosine (of summary or patches, the lower) that is aimed at when finding out.
        most: how many layers may stay in float when finding out.
        data: what the task check measures on, see `evaluate`; None leaves the check out.
        tasks: which tasks; by default those of `data`, or k-NN, segmentation and depth.
        limit: at most this many pictures per split in the task check.
        max_loss: points (percent, where a metric is no share) that a task may lose; more is a failure.
    """

    pictures: Sequence[str] | None = None
    count: int = 64
    weights_only: bool = False
    keep_float: Collection[str] | None = None
    target: float = 0.99
    most: int = 8
    data: str | Mapping[str, Any] | None = "toybox"
    tasks: Sequence[str] | None = None
    limit: int | None = None
    max_loss: float = 3.0


@dataclass(frozen=True)
class Exported:
    """A finished export.

    Attributes:
        folder: what was written.
        file: the model in it.
        spec: what `load_encoder` takes; None if the format cannot run on this machine.
        check: the numeric check, None if it could not run here.
        ranking: layers by what int8 costs them, if that was measured.
        keep_float: layers that stayed in float.
        tasks: the task check of an int8 file.
    """

    folder: Path
    file: Path
    spec: str | None
    check: NumericCheck | None
    ranking: list[Layer] = field(default_factory=list)
    keep_float: list[str] = field(default_factory=list)
    tasks: TaskCheck | None = None


def export(
    model: str | Encoder,
    format: str,
    output: str | Path,
    *,
    image_size: int | tuple[int, int] | Open | None = None,
    batch: int | Open = 1,
    layers: Sequence[int] = (),
    space: str | None = None,
    zero_shot: Mapping[str, Any] | None = None,
    int8: Int8 | None = None,
    pictures: Sequence[str] | None = None,
    seed: int = 0,
    say: Callable[[str], None] = print,
) -> Exported:
    """Writes an encoder for a device: the file, what is known about it, and pictures to check it by.

    The folder holds the model, `export.json` (name, licence, hash, shapes, classes, checks, versions) and
    `reference.safetensors` (pictures and what the model says about them, so that any device can be checked). It
    appears only when the file has passed its checks: the numeric one (`check.numeric_check`) and, for int8, the one
    on tasks.

    Args:
        model: an encoder or its spec.
        format: one of `formats.FORMATS`.
        output: the folder; an export that lies there is replaced as a whole.
        image_size: (height, width) in pixels, or the side of a square; the encoder's default size if None; "dynamic"
            for any size that the encoder takes.
        batch: how many pictures a run takes; "dynamic" for any number.
        layers: inner blocks or stages as further outputs, see `exportable.Exportable`.
        space: a teacher's space as further outputs, see there.
        zero_shot: `text` (embeddings of class names) and `text_space` of a zero-shot head, see there.
        int8: round to 8 bits; float32 if None.
        pictures: folders or shards for the numeric check; if None those of `int8`, other ones if there are enough,
            or the toybox.
        seed: names every draw of pictures.
        say: called with lines about what is going on.

    Raises:
        ValueError: an unknown format, sizes that encoder or format cannot take, a model that cannot be exported.
        ImportError: the format's libraries are missing; says how to install them.
        ExportError: the file fails a check; nothing is left behind.
        FileExistsError, NotADirectoryError: something else than an export lies at `output`; see
            `FolderKind.check_replaceable`.
    """
    kind = find_format(format)
    EXPORT_FOLDER.check_replaceable(output)
    encoder = load_frozen(model) if isinstance(model, str) else model
    size = _size(encoder, image_size)
    count = None if batch == "dynamic" else int(batch)
    if (size is None or count is None) and not kind.open_sizes:
        raise ValueError(f"{kind.name} files have a fixed size and batch; give --image-size and --batch as numbers")
    if int8 is not None:
        _ = kind.write_int8  # refused before anything is computed
    module = exportable(encoder, layers, space, **(zero_shot or {}))
    graph = trace(module, batch=count, size=size)
    _refuse_unknown(graph, (int8 and int8.keep_float) or ())
    looked_at = pictures or (int8.pictures if int8 else None)
    batches = [
        calibration_batches(looked_at, batch, batch, size, seed + 1)[0] for batch, size in _shapes(encoder, graph)
    ]
    with EXPORT_FOLDER.replace(output) as folder:
        made = _Making(kind, encoder, module, graph, folder / kind.file, batches, say)
        result = made.float32() if int8 is None else made.int8(int8, seed)
        _write_reference(module, graph, batches[0], folder / REFERENCE_FILE)
        facts = json.loads(graph.facts["eyespot"]) | _report(kind, result, int8)
        (folder / FACTS_FILE).write_text(json.dumps(facts, indent=2))
    file = Path(output) / kind.file
    spec = f"{kind.name}/{file}" if kind.runs_here else None
    return Exported(Path(output), file, spec, **result)


class _Making:
    """One export on its way."""

    def __init__(
        self,
        kind: Format,
        encoder: Encoder,
        module: Exportable,
        graph: Graph,
        file: Path,
        batches: Sequence[Tensor],
        say: Callable[[str], None],
    ) -> None:
        self.kind, self.encoder, self.module, self.graph = kind, encoder, module, graph
        self.file, self.batches, self.say = file, batches, say

    def float32(self) -> dict[str, Any]:
        self.say(f"writing {self.file.name}")
        self.kind.write(self.graph, self.file)
        if not self.kind.runs_here:
            self.say(f"{self.kind.name} files do not run on this machine: not checked; see {REFERENCE_FILE}")
            return {"check": None}
        check = self._checked(LEAST_COSINE)
        _require(check)
        return {"check": check}

    def int8(self, how: Int8, seed: int) -> dict[str, Any]:
        shape = self.batches[0].shape
        calibration = calibration_batches(how.pictures, how.count, shape[0], (shape[2], shape[3]), seed)
        ranking: list[Layer] = []
        nearness: dict[frozenset[str], float] = {}  # of the last conversion only: there is one file

        def convert(keep_float: Collection[str]) -> float:
            if frozenset(keep_float) in nearness:
                return nearness[frozenset(keep_float)]
            nearness.clear()
            self.say(
                f"writing {self.file.name} in int8" + (f", {len(keep_float)} layers in float" if keep_float else "")
            )
            self.kind.write_int8(self.graph, self.file, calibration, keep_float, how.weights_only)
            nearness[frozenset(keep_float)] = self._checked(LEAST_COSINE_INT8).mean_cosine
            return nearness[frozenset(keep_float)]

        if how.keep_float is not None:
            kept = list(how.keep_float)
            convert(kept)
        elif (reached := convert(())) >= how.target:
            kept = []
        else:
            self.say(f"mean cosine {reached:.4f} is below {how.target}: measuring which layers int8 hurts")
            ranking = rank_layers(self.graph, calibration[: max(1, PICTURES_OF_RANKING // shape[0])])
            in_float_already = first_layers(self.graph)
            candidates = [layer for layer in ranking if layer.name not in in_float_already]
            kept = fallback(convert, candidates, how.target, how.most)
        check = self._checked(LEAST_COSINE_INT8)
        _require(check)
        return {"check": check, "ranking": ranking, "keep_float": kept, "tasks": self._task_check(how, seed)}

    def _checked(self, least_cosine: float) -> NumericCheck:
        return numeric_check(self.module, self._loaded().session, self.graph.names, self.batches, least_cosine)

    def _loaded(self) -> FileEncoder:
        encoder = SOURCES[self.kind.name].create(str(self.file), logits=self.encoder.num_classes > 0).eval()
        assert isinstance(encoder, FileEncoder)
        return encoder

    def _task_check(self, how: Int8, seed: int) -> TaskCheck | None:
        if how.data is None:
            return None
        tasks = how.tasks or (list(how.data) if isinstance(how.data, Mapping) else TASKS_OF_CHECK)
        self.say(f"measuring {', '.join(tasks)} before and after")
        size = self.graph.size or self.encoder.default_size
        check = task_check(self.encoder, self._loaded(), how.data, tasks, size, how.limit, seed)
        if not check.passed(how.max_loss):
            raise ExportError(
                f"the int8 file loses more than {how.max_loss} on a task and was removed; keep more layers in float, "
                f"calibrate on pictures like those of use, or allow more (max_loss):\n{check.to_markdown()}"
            )
        return check


def _size(encoder: Encoder, wanted: int | tuple[int, int] | Open | None) -> tuple[int, int] | None:
    if wanted == "dynamic":
        return None
    size = encoder.default_size if wanted is None else (wanted, wanted) if isinstance(wanted, int) else wanted
    assert not isinstance(size, str)
    return size


def _shapes(encoder: Encoder, graph: Graph) -> list[tuple[int, tuple[int, int]]]:
    """The shapes to check at. What is open is checked at three sizes, none of which was traced."""
    traced = tuple(graph.example().shape[2:])
    stride, (height, width) = graph.stride, encoder.default_size
    wanted = ((height, width), (height, width - 2 * stride), (height + 3 * stride, width + stride))
    sizes = [graph.size] if graph.size else [size for size in wanted if size != traced and min(size) > 0]
    return [(count, size) for size in sizes for count in ([graph.batch] if graph.batch else [1, 3])]


def _refuse_unknown(graph: Graph, keep_float: Collection[str]) -> None:
    known = sorted(set(graph.layers.values()))
    for name in keep_float:
        if name not in known:
            raise ValueError(f"no layer {name!r} to keep in float; {suggestion(name, known)}")


def _require(check: NumericCheck) -> None:
    if check.passed:
        return
    lines = "\n".join(
        f"  {entry.output} at {'x'.join(map(str, entry.shape))}: cosine {entry.cosine:.6f}, "
        f"max difference {entry.max_difference:.3g} of {entry.scale:.3g}, answers {entry.answer:.3f} times as strongly"
        for entry in check.agreements
        if not entry.passed(check.least_cosine)
    )
    raise ExportError(
        f"the file does not do what the model does (cosine {check.least_cosine} wanted), so it was removed:\n{lines}"
    )


@torch.no_grad()
def _write_reference(module: Exportable, graph: Graph, images: Tensor, file: Path) -> None:
    """Pictures as they are shown to the model, in 8 bits, and its outputs in float32."""
    bytes_ = (images * 255).round().to(torch.uint8)
    outputs = dict(zip(graph.names, module(bytes_.float() / 255), strict=True))
    save_file({"images": bytes_, **{name: value.contiguous() for name, value in outputs.items()}}, file)


def _report(kind: Format, result: Mapping[str, Any], int8: Int8 | None) -> dict[str, Any]:
    check, tasks = result["check"], result.get("tasks")
    return {
        "format": kind.name,
        "file": kind.file,
        "precision": "float32" if int8 is None else "int8 weights" if int8.weights_only else "int8",
        "check": check.facts() if check else "not run: the format does not run on the machine that wrote it",
        "int8": int8
        and {
            "pictures": list(int8.pictures) if int8.pictures else "toybox",
            "count": int8.count,
            "keep_float": result["keep_float"],
            "ranking": [asdict(layer) for layer in result["ranking"]],
            "tasks": json.loads(tasks.to_json()) if tasks else None,
        },
        "versions": {"python": sys.version.split()[0], **_versions()},
    }


def _versions() -> dict[str, str]:
    found = {}
    for library in _LIBRARIES:
        try:
            found[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
