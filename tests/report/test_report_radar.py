import math
import re
import xml.etree.ElementTree as ElementTree

import pytest
from report_toys import table

from eyespot.evaluate.results import Column, Metric, ResultTable
from eyespot.evaluate.tasks import TASKS
from eyespot.report.exhibits.radar import CENTRE, DOMAINS, RADIUS, caption, radars, shares_of_best, spokes


def one_column(values, better=True):
    column = Column("knn", Metric("accuracy", higher_is_better=better))
    return ResultTable([column], {name: {column.key: value} for name, value in values.items()}), column


def test_shares_are_ratios_to_the_best_whichever_way_is_better():
    assert shares_of_best(*one_column({"a": 0.2, "b": 0.8})) == {"a": 0.25, "b": 1.0}
    assert shares_of_best(*one_column({"a": 0.2, "b": 0.8}, better=False)) == {"a": 1.0, "b": 0.25}


@pytest.mark.parametrize(
    ("values", "shares"),
    [
        ({"a": 0.5, "b": None, "c": math.nan}, {"a": 1.0}),
        ({"a": -1.0, "b": 2.0}, {}),
        ({"a": 0.0, "b": 0.0}, {}),
        ({"a": None}, {}),
        ({"a": 0.0, "b": 4.0}, {"a": 0.0, "b": 1.0}),
    ],
)
def test_what_has_no_ratio_is_left_out(values, shares):
    assert shares_of_best(*one_column(values)) == shares


def test_an_error_of_zero_is_the_best_there_is():
    assert shares_of_best(*one_column({"a": 0.0, "b": 4.0}, better=False)) == {"a": 1.0, "b": 0.0}


def test_spokes_are_the_first_headline_metric_of_each_task_by_domain():
    found = spokes(table())
    assert {domain: [column.key for column in columns] for domain, columns in found.items()} == {
        "understanding": ["knn/accuracy"],
        "dense prediction": ["segmentation/mIoU", "depth/RMSE"],
    }


def test_every_task_with_a_quality_belongs_to_one_domain():
    placed = [task for tasks in DOMAINS.values() for task in tasks]
    assert len(placed) == len(set(placed))
    assert set(placed) <= set(TASKS) and set(TASKS) - set(placed) <= {"geometry"}


def corners(figure):
    points = re.search(r'<polygon[^>]* points="([^"]*)"', figure.image)
    return [tuple(float(one) for one in pair.split(",")) for pair in points[1].split()]


def test_corners_lie_at_their_share_of_the_radius():
    first, second = radars(table())
    lengths = [[math.dist(corner, CENTRE) / RADIUS for corner in corners(figure)] for figure in (first, second)]
    assert lengths[0] == pytest.approx([2 / 3, 1, 1], abs=2e-3)
    assert lengths[1] == pytest.approx([1, 1 / 2, 1 / 2], abs=2e-3)
    assert first.image.count('class="arc"') == 2


def test_a_missing_value_leaves_a_gap_and_says_so():
    results = table(("timm/a", "b"))
    results.rows["b"]["depth/RMSE"] = None
    figure = radars(results)[1]
    assert "<polygon" not in figure.image and figure.image.count('class="dot"') == 2
    assert ">–</tspan>" in figure.image


def test_words_tell_what_the_drawing_shows():
    first, second = radars(table(("timm/a", "b")))
    assert first.title == "a"
    assert first.alt == "a, share of the best model: understanding 67 %, dense prediction 100 %."
    assert second.alt == "b, share of the best model: understanding 100 %, dense prediction 50 %."
    assert caption(table()).endswith("understanding (knn), dense prediction (segmentation, depth).")
    assert "0.250 m" in first.image and 'class="top"' in first.image


def test_drawings_are_well_formed_and_escaped():
    for figure in radars(table()):
        ElementTree.fromstring(figure.image)
        assert "<script" not in figure.image


def test_few_tasks_or_a_single_model_make_no_radar():
    results = table()
    assert radars(ResultTable(results.columns[:3], results.rows)) == []
    assert radars(ResultTable(results.columns, {"a": results.rows["expert"]})) == []
