"""`run/FOLDER`: models that eyespot saved, in timm's own hub layout, and the writer of such folders.

A model folder holds `model.safetensors` (the backbone, and its class head if it has one), `config.json` (what timm
needs to build it, plus our own section) and, for what was distilled, `adapters.safetensors`: the adapter heads and
standardizers into every teacher's space. What timm could not build (all of a multi-task model but its stem, say) is in
our own section, see `kinds`; such folders are loaded by us alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from eyespot.encoders.base import Encoder
from eyespot.encoders.kinds import build_encoder, config_of
from eyespot.encoders.multitask.path_encoder import path_of
from eyespot.encoders.weights import load_strictly, read_weights
from eyespot.files import read_json, understood
from eyespot.outputs import FolderKind, read_facts

MODEL_FILE, CONFIG_FILE, ADAPTER_FILE = "model.safetensors", "config.json", "adapters.safetensors"
CARD_FILE = "README.md"


@dataclass(frozen=True)
class _Facts:
    """What config.json says of a model in our section, beside how it is built."""

    spec: str
    class_names: list[str] | None = None
    license: str | None = None
    teachers: list[Any] = field(default_factory=list)


_FACTS = TypeAdapter(_Facts)


def _is_saved_model(folder: Path) -> bool:
    return "eyespot" in read_facts(folder / CONFIG_FILE)


MODEL_FOLDER = FolderKind("a saved model", _is_saved_model, (MODEL_FILE, CONFIG_FILE, ADAPTER_FILE, CARD_FILE))


def save_encoder(
    encoder: Encoder,
    folder: str | Path,
    *,
    license: str | None = None,
    adapters: dict[str, Tensor] | None = None,
    details: dict[str, Any] | None = None,
    card: str | None = None,
) -> Path:
    """Writes an encoder as a model folder, all of it or nothing, with its class head if it has one.

    Args:
        encoder: any whose weights torch sees; see `Encoder.get_config`.
        folder: where to; a model folder of ours is replaced as a whole.
        license: licence tag of the saved weights; the encoder's own if None.
        adapters: tensors of adapter heads and standardizers, by dotted name; those it was loaded with if None.
        details: JSON-able facts to keep in the `eyespot` section of config.json.
        card: text of the folder's README.md.

    Raises:
        ValueError: the encoder has no weights of its own to save (an ONNX file).
        FileExistsError, NotADirectoryError: something else lies there; see `FolderKind.check_replaceable`.
    """
    # Cloned, because safetensors refuses tensors that share memory (tied weights).
    state = {name: value.detach().cpu().contiguous().clone() for name, value in encoder.saved_part.state_dict().items()}
    if not state:
        raise ValueError(f"{encoder.name} holds no weights that could be saved")
    config = config_of(encoder, license)
    config["eyespot"] |= details or {}
    folder = Path(folder)
    with MODEL_FOLDER.replace(folder) as temporary, _full_disk_explained(folder):
        save_file(state, temporary / MODEL_FILE, metadata={"format": "pt"})
        (temporary / CONFIG_FILE).write_text(json.dumps(config, indent=2))
        adapters = encoder.adapters if adapters is None else adapters
        if adapters:
            cpu = {name: value.detach().cpu().contiguous() for name, value in adapters.items()}
            save_file(cpu, temporary / ADAPTER_FILE, metadata={"format": "pt"})
        if card:
            (temporary / CARD_FILE).write_text(card)
    return folder


@contextmanager
def _full_disk_explained(folder: Path) -> Iterator[None]:
    """Safetensors tells of a full disk in an error of its own."""
    try:
        yield
    except SafetensorError as error:
        raise OSError(f"cannot write {folder}: {error}; make room and run the same command again") from error


def load_saved_encoder(folder: str | Path, weights: str | Path | None = None, *, path: str | None = None) -> Encoder:
    """Loads a model folder, a run folder (its student) or a stage folder (its model).

    Args:
        folder: see above.
        weights: a file to take the weights from instead.
        path: of a multi-task model only the path of this name ("stem" for its stem), as a plain encoder.

    Raises:
        FileNotFoundError: no model there; says what was looked for.
        ValueError: the weights do not fit the model, or there is no such path.
    """
    place = find_model_folder(folder)
    config = read_json(place / CONFIG_FILE)
    if not isinstance(config, dict) or "eyespot" not in config:
        raise ValueError(f"{place / CONFIG_FILE} was not written by eyespot; load it as timm/local-dir:{place}")
    with understood(place / CONFIG_FILE):
        encoder = build_encoder(config)
        _take_facts(encoder, config["eyespot"])
    file = Path(weights) if weights else place / MODEL_FILE
    load_strictly(encoder.saved_part, read_weights(file), str(file))
    for part in encoder.modules():
        if isinstance(part, Encoder):
            part.made_up = ()  # the file has it all
    encoder.name = f"run/{folder}"
    if (place / ADAPTER_FILE).is_file():
        encoder.adapters = read_weights(place / ADAPTER_FILE)
    return encoder if path is None else path_of(encoder, str(path))  # a spec's "?path=1" arrives as a number


def _take_facts(encoder: Encoder, section: dict[str, Any]) -> None:
    """What our section of config.json says of an encoder beside how it is built."""
    facts = _FACTS.validate_python(section)
    encoder.class_names = facts.class_names
    encoder.license = facts.license
    encoder.origin = facts.spec
    encoder.lineage = facts.teachers


def find_model_folder(folder: str | Path) -> Path:
    """Where in a model, run or stage folder the model lies.

    Raises:
        FileNotFoundError: nowhere.
    """
    folder = Path(folder)
    for place in (folder, folder / "student", folder / "model"):
        if (place / CONFIG_FILE).is_file():
            return place
    patterns = (f"students/*/{CONFIG_FILE}", f"*/model/{CONFIG_FILE}")
    inside = sorted(file.parent for pattern in patterns for file in folder.glob(pattern))
    hint = f" Models inside it: {', '.join(f'run/{place}' for place in inside)}." if inside else ""
    raise FileNotFoundError(
        f"no model in {folder}: looked for {CONFIG_FILE} there, in student/ and in model/. "
        f"An absolute path is written run//path/to/folder; has the run finished?{hint}"
    )
