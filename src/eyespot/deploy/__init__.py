"""Out of the house: files for devices, their checks and speed, and the Hugging Face hub."""

from eyespot.deploy.export import Exported, ExportError, Int8, export
from eyespot.deploy.exportable import class_text
from eyespot.deploy.formats import FORMATS
from eyespot.deploy.hub import push

__all__ = ["FORMATS", "ExportError", "Exported", "Int8", "class_text", "export", "push"]
