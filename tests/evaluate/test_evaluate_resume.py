"""An interrupted evaluation redoes no finished work and ends with equal numbers."""

import pytest
import torch

from eyespot.data.sets import ClassificationData, DensePictures, LabelledPictures, SegmentationData, TensorPictures
from eyespot.evaluate import evaluate, extract
from eyespot.evaluate.finished import FinishedMeasurements, fingerprint


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    train, val = (TensorPictures(torch.rand(n, 3, 32, 32, generator=generator)) for n in (12, 6))
    masks = [torch.randint(3, (n, 32, 32), generator=generator) for n in (12, 6)]
    return {
        "knn": ClassificationData(
            LabelledPictures(train, torch.arange(12) % 2), LabelledPictures(val, torch.arange(6) % 2), ["a", "b"]
        ),
        "segmentation": SegmentationData(DensePictures(train, masks[0]), DensePictures(val, masks[1]), 3),
    }


def run(models, data, folder, **changes):
    return evaluate(models, list(data), data, folder=folder, **changes)


class Stop(Exception):
    pass


def stopping(colours, after):
    """Makes the encoder break down after a number of pictures."""
    encode = colours._encode

    def broken(images):
        if colours.pictures_seen >= after:
            raise Stop
        return encode(images)

    colours._encode = broken
    return encode


@pytest.mark.parametrize("after", [1, 5, 13])
def test_it_goes_on_where_it_was_stopped(data, colour_encoder, tmp_path, after):
    whole = evaluate([colour_encoder()], list(data), data)
    colours = colour_encoder()
    encode = stopping(colours, after)
    with pytest.raises(Stop):
        run([colours], data, tmp_path, batch_size=4)
    seen = colours.pictures_seen
    colours._encode = encode
    again = run([colours], data, tmp_path, batch_size=4)
    assert again.rows == whole.rows
    assert colours.pictures_seen - seen == 18 - seen + 1  # what was lacking, and one to count operations


def test_a_finished_evaluation_encodes_nothing_and_measures_nothing(data, colour_encoder, tmp_path):
    first, again = colour_encoder(), colour_encoder()
    before = run([first], data, tmp_path)
    for file in (tmp_path / "features").rglob("patches*"):
        file.unlink()  # so that a protocol that ran again would have to encode again
    assert run([again], data, tmp_path).rows == before.rows
    assert (first.pictures_seen, again.pictures_seen) == (18 + 1, 1)


def test_another_model_task_or_setting_is_measured(data, colour_encoder, tmp_path):
    run([colour_encoder()], data, tmp_path)
    files = {file.name for file in (tmp_path / "measured").iterdir()}
    assert len(files) == 2
    run([colour_encoder(), colour_encoder("other", 16)], data, tmp_path)
    assert len(list((tmp_path / "measured").iterdir())) == 4
    run([colour_encoder()], data, tmp_path, seed=1)
    run([colour_encoder()], data, tmp_path, size=64)
    assert len(list((tmp_path / "measured").iterdir())) == 8


def test_weights_and_labels_are_part_of_the_key(data, colour_encoder, tmp_path):
    finished, colours = FinishedMeasurements(tmp_path), colour_encoder()
    colours.extra = torch.nn.Linear(2, 2)
    key = finished.key(colours, "knn", data["knn"], {"seed": 0})
    assert key == finished.key(colours, "knn", data["knn"], {"seed": 0})
    assert key != finished.key(colours, "linear", data["knn"], {"seed": 0})
    assert key != finished.key(colours, "knn", data["knn"], {"seed": 1})
    with torch.no_grad():
        colours.extra.weight += 1
    assert key != finished.key(colours, "knn", data["knn"], {"seed": 0})
    key = finished.key(colours, "knn", data["knn"], {"seed": 0})
    colours.adapters = {"heads.a.summary.0.weight": torch.ones(2)}
    assert key != finished.key(colours, "knn", data["knn"], {"seed": 0})
    before = fingerprint(data["knn"])
    data["knn"].train.labels[3] = 0
    assert fingerprint(data["knn"]) != before
    with pytest.raises(TypeError, match="no fingerprint"):
        fingerprint(object())


def test_options_that_are_objects_are_measured_anew(data, colour_encoder, tmp_path):
    assert FinishedMeasurements(tmp_path).key(colour_encoder(), "knn", data["knn"], {"text": object()}) is None
    assert FinishedMeasurements(None).find(None) is None


def test_features_on_disk_equal_those_in_memory(colours, tmp_path):
    images = torch.rand(7, 3, 32, 32)
    plain, stored = extract(colours, images, 3), extract(colours, images, 3, folder=tmp_path)
    assert torch.equal(plain.summary, stored.summary) and torch.equal(plain.patches, stored.patches)
    seen = colours.pictures_seen
    again = extract(colours, images, 3, folder=tmp_path)
    assert torch.equal(again.patches, stored.patches) and colours.pictures_seen == seen
    extract(colours, images.flip(0), 3, folder=tmp_path)
    extract(colours, images, 3, size=16, folder=tmp_path)
    assert colours.pictures_seen == seen + 14
