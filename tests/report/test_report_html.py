import base64
import io
from html.parser import HTMLParser

import pytest
import torch
from PIL import Image
from report_toys import full, noise, table, teacher

from eyespot.evaluate.results import Column, Metric, ResultTable
from eyespot.report import LicenceBox, PictureGrid, Report
from eyespot.report.exhibits.table import table_view
from eyespot.report.pages.html import LARGEST, breakable, in_words, short_count

VOID = {"meta", "link", "img", "br", "wbr"}


class Page(HTMLParser):
    """Collects elements and checks that they nest."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.text = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


IDS = [
    "results",
    "radar",
    "figures",
    "examples",
    "sizes",
    "tasks",
    "training",
    "licences",
    "notes",
    "failures",
    "config",
    "machine",
]


def test_every_section_that_has_content_is_there_and_linked():
    page = Page(full().html())
    assert [section["id"] for section in page.all("section")] == IDS
    assert [link["href"] for link in page.all("a")] == [f"#{section}" for section in IDS]
    text = " ".join(page.text)
    for words in ("Three into one.", "tiny & small", "One seed only.", "5.52 M", "seed: 0", "note 1"):
        assert words in text
    assert "may not be used commercially" in text


def test_sections_without_content_are_left_out():
    page = Page(Report("Empty").html())
    assert page.all("section") == []
    assert page.all("a") == []


def test_the_page_is_self_contained():
    text = full().html()
    page = Page(text)
    assert "http:" not in text and "https:" not in text
    assert page.all("script") == [] and page.all("iframe") == []
    sources = [attributes["src"] for _, attributes in page.elements if "src" in attributes]
    assert len(sources) == 1 + 4 + 2 + 1 + 2  # drawing, grid, its first row at the top, query, strip
    assert all(source.startswith("data:image/") for source in sources)
    assert [attributes["href"] for attributes in page.all("link")] == ["data:,"]
    assert "@import" not in text and "@font-face" not in text
    policy = next(meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_what_users_wrote_is_escaped():
    text = full().html()
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/<wbr>script&gt;" in text
    assert "a&lt;b&gt;.jpg" in text and "toybox &lt;b&gt;" in text


def test_pictures_and_tables_speak_to_readers_who_cannot_see_them():
    page = Page(full().html())
    alts = [image["alt"] for image in page.all("img")]
    assert all(alts)
    assert {"a red square", "picture, scene 2", "what, scene 2: note 1", "tile 1", "a dog"} <= set(alts)
    assert all(region["aria-label"] for region in page.all("div") if region.get("role") in ("img", "region"))
    drawings = [region for region in page.all("div") if region.get("role") == "img"]
    assert len(drawings) == len(page.all("svg")) == 2 + 1 + 2  # radars, input sizes, training
    assert page.all("html") == [{"lang": "en"}]


def test_right_and_wrong_neighbours_differ_in_their_mark_and_not_in_colour_alone():
    text = full().html()
    assert text.count(">✓</i>") == text.count(">✕</i>") == 1


def test_the_best_of_each_column_is_bold():
    text = full().html()
    assert "<b>75.0</b>" in text and "<td>50.0</td>" in text
    assert "<b>0.250</b>" in text and "<td>0.500</td>" in text


def test_table_view_knows_headline_bars_and_gaps():
    view = table_view(table())
    assert [column.task for column in view.headline] == ["knn", "depth", "segmentation", "cost"]
    assert [task.name for task in view.tasks] == ["knn", "depth", "segmentation", "cost"]
    knn, depth = view.tasks[:2]
    assert [column.measure for column in depth.columns] == ["RMSE, m", "delta1, %"]
    assert [column.measure for column in depth.headline] == ["RMSE, m"]
    assert [cell.share for cell in knn.columns[0].cells] == pytest.approx([2 / 3, 1.0])
    assert (knn.columns[0].better, depth.columns[0].better) == ("higher", "lower")
    assert [cell.best for cell in depth.columns[0].cells] == [True, False]
    delta = depth.columns[1]
    assert (delta.cells[1].text, delta.cells[1].share) == ("–", 0.0)


def test_a_task_names_its_data_and_options_and_the_rest_is_said_once():
    view = table_view(table())
    assert view.tasks[0].setting == {"data": "toybox <b>", "k": 20}
    assert view.tasks[0].about.startswith("k-NN")
    assert view.tasks[-1].setting == {}
    assert view.settings == {"seeds": [0, 1]}


def test_a_task_without_headline_metrics_shows_all():
    column = Column("strange", Metric("score", headline=False))
    view = table_view(ResultTable([column], {"a": {column.key: 0.5}}))
    assert view.tasks[0].headline == view.tasks[0].columns and view.tasks[0].about == ""


def test_a_bar_never_leaves_its_track():
    column = Column("task", Metric("score", unit=""))
    rows = {"a": {column.key: -3.0}, "b": {column.key: float("nan")}, "c": {column.key: 0.0}}
    view = table_view(ResultTable([column], rows))
    assert [cell.share for cell in view.headline[0].cells] == [0.0, 0.0, 0.0]


def test_writing_replaces_the_page_as_a_whole(tmp_path):
    path = tmp_path / "run" / "report.html"
    Report(title="one").write(path)
    Report(title="two", notes=["later"]).write(path)
    assert "<title>two</title>" in path.read_text(encoding="utf-8")
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]


@pytest.mark.slow
def test_a_page_of_many_incompressible_pictures_stays_below_five_megabytes(tmp_path):
    models = ["picture", *(f"model {number}" for number in range(12))]
    report = full(pictures=6, side=336, columns=models, grids=2)
    report.write(tmp_path / "report.html")
    assert 1_000_000 < (tmp_path / "report.html").stat().st_size <= LARGEST == 5_000_000


def test_a_small_page_keeps_its_pictures_as_they_are():
    tiles = noise(1, 3, 300, 200)
    page = Page(Report("one", figures=[PictureGrid("t", "c", {"a": tiles})]).html())
    content = page.all("img")[0]["src"].partition("base64,")[2]
    with Image.open(io.BytesIO(base64.b64decode(content))) as shown:
        assert shown.size == (200, 300)


def test_the_band_at_the_top_is_the_first_row_of_the_first_grid():
    first = PictureGrid("one", "", {"picture": noise(2, 3, 4, 4), "model": noise(2, 3, 4, 4, seed=1)})
    report = Report("page", figures=[first, PictureGrid("two", "", {"x": noise(1, 3, 4, 4)})])
    assert report.band is not None
    assert [torch.equal(column[0], first.columns[name][0]) for name, column in report.band.columns.items()] == [
        True,
        True,
    ]
    assert Report("page", figures=[PictureGrid("two", "", {"x": noise(1, 3, 4, 4)})]).band is None
    assert Report("page").band is None


def test_each_box_has_the_verdict_of_its_own_models():
    free = LicenceBox("b: learnt from", [teacher("onnx/b.onnx", "mit")])
    plain = LicenceBox("Models", [teacher("timm/c", None)], judged=False, labels=["see"])
    text = Report("page", licences=[LicenceBox("a: learnt from", [teacher()]), free, plain]).html()
    assert text.count("may not be used commercially") == text.count("may be used commercially") == 1
    assert plain.verdict is None and "not stated" in text
    assert ">see<span" in text


@pytest.mark.parametrize(
    ("number", "text"), [(5_524_416, "5.52 M"), (1_900_000_000, "1.9 G"), (2048, "2.05 k"), (7, "7"), (0, "–")]
)
def test_short_counts(number, text):
    assert short_count(number) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "yes"),
        (3, "3"),
        ([1, 2], "1, 2"),
        ({"knn": "toybox", "depth": {}, "k": None}, "knn: toybox"),
        ({"a": {"b": (1, False)}}, "a: b: 1, no"),
    ],
)
def test_settings_in_words(value, text):
    assert in_words(value) == text


def test_names_break_after_underscores_and_slashes_only():
    assert breakable("a_b/c<d>") == "a_<wbr>b/<wbr>c&lt;d&gt;"
