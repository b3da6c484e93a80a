import numpy as np
import pytest
import torch
from PIL import Image

from eyespot.data.sets import (
    ClassificationData,
    DensePictures,
    DepthData,
    LabelledPictures,
    MatchingData,
    PointPair,
    SegmentationData,
    TensorPictures,
)
from eyespot.encoders.text.embeddings import TextEmbeddings
from eyespot.evaluate import TASKS, ToyboxConfig, evaluate
from eyespot.evaluate.progress import time_left

NAMES = TextEmbeddings(("a", "b"), torch.eye(2, 48), None)
SHORT = {"zero_shot": {"text": NAMES}}


@pytest.fixture
def made():
    """Small data for every task over one set of training and one of validation pictures."""
    generator = torch.Generator().manual_seed(0)
    train, val = (TensorPictures(torch.rand(n, 3, 32, 32, generator=generator)) for n in (12, 6))
    classes = ClassificationData(
        LabelledPictures(train, torch.arange(12) % 2), LabelledPictures(val, torch.arange(6) % 2), ["a", "b"]
    )
    masks = [torch.randint(3, (n, 32, 32), generator=generator) for n in (12, 6)]
    depths = [1 + torch.rand(n, 32, 32, generator=generator) for n in (12, 6)]
    points = torch.rand(5, 2, generator=generator) * 32
    return {
        "knn": classes,
        "linear": classes,
        "reading": classes,
        "zero_shot": classes,
        "segmentation": SegmentationData(DensePictures(train, masks[0]), DensePictures(val, masks[1]), 3),
        "depth": DepthData(DensePictures(train, depths[0]), DensePictures(val, depths[1])),
        "correspondence": MatchingData(val, val, [PointPair(0, 0, points, points, (32, 32), (32, 32), reach=32)]),
    }


def test_every_task_fills_its_columns_in_the_order_asked_for(made, colour_encoder):
    table = evaluate({"a": colour_encoder("x"), "b": colour_encoder("y", 16)}, tuple(made), made, options=SHORT)
    keys = [column.key for column in table.columns]
    assert keys[:3] == ["cost/params", "cost/GMACs", "knn/accuracy"]
    assert set(keys[2:]) == {f"{name}/{metric.name}" for name in made for metric in TASKS[name].metrics}
    for row in table.rows.values():
        assert set(row) == set(keys)
        unknown = {key for key in keys[2:] if not isinstance(row[key], float)}
        assert unknown == {"correspondence/PCK@0.1/category"}  # the pairs have none
    assert table.settings["seed"] == 0


def test_each_picture_is_encoded_once_for_all_tasks(made, colours):
    evaluate([colours], tuple(made), made, options=SHORT)
    assert colours.pictures_seen == 18 + 1  # one to count its operations


def test_rows_do_not_interact_and_reruns_agree(made, colour_encoder):
    first, second = colour_encoder("one"), colour_encoder("two", 16)
    both = evaluate([first, second], tuple(made), made, options=SHORT)
    alone = evaluate([second], tuple(made), made, options=SHORT)
    assert both.rows["two"] == alone.rows["two"]


def test_the_native_size_wins(made, colour_encoder):
    fixed = colour_encoder("fixed", native_size=(48, 48))
    evaluate([fixed], ("knn",), {"knn": made["knn"]}, size=16)
    assert fixed.sizes_seen == {(48, 48)}


def test_parameters_are_counted_in_millions(made, colour_encoder):
    encoder = colour_encoder()
    encoder.extra = torch.nn.Linear(1000, 500, bias=False)
    table = evaluate([encoder], ("knn",), {"knn": made["knn"]})
    assert table.rows["colours"]["cost/params"] == 0.5


def test_progress_ends_at_the_total(made, colours):
    seen = []
    evaluate([colours], ("knn", "depth"), {k: made[k] for k in ("knn", "depth")},
             progress=lambda *state: seen.append(state))  # fmt: skip
    assert seen[-1] == ("done", 2, 2)
    assert seen[0][:2] == ("colours: depth", 0) and ("colours: knn", 1, 2) in seen
    assert ("colours: depth 12/12", 0, 2) in seen


