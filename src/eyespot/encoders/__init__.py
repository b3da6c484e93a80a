"""Encoders: who sees. One interface over every source of models; `load_encoder` knows them by prefix."""

from eyespot.encoders.base import Encoder
from eyespot.encoders.classifiers import load_classifier
from eyespot.encoders.headed import HeadedEncoder
from eyespot.encoders.loading import SOURCES, load_encoder
from eyespot.encoders.runtimes.onnx import OnnxEncoder
from eyespot.encoders.saved import save_encoder
from eyespot.encoders.sources.eupe import write_eupe_checkpoint
from eyespot.encoders.sources.timm import TimmEncoder

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
