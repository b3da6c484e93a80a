"""timm's models before they are encoders: by name, with timm's weights or those of a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import get_arch_pretrained_cfgs, get_pretrained_cfg
from torch import Tensor

from eyespot.encoders.sources.timm_heads import classes_in
from eyespot.encoders.weights import load_strictly, read_weights
from eyespot.files import read_text
from eyespot.specs import nearest_names


def with_timms_weights(name: str, **args: Any) -> Any:
    """A timm model with the weights that timm has for it, fetched unless cached.

    Raises:
        RuntimeError: they could not be fetched, or do not fit the model with these arguments.
    """
    try:
        # with its own classifier, which is changed later: asked for another one, timm forgives missing tensors
        return timm.create_model(name, pretrained=True, **args)
    except (RuntimeError, TypeError):
        raise
    except Exception as error:
        raise RuntimeError(
            f"timm/{name}: the pretrained weights could not be loaded ({type(error).__name__}: {error}). Offline? "
            f"Bring {_file_to_bring(name)} and pass it as weights=FILE, or take random weights: "
            f"timm/{name}?pretrained=false"
        ) from error


def _file_to_bring(name: str) -> str:
    cfg = get_pretrained_cfg(name)
    if cfg is None or not cfg.hf_hub_id:
        return getattr(cfg, "url", None) or "the weight file"
    return f"{cfg.hf_hub_filename or 'model.safetensors'} of {cfg.hf_hub_id} on the Hugging Face hub"


def with_file(name: str, file: str, num_classes: int | None, **args: Any) -> Any:
    """A timm model with the weights of a file: a backbone's, or those of the file that timm would have fetched.

    Args:
        name: timm's.
        file: the checkpoint.
        num_classes: 0 leaves the file's classifier out; else it is kept as it is.
        args: of the model.

    Raises:
        ValueError: the file does not fit.
    """
    state = read_weights(file)
    in_file = 0
    if num_classes != 0:
        with torch.device("meta"):
            in_file = classes_in(state, timm.create_model(name, **args).pretrained_cfg)
    model = timm.create_model(name, num_classes=in_file, **args)
    try:
        load_strictly(model, state, file)
    except ValueError:
        # perhaps the file that timm fetches: with a classifier, or in its authors' names, which timm translates
        translated = None if _takes_anything(name, args) else _translated(name, state, args)
        if translated is None:
            raise
        return translated
    return model


def _translated(name: str, state: dict[str, Tensor], args: dict[str, Any]) -> Any | None:
    try:
        model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"state_dict": state}, **args)
    except Exception:  # what does not fit is better told in the names of the backbone
        return None
    del model.pretrained_cfg["state_dict"]
    return model


def _takes_anything(name: str, args: dict[str, Any]) -> bool:
    """Whether timm forgives all that is missing, as in a few families (SigLIP without its pool, FCMAE, DLA)."""
    with torch.device("meta"):
        return _translated(name, {"no such weight": torch.zeros(1)}, args) is not None


def refuse_unknown(name: str, architecture: str) -> None:
    """Refuses names and tags that timm does not have, and shows the nearest.

    Raises:
        ValueError: there is no such model, or no weights of that tag.
    """
    if not timm.is_model(architecture):
        near = nearest_names(architecture, timm.list_models(), most=3, cutoff=0.5)
        raise ValueError(
            f"timm has no model {architecture!r}; did you mean {' or '.join(near) or 'timm.list_models()'}?"
        )
    tagged = list(get_arch_pretrained_cfgs(architecture))
    if name not in (architecture, *tagged):
        raise ValueError(f"timm has no weights {name!r}; there are {', '.join(tagged) or 'none for it'}")


def read_timm_folder(folder: Path) -> tuple[str, dict[str, Any]]:
    """Architecture and arguments of a model folder in timm's layout.

    Raises:
        FileNotFoundError: there is none.
    """
    file = folder / "config.json"
    if not file.is_file():
        raise FileNotFoundError(f"no timm model in {folder}: there is no config.json")
    config = json.loads(read_text(file))
    args: dict[str, Any] = config.get("model_args") or {}
    return config["architecture"], {key: value for key, value in args.items() if key != "num_classes"}
