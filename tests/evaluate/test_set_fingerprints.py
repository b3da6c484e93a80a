"""What tells one set from another is kept: caches and finished evaluations of earlier versions must still be found.

The files here are stand-ins of fixed bytes, of which nothing is decoded but headers.
"""

import base64
import hashlib
import json

import pytest

from eyespot.data import open_multitask, open_source
from eyespot.data.sets import DATASETS, ToyboxConfig, ToyboxData
from eyespot.evaluate import finished
from eyespot.evaluate.finished import fingerprint

PIXEL = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABEAAAAABq7kcWAAAAC0lEQVR4nGNgYAQAAAQAAr96P0oAAAAASUVORK5CYII=")
"""A PNG of one pixel of 16 bits."""

PARALLEL = [
    f"{split}/{kind}/{name}"
    for split in ("train", "val")
    for kind in ("images", "annotations", "depth")
    for name in "ab"
]
FILES = {
    "parallel": [f"{path}.png" for path in PARALLEL],
    "coco": [f"val2017/{kind}/{name}.png" for kind in ("images", "masks") for name in "ab"],
    "frames": [f"{name}.{kind}.png" for name in "abcd" for kind in ("color", "depth")],
    "nyud": [f"{kind}/{name}.png" for kind in ("images", "segmentation", "normals", "edge") for name in "ab"],
    "nyu": [f"{base}/{kind}_{name}.png" for base in ("sync", "test") for kind in ("rgb", "depth") for name in "ab"],
    "pascal": [
        f"{folder}/{name}"
        for name in ("a.jpg", "b.jpg", "a.png", "b.png", "a.mat", "b.mat")
        for folder in (
            *("JPEGImages", "SegmentationClass", "semseg/VOC12", "human_parts", "pascal-context/trainval"),
            *("sal_distill", "normals_distill"),
        )
    ],
    "ade": [
        f"{kind}/{split}/{name}.png"
        for kind in ("images", "annotations")
        for split in ("training", "validation")
        for name in "ab"
    ],
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two folders deep, since names count with the two folders above them."""
    root = tmp_path_factory.mktemp("sets") / "of" / "old"
    for place, files in FILES.items():
        for file in files:
            path = root / place / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(PIXEL)
    texts = {
        "frames/camera-intrinsics.txt": "40 0 16\n0 40 12\n0 0 1\n",
        **{f"frames/{name}.pose.txt": "1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n" for name in "abcd"},
        **{f"nyud/gt_sets/{split}.txt": "a\nb\n" for split in ("train", "val")},
        **{f"nyud/depth/{name}.npy": "stands for an array" for name in "ab"},
        "nyu/nyu_train.txt": "sync/rgb_a.png sync/depth_a.png 5\nsync/rgb_b.png sync/depth_b.png 5\n",
        "nyu/nyu_test.txt": "test/rgb_a.png test/depth_a.png 5\n",
        **{
            f"pascal/ImageSets/{kind}/{split}.txt": "a\nb\n"
            for kind in ("Context", "Segmentation")
            for split in ("train", "val")
        },
        "coco/val2017/annotations.json": json.dumps(
            {
                "classes": [str(number) for number in range(81)],
                "images": [{"file": f"{name}.png", "captions": ["x"]} for name in "ab"],
            }
        ),
    }
    for file, content in texts.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(content)
    return root


MULTITASK = {
    "camvid:parallel": "8f0fe205ac7837562282ad47becebedb",
    "camvid:parallel?tasks=boundary": "3dc0fa5e7f9ae8cfeca6d19e65412c3c",
    "coco:coco": "cf66c0b268545c2d6ec6a4656fb3aabe",
    "coco:coco?height=4&width=6": "1d671e4f621e5f9cf50025bf1f9c3997",
    "kitchen:frames": "8b5287c98c53935eaf593b9ee9937c50",
    "kitchen:frames?tasks=depth": "c58f29e8391df72ee9f73dd725e65bf4",
    "nyud:nyud": "5b4e3542891e445441538ae1c540b062",
    "pascal_context:pascal": "f18396931d737518376addf1f00efcd2",
    "toybox:6@16": "10c380d542ef3a6fff29a907b80ae5ba",
    "toybox:6@16?tasks=depth": "bf3f52f888ea2c240bd46f495d7251ac",
}


@pytest.mark.parametrize("spec", MULTITASK)
def test_sets_for_several_tasks(root, spec):
    name, _, rest = spec.partition(":")
    source = spec if name == "toybox" else f"{name}:{root / rest}"
    assert open_multitask(source, "val").fingerprint() == MULTITASK[spec]


SINGLE = {
    "segmentation camvid parallel": "48cfea0341b4f4c5",
    "segmentation mask_folder parallel": "d9d4ad5b8215afb2",
    "segmentation voc pascal": "f8f215220a5c83d2",
    "segmentation ade20k ade": "429726c499ca1aa4",
    "depth nyu nyu": "45c88a073e7760f0",
    "normals nyu nyu": "4dfa0b26e412dc60",
    "depth rgbd frames": "d4bc1fca8b67a2a3",
    "normals rgbd frames": "7f1cd48f60d78743",
    "depth depth_folder parallel": "aa84b3f8aeb63d71",
    "retrieval coco coco": "5bcc5d67d61f278a",
}


@pytest.mark.parametrize("case", SINGLE)
def test_sets_for_single_tasks(root, case, monkeypatch):
    monkeypatch.setattr(
        finished, "full_fingerprint", lambda data: data.fingerprint()
    )  # what is in PNGs is zlib's affair
    task, name, place = case.split(" ")
    options = {"mask_folder": {"classes": 3}}.get(name, {})
    data = DATASETS[name].openers[task](root / place, **options)
    text = json.dumps(fingerprint(data), sort_keys=True)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == SINGLE[case]


def test_the_toybox():
    assert open_source("toybox:9@32").fingerprint() == "952c63dfe1051fb27548db136f5422e3"
    assert fingerprint(ToyboxData(ToyboxConfig(8, 4, 4, 32, seed=7)).multitask()) == "93571bc009757abf8a98979085f77e82"
