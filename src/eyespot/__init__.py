"""eyespot: several large vision models in, one small universal encoder out."""

from typing import TYPE_CHECKING

from eyespot.lazy import lazy_names

if TYPE_CHECKING:
    from eyespot.encoders.base import Encoder
    from eyespot.encoders.classifiers import load_classifier
    from eyespot.encoders.loading import load_encoder
    from eyespot.features import Features
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "eyespot.encoders.base": ["Encoder"],
            "eyespot.encoders.classifiers": ["load_classifier"],
            "eyespot.encoders.loading": ["load_encoder"],
            "eyespot.features": ["Features"],
        },
    )

__version__ = "0.1.0"
__all__ = ["Encoder", "Features", "__version__", "load_classifier", "load_encoder"]
