import io
from html.parser import HTMLParser

import pytest
import torch
from PIL import Image

from eyespot.evaluate.results import Column, Metric, ResultTable
from eyespot.report import Figure, PictureGrid, Report, training_curves, write_report
from eyespot.report.html import short_count
from eyespot.report.table import table_view

VOID = {"meta", "link", "img", "br"}


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


def png():
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(buffer, "png")
    return buffer.getvalue()


def table():
    columns = [
        Column("k-NN", Metric("accuracy")),
        Column("depth", Metric("RMSE", unit="m", higher_is_better=False)),
        Column("depth", Metric("delta1", headline=False)),
    ]
    rows = {
        "expert": {"k-NN/accuracy": 0.5, "depth/RMSE": 0.25, "depth/delta1": 0.9},
        "<script>alert(1)</script>": {"k-NN/accuracy": 0.75, "depth/RMSE": 0.5},
    }
    return ResultTable(columns, rows, {"data": "toybox <b>", "seeds": [0, 1]})


def full():
    steps = [{"step": step, "loss": 1.0 / step, "lr": 1e-3} for step in (1, 2, 3)]
    return Report(
        title="A <script> report",
        summary="Three into one.",
        headline={"Student": "tiny & small", "Minutes": 9.5},
        table=table(),
        table_caption="On 512 scenes.",
        curves=training_curves({"stage-1": steps}),
        figures=[
            Figure("A drawing", "Red.", png(), alt="a red square"),
            PictureGrid("Colours", "One cell is one patch.", {"picture": torch.zeros(2, 3, 8, 8, dtype=torch.uint8)}),
        ],
        teachers=[
            {
                "name": "timm/x",
                "licence": "cc-by-nc-4.0",
                "summary_dim": 384,
                "patch_dim": 192,
                "stride": 16,
                "parameters": 5_524_416,
            }
        ],
        config_yaml="seed: 0\nname: '<script>'\n",
        machine={"cpu": "a cpu", "gpus": [], "memory_gib": 15.6, "torch": "2.11"},
        notes=["One seed only."],
        failures=["a<b>.jpg: truncated"],
    )


IDS = ["results", "overview", "figures", "training", "teachers", "notes", "failures", "config", "machine"]


def test_every_section_that_has_content_is_there_and_linked():
    page = Page(full().html())
    assert [section["id"] for section in page.all("section")] == IDS
    assert [link["href"] for link in page.all("a")] == [f"#{section}" for section in IDS]
    text = " ".join(page.text)
    for words in ("Three into one.", "tiny & small", "On 512 scenes.", "One seed only.", "5.52 M", "seed: 0"):
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
    assert len(sources) == 3
    assert all(source.startswith("data:image/") for source in sources)
    assert [attributes["href"] for attributes in page.all("link")] == ["data:,"]
    assert "@import" not in text and "@font-face" not in text


def test_what_users_wrote_is_escaped():
    text = full().html()
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "a&lt;b&gt;.jpg" in text


def test_pictures_and_tables_speak_to_readers_who_cannot_see_them():
    page = Page(full().html())
    assert all(image["alt"] for image in page.all("img"))
    assert "a red square" in [image["alt"] for image in page.all("img")]
    assert "picture, scene 2" in [image["alt"] for image in page.all("img")]
    assert all(region["aria-label"] for region in page.all("div") if region.get("role") in ("img", "region"))
    assert len(page.all("caption")) == 3  # headline table, all metrics, teachers
    assert page.all("html") == [{"lang": "en"}]


def test_the_best_of_each_column_is_bold():
    text = full().html()
    assert "<b>75.0</b>" in text and "<td>50.0</td>" in text
    assert "<b>0.250</b>" in text and "<td>0.500</td>" in text
    assert "k-NN&nbsp;" in text


def test_table_view_knows_headline_bars_and_gaps():
    view = table_view(table())
    assert [column.task for column in view.headline] == ["k-NN", "depth"]
    assert [column.measure for column in view.all] == ["accuracy, %", "RMSE, m", "delta1, %"]
    knn, depth, delta = view.all
    assert [cell.share for cell in knn.cells] == pytest.approx([2 / 3, 1.0])
    assert (knn.better, depth.better) == ("higher", "lower")
    assert [cell.best for cell in depth.cells] == [True, False]
    assert (delta.cells[1].text, delta.cells[1].share) == ("–", 0.0)


def test_a_bar_never_leaves_its_track():
    column = Column("task", Metric("score", unit=""))
    rows = {"a": {column.key: -3.0}, "b": {column.key: float("nan")}, "c": {column.key: 0.0}}
    view = table_view(ResultTable([column], rows))
    assert [cell.share for cell in view.all[0].cells] == [0.0, 0.0, 0.0]


def test_writing_replaces_the_page_as_a_whole(tmp_path):
    path = tmp_path / "run" / "report.html"
    write_report(path, title="one")
    write_report(path, title="two", notes=["later"])
    assert "<title>two</title>" in path.read_text(encoding="utf-8")
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]


def test_an_unknown_section_is_refused(tmp_path):
    with pytest.raises(TypeError, match="curvess"):
        write_report(tmp_path / "report.html", title="one", curvess=[])


def test_a_grid_of_unequal_columns_is_refused():
    columns = {"a": torch.zeros(2, 3, 4, 4, dtype=torch.uint8), "b": torch.zeros(1, 3, 4, 4, dtype=torch.uint8)}
    with pytest.raises(ValueError, match="same number of pictures"):
        PictureGrid("t", "c", columns)


def test_a_grid_of_floats_is_refused():
    with pytest.raises(ValueError, match="uint8"):
        _ = PictureGrid("t", "c", {"a": torch.zeros(1, 3, 4, 4)}).rows


@pytest.mark.parametrize(
    ("number", "text"), [(5_524_416, "5.52 M"), (1_900_000_000, "1.9 G"), (2048, "2.05 k"), (7, "7"), (0, "–")]
)
def test_short_counts(number, text):
    assert short_count(number) == text
