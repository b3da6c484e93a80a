"""What people look at: PCA pictures, training curves, the HTML report, the model card."""

from eyespot.encoders.licenses import Verdict, hub_license, verdict
from eyespot.report.card import model_card
from eyespot.report.curves import read_metrics, training_curves
from eyespot.report.figures import Figure, PictureGrid
from eyespot.report.html import Report, write_report
from eyespot.report.machine import machine_info
from eyespot.report.pca import pca_pictures
from eyespot.report.sheet import pca_columns, visualize, visualize_files
from eyespot.report.teachers import Teacher, describe

__all__ = [
    "Figure",
    "PictureGrid",
    "Report",
    "Teacher",
    "Verdict",
    "describe",
    "hub_license",
    "machine_info",
    "model_card",
    "pca_columns",
    "pca_pictures",
    "read_metrics",
    "training_curves",
    "verdict",
    "visualize",
    "visualize_files",
    "write_report",
]
