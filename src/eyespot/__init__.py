"""eyespot: several large vision models in, one small universal encoder out."""

from eyespot.encoders import Encoder, load_classifier, load_encoder
from eyespot.features import Features

__version__ = "0.1.0"
__all__ = ["Encoder", "Features", "__version__", "load_classifier", "load_encoder"]
