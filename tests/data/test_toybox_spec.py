"""The toybox's name means one thing wherever it is written, and its scenes are shown to one party each."""

from itertools import combinations

import pytest

from eyespot.data import open_multitask, open_source
from eyespot.data.sets import ToyboxConfig, ToyboxData
from eyespot.data.toybox import spec
from eyespot.data.toybox.spec import ToyboxSpec, is_toybox, read_toybox_spec


def readers():
    return [open_source, lambda name: open_multitask(name, "train"), ToyboxConfig.parse, read_toybox_spec]


def test_a_spec_says_how_many_scenes_and_how_large():
    assert read_toybox_spec("toybox") == ToyboxSpec(1000, 96)
    assert read_toybox_spec("toybox:600") == ToyboxSpec(600, 96)
    assert read_toybox_spec("toybox:600@64") == ToyboxSpec(600, 64)
    assert read_toybox_spec("toybox", 4096).count == 4096
    assert [ToyboxSpec(count).validation for count in (1, 2, 7, 600)] == [1, 1, 3, 300]


def test_all_readers_agree():
    source, scenes, config = open_source("toybox:9@16"), open_multitask("toybox:9@16", "train"), "toybox:9@16"
    assert (len(source), source.size) == (len(scenes), scenes.size) == (9, 16)
    assert ToyboxConfig.parse(config) == ToyboxConfig(9, 4, 4, 16)
    assert len(open_multitask(config, "val")) == 4
    assert (len(open_source("toybox")), len(open_multitask("toybox", "train")), ToyboxConfig.parse("toybox").train) == (
        4096,
        1000,
        1000,
    )


@pytest.mark.parametrize(
    "name", ["toybox:", "toybox:0", "toybox:many", "toybox:@64", "toybox@64", "toybox:3@", "toybox:-1"]
)
@pytest.mark.parametrize("reader", range(4))
def test_other_forms_are_refused_by_all(name, reader):
    assert is_toybox(name)
    with pytest.raises(ValueError, match=r"is not of the form toybox\[:COUNT\[@SIZE\]\], for example toybox:\d+@96"):
        readers()[reader](name)


@pytest.mark.parametrize("reader", range(4))
def test_too_small_pictures_are_refused_by_all(reader):
    with pytest.raises(ValueError, match="'toybox:4@7': a toybox picture has at least 8 pixels a side"):
        readers()[reader]("toybox:4@7")


def test_folders_are_not_the_toybox():
    assert not any(map(is_toybox, ("./toybox", "toyboxes", "toybox/train", "camvid:toybox", "")))


def test_whose_scenes_are_whose():
    source = open_source("toybox:5@8")
    train, val = (open_multitask("toybox:5@8", split) for split in ("train", "val"))
    assert [source.scene_seed(index) for index in range(5)] == train.seeds == list(range(5))
    assert val.seeds == [1_700_000_000, 1_700_000_001]
    probes = ToyboxData(ToyboxConfig(3, 2, 1, 8, seed=4))
    assert list(probes.scenes("train")) == [1_004_000_000, 1_004_000_001, 1_004_000_002]
    assert list(probes.scenes("val")) == [1_504_000_000, 1_504_000_001]
    assert spec.FIRST_EXPERT == 3_000_000_000


def test_who_trains_and_who_measures_see_other_scenes():
    """At any size in use: a million scenes of each, and every seed of the probes."""
    million, all_seeds = 1_000_000, spec.PROBE_SEEDS * spec.SCENES_PER_PROBE_SEED
    trained = {
        "pictures": range(spec.FIRST_TRAINING, spec.FIRST_TRAINING + million),
        "probes": range(spec.FIRST_PROBE_TRAINING, spec.FIRST_PROBE_TRAINING + all_seeds),
        "experts": range(spec.FIRST_EXPERT, spec.FIRST_EXPERT + million),
        "pictures of another seed": range(spec.SCENES_PER_SOURCE_SEED, spec.SCENES_PER_SOURCE_SEED + million),
    }
    measured = {
        "probes": range(spec.FIRST_PROBE_VALIDATION, spec.FIRST_PROBE_VALIDATION + all_seeds),
        "several tasks": range(spec.FIRST_MULTITASK_VALIDATION, spec.FIRST_MULTITASK_VALIDATION + million),
    }

    def apart(one, other):
        return one.stop <= other.start or other.stop <= one.start

    assert all(apart(one, other) for one in trained.values() for other in measured.values())
    assert all(apart(one, other) for one, other in combinations(trained.values(), 2))