def test_folders_with_options(tmp_path, colours):
    for split in ("train", "val"):
        for part in ("images", "annotations"):
            (tmp_path / split / part).mkdir(parents=True)
        for index in range(2):
            Image.new("RGB", (16, 16), (index * 200,) * 3).save(tmp_path / split / "images" / f"{index}.png")
            mask = np.full((16, 16), index, dtype=np.uint8)
            mask[:4] = 7
            Image.fromarray(mask).save(tmp_path / split / "annotations" / f"{index}.png")
    spec = f"{tmp_path}?ignore=7"
    table = evaluate([colours], ("segmentation",), {"segmentation": spec})
    assert table.rows["colours"]["segmentation/mIoU"] == 1.0
    assert table.settings["data"] == {"segmentation": spec}
    with pytest.raises(ValueError, match="did you mean 'ignore'"):
        evaluate([colours], ("segmentation",), {"segmentation": f"{tmp_path}?ignroe=7"})
    with pytest.raises(ValueError, match=r"ignore takes int \| None, got 'x'"):
        evaluate([colours], ("segmentation",), {"segmentation": f"{tmp_path}?ignore=x"})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tasks": ("segmentaton",)}, "did you mean 'segmentation'"),
        ({"tasks": ("zzz",)}, "there are knn"),
        ({"tasks": ()}, "no task"),
        ({"tasks": ("knn",), "data": {}}, "no data for knn"),
        ({"tasks": ("knn",), "data": {"depth": "x"}}, "no chosen task 'depth'"),
        ({"tasks": ("knn",), "data": "some/folder"}, "knn=FOLDER"),
        ({"tasks": ("knn",), "options": {"knn": {"temprature": 1}}}, "did you mean 'temperature'"),
        ({"tasks": ("knn",), "options": {"depth": {}}}, "no chosen task 'depth'"),
        ({"data": "toybox:many"}, r"toybox\[:COUNT\[@SIZE"),
        ({"models": []}, "no model"),
        ({"models": "timm/x"}, "a list of one"),
    ],
)
def test_mistakes_are_answered_with_what_would_be_right(arguments, message, colours):
    with pytest.raises(ValueError, match=message):
        evaluate(**{"models": [colours], **arguments})


def test_what_the_last_task_would_refuse_is_refused_before_the_first(made, colours):
    with pytest.raises(ValueError, match="classification: colours has no class head"):
        evaluate([colours], ("depth", "classification"), {"depth": made["depth"], "classification": made["knn"]})
    with pytest.raises(ValueError, match="multitask: colours has no task heads"):
        evaluate([colours], ("knn", "multitask"), {"knn": made["knn"], "multitask": "toybox:4@32"})
    with pytest.raises(ValueError, match="zero_shot: the text knows 1 of the"):
        text = TextEmbeddings(("nobody", "a"), torch.eye(2, 48))
        evaluate([colours], ("knn", "zero_shot"), dict.fromkeys(("knn", "zero_shot"), made["knn"]),
                 options={"zero_shot": {"text": text}})  # fmt: skip
    assert colours.pictures_seen == 0


def test_two_models_of_one_name(made, colour_encoder):
    with pytest.raises(ValueError, match="one name"):
        evaluate([colour_encoder(), colour_encoder()], ("knn",), {"knn": made["knn"]})


def test_toybox_specs():
    assert ToyboxConfig.parse("toybox") == ToyboxConfig()
    assert ToyboxConfig.parse("toybox:600@64", seed=3) == ToyboxConfig(600, 300, 200, 64, 3)
    assert ToyboxConfig.parse("toybox:600", limit=50) == ToyboxConfig(50, 50, 50)
    assert ToyboxConfig.parse("toybox:1") == ToyboxConfig(1, 1, 1)
    with pytest.raises(ValueError, match="between 1"):
        ToyboxConfig(train=0)
    with pytest.raises(ValueError, match="seed"):
        ToyboxConfig(seed=-1)


@pytest.mark.parametrize(
    ("elapsed", "done", "says"),
    [(10, 0, ""), (10, 4, ""), (30, 2, ", about 30 s left"), (600, 1, ", about 30 min left")],
)
def test_time_left(elapsed, done, says):
    assert time_left(elapsed, done, 4) == says
