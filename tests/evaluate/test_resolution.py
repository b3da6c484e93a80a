import pytest
import torch

from eyespot.data.sets import ClassificationData, LabelledPictures, TensorPictures
from eyespot.evaluate import evaluate
from eyespot.evaluate.resolution import ResolutionCurve, resolution_curve


@pytest.fixture
def data():
    """Fine stripes or none, on noise: told apart at full size only."""
    generator = torch.Generator().manual_seed(0)
    parts = []
    for count in (60, 40):
        labels = torch.arange(count) % 2
        images = 0.5 * torch.rand(count, 3, 64, 64, generator=generator)
        images[labels == 1, :, :, ::2] += 0.3
        parts.append(LabelledPictures(TensorPictures(images), labels))
    return ClassificationData(parts[0], parts[1], ["plain", "striped"])


def test_each_point_equals_a_call_of_evaluate(colour_encoder, data):
    models = {"any": colour_encoder(), "fixed": colour_encoder("fixed", native_size=(24, 24))}
    curve = resolution_curve(models, "knn", data, (16, 32, 64), options={"k": 3})
    for size, point in zip((16, 32, 64), curve.points["any"], strict=True):
        alone = evaluate({"x": colour_encoder()}, ("knn",), {"knn": data}, size, options={"knn": {"k": 3}})
        assert point.size == (size, size)
        assert {f"knn/{name}": value for name, value in point.values.items()}.items() <= alone.rows["x"].items()
        assert point.gmacs == alone.rows["x"]["cost/GMACs"]
    assert [point.size for point in curve.points["fixed"]] == [(24, 24)] and curve.fixed == {"fixed"}


def test_no_size_is_measured_twice(colour_encoder, data):
    coarse, fixed = colour_encoder("coarse", 32), colour_encoder("fixed", native_size=(24, 24))
    curve = resolution_curve([coarse, fixed], "knn", data, (60, 64, 128, (64, 32)))
    assert curve.sizes == ((60, 60), (64, 32), (64, 64), (128, 128))
    assert [point.size for point in curve.points["coarse"]] == [(64, 64), (64, 32), (64, 64), (128, 128)]
    # Two splits of 100 pictures in all; one more each time for the cost.
    assert 300 <= coarse.pictures_seen < 310 and 100 <= fixed.pictures_seen < 110
    assert curve.line("coarse", "accuracy")[0] == pytest.approx([64, 2048**0.5, 128])


def test_line_skips_unknown_values_and_is_ascending(colour_encoder, data):
    curve = resolution_curve([colour_encoder()], "knn", data, (64, 16))
    sides, values = curve.line("colours", "accuracy")
    assert sides == [16, 64] and values == [point.values["accuracy"] for point in curve.points["colours"]]
    pictures = data.val.pictures
    geometry = resolution_curve([colour_encoder()], "geometry", pictures, (16, 32))
    assert geometry.line("colours", "CKA") == ([], [])


def test_json_round_trip_and_table(colour_encoder, data):
    models = [colour_encoder("any"), colour_encoder("fixed", native_size=(24, 24))]
    curve = resolution_curve(models, "knn", data, (16, (32, 64)))
    assert ResolutionCurve.from_json(curve.to_json()) == curve
    table = curve.table()
    headline = [column.key for column in table.shown()]
    assert headline == ["knn@16/accuracy", "knn@32x64/accuracy", "knn@native/accuracy"]
    fixed = table.rows["fixed"]
    assert fixed["knn@native/accuracy"] is not None and "knn@16/accuracy" not in fixed
    assert "| fixed | – | – | " in table.to_markdown()
    assert "knn@native/accuracy" not in table.rows["any"]
    flexible = resolution_curve(models[:1], "knn", data, (16,)).table()
    assert [column.key for column in flexible.shown()] == ["knn@16/accuracy"]


def test_the_toybox_is_opened_by_name_and_progress_ends_at_the_total(colour_encoder):
    seen = []
    curve = resolution_curve(
        [colour_encoder()], "knn", "toybox:20@32", (16, 32), progress=lambda *state: seen.append(state)
    )
    assert len(curve.points["colours"]) == 2 and curve.settings["data"] == "toybox:20@32"
    assert seen[0] == ("16 px, colours: knn", 0, 2) and seen[-1] == ("done", 2, 2)
    assert ("32 px, colours: knn", 1, 2) in seen and ("done", 1, 1) not in seen


def test_a_folder_remembers_what_was_measured(colour_encoder, data, tmp_path):
    first, second = colour_encoder(), colour_encoder()
    before = resolution_curve([first], "knn", data, (16, 32), folder=tmp_path)
    after = resolution_curve([second], "knn", data, (16, 32, 64), folder=tmp_path)
    assert after.points["colours"][:2] == before.points["colours"] and 100 <= second.pictures_seen < 110


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sizes": ()}, "at least one size"),
        ({"sizes": (16, (16, 16))}, "each once"),
        ({"task": "kn"}, "did you mean 'knn'"),
        ({"options": {"kk": 3}}, "did you mean 'k'"),
    ],
)
def test_mistakes_are_answered(arguments, message, colours, data):
    with pytest.raises(ValueError, match=message):
        resolution_curve([colours], **{"task": "knn", "data": data, "sizes": (16,), **arguments})
