import xml.etree.ElementTree as ElementTree
from dataclasses import replace

from report_toys import curve

from eyespot.evaluate.resolution import CurvePoint
from eyespot.evaluate.results import Metric
from eyespot.report import resolution_figures


def test_one_panel_per_headline_metric_with_all_models_in_percent():
    hidden = replace(curve(), metrics=(Metric("accuracy"), Metric("best", headline=False)))
    (figure,) = resolution_figures([hidden])
    assert figure.title == "knn, accuracy"
    assert "free" in figure.image and "fixed" in figure.image and "accuracy, %" in figure.image
    described = "free 25 at 64, 50 at 128; fixed 75 at 96"
    assert figure.alt == f"knn, accuracy over the input side (higher is better): {described}."
    assert figure.caption == "Higher is better."
    ElementTree.fromstring(figure.image.replace("xlink:", ""))


def test_metres_stay_metres():
    points = {"a": [CurvePoint((64, 64), {"RMSE": 0.5})]}
    metric = Metric("RMSE", unit="m", higher_is_better=False)
    (figure,) = resolution_figures([replace(curve(), task="depth", metrics=(metric,), points=points)])
    assert "RMSE, m" in figure.image and "a 0.5 at 64" in figure.alt and figure.caption == "Lower is better."


def test_a_panel_without_values_is_left_out():
    points = {"a": [CurvePoint((64, 64), {"accuracy": None})]}
    assert resolution_figures([replace(curve(), points=points)]) == []
