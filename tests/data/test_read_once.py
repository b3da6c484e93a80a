"""Every mask and depth map is decoded once per picture, whatever is made of it, and none that nobody asked for."""

import pickle
from collections import Counter

import pytest

import eyespot.data.sets.rgbd as rgbd
from eyespot.data.sets import open_multitask
from multitask_replicas import write_camvid, write_coco, write_kitchen, write_nyud, write_pascal
from replicas import counted_decodes

WRITERS = {
    "camvid": (write_camvid, {"0.png": 1}),
    "coco": (write_coco, {"a.png": 1}),
    "kitchen": (write_kitchen, {"frame-0.depth.png": 1}),
    "nyud": (write_nyud, {"0001.png": 1, "0001.npy": 3}),  # the segmentation; depth, normals and boundaries
    "pascal_context": (
        write_pascal,
        # Of classes, saliency and normals; of parts, and the 459 classes, of which normals and boundaries come.
        {"2008_000001.png": 3, "2008_000001.mat": 2},
    ),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_label_file_is_decoded_once_per_picture(tmp_path, name):
    write, expected = WRITERS[name]
    data = open_multitask(f"{name}:{write(tmp_path)}", "train")
    with counted_decodes() as counts:
        sample = data.read(0)
    assert list(sample.maps) == list(data.tasks)
    assert counts == expected
    with counted_decodes() as counts:  # nothing is kept between pictures: sets are larger than memory
        data.read(0)
    assert counts == expected


def test_what_is_not_asked_for_is_not_decoded(tmp_path):
    write_pascal(tmp_path)
    with counted_decodes() as counts:
        open_multitask(f"pascal_context:{tmp_path}?tasks=segmentation+boundary", "train").read(0)
    assert counts == {"2008_000001.png": 1, "2008_000001.mat": 1}


def test_normals_of_a_frame_are_fitted_once(tmp_path, monkeypatch):
    fitted, fit = Counter(), rgbd.depth_to_normals

    def counting(*args):
        fitted["normals"] += 1
        return fit(*args)

    monkeypatch.setattr(rgbd, "depth_to_normals", counting)
    data = open_multitask(f"kitchen:{write_kitchen(tmp_path)}", "train")
    data.read(0)
    assert fitted["normals"] == 1
    open_multitask(f"kitchen:{tmp_path}?tasks=depth", "train").read(0)
    assert fitted["normals"] == 1


@pytest.mark.parametrize("name", WRITERS)
def test_sets_can_be_sent_to_a_worker(tmp_path, name):
    write, _ = WRITERS[name]
    data = open_multitask(f"{name}:{write(tmp_path)}", "train")
    assert pickle.loads(pickle.dumps(data)).fingerprint() == data.fingerprint()
