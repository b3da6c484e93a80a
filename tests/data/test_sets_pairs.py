import json

import pytest
import torch

from eyespot.data.sets import LayoutError, open_coco, open_spair
from replicas import BUS, CAT, nothing_decoded, photo, text, write_spair


@pytest.fixture
def spair(tmp_path):
    return write_spair(tmp_path)


def test_spair_points_sizes_boxes_and_categories(spair):
    with nothing_decoded():
        data = open_spair(spair)
    assert data.sources is data.targets
    names = [path.name for path in data.sources.paths]
    assert sorted(names) == ["2008_1.jpg", "2008_2.jpg", "2009_1.jpg", "2009_2.jpg"]
    ends = [(names[pair.source][:-4], names[pair.target][:-4]) for pair in data.pairs]
    assert ends == [("2008_1", "2008_2"), ("2009_1", "2009_2"), ("2008_2", "2008_1")]
    first, bus, _ = data.pairs
    assert first.source_points.tolist() == [[10.5, 20.5], [0.5, 29.5]]
    assert first.target_points.tolist() == [[30.5, 40.5], [59.5, 0.5]]
    assert (first.source_size, first.target_size) == ((30, 40), (50, 60))
    assert [pair.reach for pair in data.pairs] == [35, 28, 39]
    assert [pair.group for pair in data.pairs] == ["cat", "bus", "cat"]
    assert bus.target_size == (64, 32)


def test_spair_options(spair):
    assert [pair.reach for pair in open_spair(spair, threshold="img").pairs] == [60, 64, 40]
    assert [pair.group for pair in open_spair(spair, size="small").pairs] == ["bus"]
    limited = open_spair(spair, limit=2)
    assert [pair.group for pair in limited.pairs] == ["cat", "bus"] and len(limited.sources) == 4
    assert len(open_spair(spair, limit=1).sources) == 2  # only pictures that are needed


def test_spair_errors(spair):
    with pytest.raises(LayoutError, match=r"no file .*large/test\.txt; expected .*cvlab\.postech"):
        open_spair(spair / "JPEGImages")
    for key, value in (("split", "train"), ("size", "huge"), ("threshold", "bbox")):
        with pytest.raises(ValueError, match=f"SPair-71k's {key} is .*; got '{value}'"):
            open_spair(spair, **{key: value})
    path = spair / "PairAnnotation" / "test" / f"{BUS}.json"
    path.rename(path.with_name(f"{BUS.replace(':', '_')}.json"))
    assert len(open_spair(spair).pairs) == 3
    path.with_name(f"{BUS.replace(':', '_')}.json").unlink()
    with pytest.raises(LayoutError, match=r"no file .*000002-2009_1-2009_2"):
        open_spair(spair)
    text(spair / "Layout" / "large" / "test.txt", CAT)
    (spair / "JPEGImages" / "cat" / "2008_2.jpg").unlink()
    with pytest.raises(LayoutError, match=r"no file .*cat/2008_2\.jpg"):
        open_spair(spair)
    path = spair / "PairAnnotation" / "test" / f"{CAT}.json"
    text(path, json.dumps({**json.loads(path.read_text()), "trg_kps": [[1, 1]]}))
    with pytest.raises(ValueError, match="2 key points in the one picture, 1 in the other"):
        open_spair(spair)


@pytest.fixture
def coco(tmp_path):
    images = [{"id": number, "file_name": f"{number:012d}.jpg"} for number in (139, 285, 632, 724)]
    for image in images:
        photo(tmp_path / "val2017" / image["file_name"])
    texts = [(632, "c1"), (139, "a1"), (285, "b1"), (139, "a2"), (632, "c2"), (632, "c3")]
    annotations = [{"id": index, "image_id": image, "caption": text} for index, (image, text) in enumerate(texts)]
    text(tmp_path / "annotations" / "captions_val2017.json", json.dumps({"images": images, "annotations": annotations}))
    return tmp_path


def test_coco_joins_pictures_and_captions(coco):
    with nothing_decoded():
        data = open_coco(coco)
    assert [path.stem[-3:] for path in data.pictures.paths] == ["139", "285", "632"]  # 724 has no caption
    assert data.captions == [["a1", "a2"], ["b1"], ["c1", "c2", "c3"]]
    assert open_coco(coco, captions=2).captions[2] == ["c1", "c2"]
    assert open_coco(coco, limit=2).captions == [["a1", "a2"], ["b1"]]
    assert data.pictures.read(0, 1, (8, 8)).shape == (1, 3, 8, 8)


def test_coco_errors(coco):
    with pytest.raises(LayoutError, match=r"captions_val2014\.json or .*val2014/annotations\.json; .*cocodataset\.org"):
        open_coco(coco, split="val2014")
    (coco / "val2017" / "000000000285.jpg").unlink()
    with pytest.raises(LayoutError, match=r"no file .*0285\.jpg"):
        open_coco(coco)
    text(coco / "annotations" / "captions_val2017.json", json.dumps({"images": [], "annotations": []}))
    with pytest.raises(LayoutError, match="no captions in"):
        open_coco(coco)


def test_coco_of_the_shared_folder(shared):
    with nothing_decoded():
        data = open_coco(shared / "data" / "coco")
        other = open_coco(shared / "data" / "coco", split="train2017", limit=10)
    assert len(data.pictures) == len(data.captions) == 50 and len(other.pictures) == 10
    assert {len(captions) for captions in data.captions} == {5}
    kitchen = [path.name for path in data.pictures.paths].index("000000397133.jpg")
    assert data.captions[kitchen][0] == "A man is in a kitchen making pizzas."
    assert isinstance(data.pictures.read(0, 2, (32, 32)), torch.Tensor)
