"""`run/FOLDER`: models that eyespot saved, in timm's own hub layout, and the writer of such folders.

A model folder holds `model.safetensors` (the backbone, and its class head if it has one), `config.json` (what timm
needs to build it, plus our own section) and, for what was distilled, `adapters.safetensors`: the adapter heads and
standardizers into every teacher's space. Of a multi-task model timm could build the stem only; the rest is in our own
section, and such folders are loaded by us alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from eyespot.encoders.base import Encoder
from eyespot.encoders.headed import HeadedEncoder
from eyespot.encoders.loading import load_encoder
from eyespot.encoders.multitask.facts import build_from_facts, multitask_facts
from eyespot.encoders.multitask.model import MultiTaskEncoder
from eyespot.encoders.multitask.path_encoder import PathEncoder
from eyespot.encoders.sources.timm import TimmEncoder, create_timm_encoder
from eyespot.encoders.weights import load_strictly, read_weights
from eyespot.files import atomic_path
from eyespot.specs import read_options

MODEL_FILE, CONFIG_FILE, ADAPTER_FILE = "model.safetensors", "config.json", "adapters.safetensors"


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
        encoder: a timm encoder, or one whose `name` is a spec that builds it again (`python/...`), either with a linear
            head or without; or a multi-task model.
        folder: where to; replaced as a whole if it exists.
        license: licence tag of the saved weights; the encoder's own if None.
        adapters: tensors of adapter heads and standardizers, by dotted name; those it was loaded with if None.
        details: JSON-able facts to keep in the `eyespot` section of config.json.
        card: text of the folder's README.md.

    Raises:
        ValueError: the encoder has no weights of its own to save (an ONNX file).
    """
    backbone = encoder.model if isinstance(encoder, TimmEncoder) else encoder
    # Cloned, because safetensors refuses tensors that share memory (tied weights).
    state = {name: value.detach().cpu().contiguous().clone() for name, value in backbone.state_dict().items()}
    if not state:
        raise ValueError(f"{encoder.name} holds no weights that could be saved")
    license = license or encoder.license
    of_timm = encoder.stem if isinstance(encoder, MultiTaskEncoder) else encoder
    config = _timm_config(of_timm, license) if isinstance(of_timm, TimmEncoder) else {}
    config["eyespot"] = {
        "spec": encoder.origin or encoder.name,
        "channels_last": getattr(encoder, "channels_last", False),
        "license": license,
        "summary_dim": encoder.summary_dim,
        "patch_dim": encoder.patch_dim,
        "stride": encoder.stride,
        **(_head_facts(encoder) if encoder.num_classes else {}),
        **({"multitask": multitask_facts(encoder)} if isinstance(encoder, MultiTaskEncoder) else {}),
        **(details or {}),
    }
    folder = Path(folder)
    with atomic_path(folder) as temporary, _full_disk_explained(folder):
        temporary.mkdir()
        save_file(state, temporary / MODEL_FILE, metadata={"format": "pt"})
        (temporary / CONFIG_FILE).write_text(json.dumps(config, indent=2))
        adapters = encoder.adapters if adapters is None else adapters
        if adapters:
            cpu = {name: value.detach().cpu().contiguous() for name, value in adapters.items()}
            save_file(cpu, temporary / ADAPTER_FILE, metadata={"format": "pt"})
        if card:
            (temporary / "README.md").write_text(card)
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
    config = json.loads((place / CONFIG_FILE).read_text())
    encoder = _build(config, place)
    backbone: nn.Module = encoder.model if isinstance(encoder, TimmEncoder) else encoder
    file = Path(weights) if weights else place / MODEL_FILE
    load_strictly(backbone, read_weights(file), str(file))
    encoder.name = f"run/{folder}"
    encoder.class_names = config["eyespot"].get("class_names")
    encoder.license = config["eyespot"].get("license")
    encoder.origin = config["eyespot"]["spec"]
    encoder.lineage = config["eyespot"].get("teachers", [])
    if (place / ADAPTER_FILE).is_file():
        encoder.adapters = load_file(place / ADAPTER_FILE)
    return encoder if path is None else _path_of(encoder, str(path))  # a spec's "?path=1" arrives as a number


def _path_of(encoder: Encoder, path: str) -> PathEncoder:
    if not isinstance(encoder, MultiTaskEncoder):
        raise ValueError(f"{encoder.name} is no multi-task model and has no paths; leave out path={path}")
    return PathEncoder(encoder, path)


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


def _head_facts(encoder: Encoder) -> dict[str, Any]:
    """How the head is built again: by timm or a factory of one's own, or as a linear layer on the summary."""
    head = "linear" if isinstance(encoder, HeadedEncoder) else "own"
    return {"num_classes": encoder.num_classes, "class_names": encoder.class_names, "head": head}


def _timm_config(encoder: TimmEncoder, license: str | None) -> dict[str, Any]:
    source = encoder.model.pretrained_cfg
    kept = (
        "tag",
        "mean",
        "std",
        "interpolation",
        "crop_pct",
        "crop_mode",
        "fixed_input_size",
        "first_conv",
        "classifier",
    )
    pretrained_cfg: dict[str, Any] = {key: source[key] for key in kept if key in source}  # type: ignore[index, operator]
    pretrained_cfg |= {"input_size": [3, *encoder.default_size], "num_classes": encoder.num_classes, "license": license}
    model_args = dict(encoder.model_args)
    if model_args.get("dynamic_img_size") and pretrained_cfg.get("fixed_input_size"):
        # timm reads such a folder as of free size, and would stretch the position embedding to its own default size
        model_args.setdefault("img_size", list(encoder.default_size))
    return {
        "architecture": encoder.architecture,
        "num_classes": encoder.num_classes,
        **({"label_names": encoder.class_names} if encoder.class_names else {}),
        "num_features": encoder.patch_dim,
        "pretrained_cfg": pretrained_cfg,
        "model_args": model_args,
    }


def _build(config: dict[str, Any], place: Path) -> Encoder:
    if "eyespot" not in config:
        raise ValueError(f"{place / CONFIG_FILE} was not written by eyespot; load it as timm/local-dir:{place}")
    if "architecture" in config:
        cfg = config["pretrained_cfg"]
        encoder = create_timm_encoder(
            config["architecture"],
            pretrained=False,
            channels_last=config["eyespot"].get("channels_last", False),
            num_classes=config.get("num_classes", 0),
            pretrained_cfg=cfg,
            **config["model_args"],
        )
        multitask = config["eyespot"].get("multitask")
        return build_from_facts(encoder, multitask) if multitask else encoder
    plain = _build_from_spec(config)
    num_classes = config["eyespot"].get("num_classes", 0)
    return HeadedEncoder(plain, num_classes) if config["eyespot"].get("head") == "linear" else plain


def _build_from_spec(config: dict[str, Any]) -> Encoder:
    spec, _, query = config["eyespot"]["spec"].partition("?")
    options = {key: value for key, value in read_options(query).items() if key != "weights"}
    if not spec.startswith("python/"):
        options["pretrained"] = False  # the weights are in the folder
    try:
        return load_encoder(spec, **options)
    except ValueError as error:
        if "'pretrained'" not in str(error):
            raise
        return load_encoder(spec, **{key: value for key, value in options.items() if key != "pretrained"})
