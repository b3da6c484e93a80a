"""Encoders: who sees. One interface over every source of models; `load_encoder` knows them by prefix."""

from typing import TYPE_CHECKING

from eyespot.lazy import lazy_names

if TYPE_CHECKING:
    from eyespot.encoders.base import Encoder
    from eyespot.encoders.classifiers import load_classifier
    from eyespot.encoders.headed import HeadedEncoder
    from eyespot.encoders.loading import SOURCES, load_encoder
    from eyespot.encoders.runtimes.onnx import OnnxEncoder
    from eyespot.encoders.saved import save_encoder
    from eyespot.encoders.sources.eupe import write_eupe_checkpoint
    from eyespot.encoders.sources.timm import TimmEncoder
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "eyespot.encoders.base": ["Encoder"],
            "eyespot.encoders.classifiers": ["load_classifier"],
            "eyespot.encoders.headed": ["HeadedEncoder"],
            "eyespot.encoders.loading": ["SOURCES", "load_encoder"],
            "eyespot.encoders.runtimes.onnx": ["OnnxEncoder"],
            "eyespot.encoders.saved": ["save_encoder"],
            "eyespot.encoders.sources.eupe": ["write_eupe_checkpoint"],
            "eyespot.encoders.sources.timm": ["TimmEncoder"],
        },
    )

__all__ = [
    "SOURCES",
    "Encoder",
    "HeadedEncoder",
    "OnnxEncoder",
    "TimmEncoder",
    "load_classifier",
    "load_encoder",
    "save_encoder",
    "write_eupe_checkpoint",
]
