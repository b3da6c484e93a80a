"""The toybox: built-in synthetic scenes with exact ground truth for every task of the house."""

from eyespot.data.toybox.cards import WORDS
from eyespot.data.toybox.render import low_high, render
from eyespot.data.toybox.scenes import COLOURS, PATTERNS, SHAPES
from eyespot.data.toybox.sheet import contact_sheet
from eyespot.data.toybox.source import ToyboxSource
from eyespot.data.toybox.truth import KEYPOINTS, SEMANTIC_CLASSES, Scenes, phrases

__all__ = [
    "COLOURS",
    "KEYPOINTS",
    "PATTERNS",
    "SEMANTIC_CLASSES",
    "SHAPES",
    "WORDS",
    "Scenes",
    "ToyboxSource",
    "contact_sheet",
    "low_high",
    "phrases",
    "render",
]
