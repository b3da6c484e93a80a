"""How a data set lies on disk: what readers of labelled and of multi-task data share."""

from eyespot.data.layout import Layout

__all__ = ["Layout"]
