"""What people look at: PCA pictures, training curves, the HTML report, the model card."""

from eyespot.encoders.licenses import Verdict, hub_license, verdict
from eyespot.encoders.lineage import Teacher, describe
from eyespot.report.exhibits.curves import overlaid_curves, probe_curves, read_metrics, training_curves
from eyespot.report.exhibits.figures import Figure, PictureGrid, PictureStrips, Strip, StripGroup
from eyespot.report.exhibits.gallery import Exhibit, Gallery
from eyespot.report.exhibits.pca import pca_pictures
from eyespot.report.exhibits.radar import radars
from eyespot.report.exhibits.sizes import resolution_figures
from eyespot.report.machine import machine_info
from eyespot.report.pages.card import model_card
from eyespot.report.pages.evaluation import write_evaluation_report
from eyespot.report.pages.evaluation_folder import Evaluation, evaluate_and_report
from eyespot.report.pages.folders import write_folder_report
from eyespot.report.pages.html import Report
from eyespot.report.pages.licence_box import LicenceBox
from eyespot.report.pages.merge import merge_tables
from eyespot.report.pages.sheet import pca_columns, visualize, visualize_files

__all__ = [
    "Evaluation",
    "Exhibit",
    "Figure",
    "Gallery",
    "LicenceBox",
    "PictureGrid",
    "PictureStrips",
    "Report",
    "Strip",
    "StripGroup",
    "Teacher",
    "Verdict",
    "describe",
    "evaluate_and_report",
    "hub_license",
    "machine_info",
    "merge_tables",
    "model_card",
    "overlaid_curves",
    "pca_columns",
    "pca_pictures",
    "probe_curves",
    "radars",
    "read_metrics",
    "resolution_figures",
    "training_curves",
    "verdict",
    "visualize",
    "visualize_files",
    "write_evaluation_report",
    "write_folder_report",
]
