"""Options as people write them, and what a wrong name is answered with."""

import pytest

from eyespot.specs import lookup, nearest_names, read_options, suggestion, write_options

TABLE = {"segmentation": 1, "depth": 2, "knn": 3}


@pytest.mark.parametrize(
    "options",
    [
        {"a": 3, "b": True, "c": ("x", 0.5), "d": "one two"},
        {"path": "/some/where", "sizes": (224, 448), "off": False},
        {"weights": "/disk/a+b & 100%,?=#ü.safetensors", "names": ("a,b", "c d")},
        {},
    ],
)
def test_options_survive_writing_and_reading(options):
    assert read_options(write_options(options)) == options


def test_a_plus_is_a_plus():
    assert read_options("weights=a+b.safetensors&flag&sizes=224,448") == {
        "weights": "a+b.safetensors",
        "flag": "",
        "sizes": (224, 448),
    }
    assert read_options("weights=e%2Cf.safetensors") == {"weights": "e,f.safetensors"}


def test_a_right_name_gives_its_entry():
    assert lookup(TABLE, "depth", "task") == 2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("segmentaton", "no task 'segmentaton'; did you mean 'segmentation'?"),
        ("Depth", "no task 'Depth'; did you mean 'depth'?"),
        ("zzz", "no task 'zzz'; there are segmentation, depth, knn"),
        ("", "no task ''; there are segmentation, depth, knn"),
    ],
)
def test_a_wrong_name_is_answered_with_the_nearest_or_all(wrong, message):
    with pytest.raises(ValueError) as caught:
        lookup(TABLE, wrong, "task")
    assert str(caught.value) == message


def test_an_empty_table_says_so():
    with pytest.raises(ValueError, match="no task 'depth'; there are none"):
        lookup({}, "depth", "task")


def test_the_nearest_names_come_first_as_they_are_written():
    known = ["ViT-B-16", "ViT-B-32", "ViT-L-14", "RN50"]
    assert nearest_names("vit-b-32", known) == ["ViT-B-32"]
    assert nearest_names("vit-b-33", known, most=2) == ["ViT-B-32", "ViT-B-16"]
    assert nearest_names("RN", known) == ["RN50"]
    assert nearest_names("RN", known, cutoff=0.9) == []
    assert nearest_names("dinos", ["dino", "Dino", "DINO"]) == ["dino"]


def test_a_lower_cutoff_guesses_more_boldly():
    assert suggestion("v100", ["cpu", "a100-80gb"], cutoff=0.4) == "did you mean 'a100-80gb'?"
    assert suggestion("v100", ["cpu", "a100-80gb"]) == "there are cpu, a100-80gb"
