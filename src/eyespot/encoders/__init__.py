"""Encoders: who sees. One interface over every source of models; `load_encoder` knows them by prefix."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

from eyespot.encoders.base import Encoder
from eyespot.encoders.onnx_source import OnnxEncoder
from eyespot.encoders.python_source import create_python_encoder
from eyespot.encoders.saved import load_adapters, load_saved_encoder, save_encoder
from eyespot.encoders.timm_source import TimmEncoder, create_timm_encoder
from eyespot.encoders.weights import load_strictly, read_weights

__all__ = ["PREFIXES", "Encoder", "OnnxEncoder", "TimmEncoder", "load_adapters", "load_encoder", "save_encoder"]

PREFIXES = {
    "timm": "timm/NAME[.tag]            a model of timm, e.g. timm/vit_small_patch16_224",
    "onnx": "onnx/FILE                  an ONNX file with outputs `summary` and `patches`",
    "run": "run/FOLDER                 the student (or a stage's model) of an eyespot run",
    "python": "python/pkg.module:factory  your own code that returns an eyespot.Encoder",
}


def load_encoder(spec: str, weights: str | Path | None = None, **options: Any) -> Encoder:
    """Loads any model as an `Encoder`, in eval mode.

    Args:
        spec: PREFIX/REST, with options after a question mark: "timm/test_vit?pretrained=false",
            "onnx/model.onnx?patches=features&summary=mean". A relative or absolute path follows the prefix:
            "onnx/a.onnx" or "onnx//data/a.onnx".
        weights: a checkpoint file (safetensors, or torch with `weights_only`), loaded strictly.
        options: the same options as keywords; see the source's class for which there are.

    Raises:
        ValueError: an unknown prefix or option, or weights that do not fit.
        FileNotFoundError: the file or folder is not there.
        ImportError: an optional library is missing; says how to install it.
    """
    path, _, query = spec.partition("?")
    prefix, slash, rest = path.partition("/")
    if not slash or prefix not in PREFIXES or not rest:
        raise ValueError(_unknown(spec, prefix))
    options = {**{key: _value(text) for key, text in parse_qsl(query, keep_blank_values=True)}, **options}
    if weights is not None and prefix in ("onnx", "python"):
        raise ValueError(f"{spec}: weights= goes with timm/ and run/; the file itself holds them here")
    try:
        encoder = _load(prefix, rest, weights, options)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise ValueError(f"{spec}: {error}") from error
    encoder.name += _query(options)  # what tells it from the same model with other options
    return encoder.eval()


def _load(prefix: str, rest: str, weights: str | Path | None, options: dict[str, Any]) -> Encoder:
    if prefix == "onnx":
        return OnnxEncoder(rest, **options)
    if prefix == "python":
        return create_python_encoder(rest, **options)
    if prefix == "run":
        return load_saved_encoder(rest, weights, **options)
    if weights is None:
        return create_timm_encoder(rest, **options)
    encoder = create_timm_encoder(rest, **{**options, "pretrained": False})
    load_strictly(encoder.model, read_weights(weights), str(weights))
    return encoder


def _value(text: str) -> Any:
    """An option's value as written in a spec: true, 3, 0.5, a comma-separated tuple of those, or the text itself."""
    if "," in text:
        return tuple(_value(part) for part in text.split(","))
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _query(options: dict[str, Any]) -> str:
    """Options as written in a spec, the inverse of parsing them."""
    texts = {key: _text(value) for key, value in options.items()}
    return f"?{urlencode(texts, safe=',/:')}" if texts else ""


def _text(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return ",".join(_text(part) for part in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _unknown(spec: str, prefix: str) -> str:
    near = difflib.get_close_matches(prefix, PREFIXES, n=1)
    if near and near[0] != prefix and "/" in spec:
        return f"{spec!r}: no source {prefix!r}; did you mean {near[0]}/...?"
    return f"{spec!r} names no model. Sources:\n  " + "\n  ".join(PREFIXES.values())
