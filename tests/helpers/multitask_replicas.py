"""Tiny replicas of data sets with maps for several tasks."""

import json

import numpy as np
from PIL import Image
from scipy.io import savemat

SIZE = (12, 16)


def save(path, values, kind=np.uint8):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.asarray(values, kind)
    np.save(path, values) if path.suffix == ".npy" else Image.fromarray(values).save(path)


def lines(path, *names):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(names) + "\n", encoding="utf-8")


def noise(seed, *shape, high=256):
    return np.random.default_rng(seed).integers(0, high, shape)


def halved(left, right):
    """A map whose left half has one number, its right half another."""
    values = np.full(SIZE, left)
    values[:, SIZE[1] // 2 :] = right
    return values


NYUD = {"train": ("0001", "0003", "0007"), "val": ("0002",)}


def write_nyud(folder, png=False):
    ending = "png" if png else "jpg"
    for split, names in NYUD.items():
        lines(folder / "gt_sets" / f"{split}.txt", *names)
        for name in names:
            save(folder / "images" / f"{name}.{ending}", noise(int(name), *SIZE, 3))
            save(folder / "segmentation" / f"{name}.png", halved(0, int(name)))
            save(folder / "depth" / f"{name}.npy", halved(2.5, np.nan), np.float32)
            normals = np.zeros((*SIZE, 3))
            normals[:, 8:, 2] = -1
            if png:
                save(folder / "normals" / f"{name}.png", np.rint((normals + 1) / 2 * 255))
                save(folder / "edge" / f"{name}.png", halved(0, 255))
            else:
                save(folder / "normals" / f"{name}.npy", normals, np.float32)
                save(folder / "edge" / f"{name}.npy", halved(0, 1), np.float32)
    return folder


PERSON, CAT = 15, 8


def struct(**fields):
    """A MATLAB struct."""
    kinds = [(name, object) for name in fields]
    found = np.empty((1, 1), kinds)
    for name, value in fields.items():
        found[name][0, 0] = value
    return found


def structs(elements):
    return np.concatenate(elements, axis=1) if elements else np.zeros((0, 0))


def box(top, bottom, left, right):
    mask = np.zeros(SIZE, np.uint8)
    mask[top:bottom, left:right] = 1
    return mask


def someone(kind, mask, **parts):
    found = [struct(part_name=name, mask=part) for name, part in parts.items()]
    return struct(**{"class": "thing", "class_ind": kind, "mask": mask, "parts": structs(found)})


def write_pascal(folder):
    people = [
        someone(PERSON, box(0, 12, 0, 8), head=box(0, 3, 0, 8), luarm=box(3, 6, 0, 4), rlarm=box(3, 6, 4, 8)),
        someone(PERSON, box(0, 12, 8, 12), torso=box(0, 6, 8, 12), lfoot=box(10, 12, 8, 12), neck=box(6, 7, 8, 12)),
        someone(CAT, box(0, 12, 12, 16), head=box(0, 12, 12, 16)),
    ]
    annotated = {"2008_000001": people, "2008_000002": people[2:], "2008_000003": people[1:2]}
    for number, (name, objects) in enumerate(annotated.items()):
        save(folder / "JPEGImages" / f"{name}.jpg", noise(number, *SIZE, 3))
        mask = halved(15, 255)
        save(folder / "semseg" / ("pascal-context" if number else "VOC12") / f"{name}.png", mask)
        for place in ("human_parts", "pascal-context/trainval"):
            (folder / place).mkdir(parents=True, exist_ok=True)
        savemat(folder / "human_parts" / f"{name}.mat", {"anno": struct(imname=name, objects=structs(objects))})
        context = np.asarray(halved(284, 455), np.uint16)  # a person, and window blinds, which NYU does not have
        savemat(folder / "pascal-context" / "trainval" / f"{name}.mat", {"LabelMap": context})
        save(folder / "sal_distill" / f"{name}.png", halved(127, 128))
        save(folder / "normals_distill" / f"{name}.png", np.full((*SIZE, 3), (128, 128, 0)))
    lines(folder / "ImageSets" / "Context" / "train.txt", *annotated)
    lines(folder / "ImageSets" / "Context" / "val.txt", "2008_000002")
    return folder


def write_camvid(folder):
    for split, count in (("train", 4), ("val", 2)):
        for number in range(count):
            save(folder / split / "images" / f"{number}.jpg", noise(number, *SIZE, 3))
            save(folder / split / "annotations" / f"{number}.png", halved(number, 11 if number == 3 else 10))
    return folder


def write_kitchen(folder, frames=5):
    for number in range(frames):
        millimetres = np.full((24, 32), 2000 + 10 * number)
        millimetres[6:18, 10:20] = 1000
        millimetres[0, :3] = 0, 65535, 12000
        save(folder / f"frame-{number}.color.jpg", noise(number, 24, 32, 3))
        save(folder / f"frame-{number}.depth.png", millimetres, np.uint16)
    np.savetxt(folder / "camera-intrinsics.txt", [[40, 0, 16], [0, 40, 12], [0, 0, 1]])
    return folder


def write_coco(folder):
    person = [0.0] * 51
    person[0:3], person[3:6], person[6:9] = [3.5, 4.2, 2], [9, 1, 1], [12, 2, 0]
    for split in ("train2017", "val2017"):
        entries = [{"file": "a.jpg", "person_keypoints": [person]}, {"file": "b.jpg", "person_keypoints": []}]
        for number, entry in enumerate(entries):
            save(folder / split / "images" / entry["file"], noise(number, *SIZE, 3))
            save(folder / split / "masks" / entry["file"].replace("jpg", "png"), halved(0, 80 if number else 255))
        content = {"classes": [str(number) for number in range(81)], "images": entries}
        (folder / split / "annotations.json").write_text(json.dumps(content), encoding="utf-8")
    return folder
