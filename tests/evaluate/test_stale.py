"""Measurements and features hold as long as what is in the files is the same: pictures, labels, texts, models."""

import json
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from eyespot.evaluate import evaluate
from eyespot.evaluate.finished import files_named

LONG_AGO = 10**18
COLOURS = {"blue": (0, 0, 200), "red": (200, 0, 0)}


def scores(encoder: Any, task: str, data: str, folder: Path, **options: Any) -> dict[str, float | None]:
    """Of one task, and nothing else."""
    row = next(iter(evaluate([encoder], [task], {task: data}, folder=folder, options={task: options}).rows.values()))
    return {key: value for key, value in row.items() if key.startswith(task)}


def paint(file: Path, colour: tuple[int, int, int]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (32, 32), colour).save(file)
    os.utime(file, ns=(LONG_AGO, LONG_AGO))


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """Pictures of two colours, in a format whose size in bytes follows from the shape."""
    for split in ("train", "val"):
        for name, colour in COLOURS.items():
            for number in range(3):
                paint(tmp_path / f"classes/{split}/{name}/{number}.bmp", colour)
    return tmp_path / "classes"


def test_pictures(classes: Path, tmp_path: Path, colour_encoder: Any) -> None:
    assert scores(colour_encoder(), "knn", str(classes), tmp_path / "out")["knn/accuracy"] == 1
    for name, colour in COLOURS.items():
        for number in range(3):
            paint(classes / f"val/{name}/{number}.bmp", colour[::-1])  # red is blue
    with pytest.warns(UserWarning, match=r"knn of .*measured before with other data"):
        assert scores(colour_encoder(), "knn", str(classes), tmp_path / "out")["knn/accuracy"] == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert scores(colour_encoder(), "knn", str(classes), tmp_path / "out")["knn/accuracy"] == 0


def test_labels(tmp_path: Path, colour_encoder: Any) -> None:
    def write(offset: float) -> None:
        for split in ("train", "val"):
            for number in range(3):
                paint(tmp_path / f"rooms/{split}/images/{number}.png", (60 * number, 0, 0))
                file = tmp_path / f"rooms/{split}/depth/{number}.npy"
                file.parent.mkdir(parents=True, exist_ok=True)
                np.save(file, np.full((32, 32), offset + number, np.float32))
                os.utime(file, ns=(LONG_AGO, LONG_AGO))

    place = f"depth_folder:{tmp_path / 'rooms'}"
    write(1)
    first = scores(colour_encoder(), "depth", place, tmp_path / "out")
    write(4)
    with pytest.warns(UserWarning, match="other data"):
        second = scores(colour_encoder(), "depth", place, tmp_path / "out")
    assert second == scores(colour_encoder(), "depth", place, tmp_path / "fresh") != first


@pytest.mark.filterwarnings("ignore:.*measured before with other files")
def test_files_among_the_options(classes: Path, tmp_path: Path, colour_encoder: Any) -> None:
    """A reference model whose weights were written anew, within one process."""
    from safetensors.torch import save_file

    (tmp_path / "eyes.py").write_text(
        "import torch, eyespot\n"
        "from safetensors.torch import load_file\n"
        "class Eyes(eyespot.Encoder):\n"
        "    def __init__(self):\n"
        "        super().__init__(); self.summary_dim = self.patch_dim = 3; self.stride = 16\n"
        "        self.default_size = (32, 32)\n"
        f"        self.register_buffer('gain', load_file({str(tmp_path / 'eyes.py.safetensors')!r})['gain'])\n"
        "    def _encode(self, x):\n"
        "        p = torch.nn.functional.avg_pool2d(x, 16) * self.gain[:, None, None]\n"
        "        return eyespot.Features(p.mean((2, 3)), p)\n"
    )
    found = []
    for gain in ([1.0, 1.0, 1.0], [0.0, 1.0, 0.0]):
        save_file({"gain": torch.tensor(gain)}, tmp_path / "eyes.py.safetensors")
        reference = f"python/{tmp_path}/eyes.py:Eyes"
        found.append(scores(colour_encoder(), "geometry", str(classes), tmp_path / "out", reference=reference))
    assert found[0]["geometry/CKA"] != found[1]["geometry/CKA"]


def test_which_files_an_option_names(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    for name in ("a.txt", "b.onnx", "b.onnx_data", "model/config.json", "model/model.safetensors"):
        (tmp_path / name).write_bytes(name.encode())

    def named(value: Any) -> list[str]:
        return [Path(file).relative_to(tmp_path).as_posix() for file, _ in files_named(value)]

    twice = {"text": str(tmp_path / "a.txt"), "k": 3, "templates": ["a {}", str(tmp_path / "a.txt")]}
    assert named(twice) == ["a.txt"]
    assert named(f"onnx/{tmp_path}/b.onnx?size=64") == ["b.onnx", "b.onnx_data"]
    assert named(f"run/{tmp_path}/model") == ["model/config.json", "model/model.safetensors"]
    assert named(f"timm/vit?weights={tmp_path}/a.txt") == ["a.txt"]
    assert named("timm/vit") == named(None) == []


def test_what_was_kept_says_of_what_it_is(classes: Path, tmp_path: Path, colour_encoder: Any) -> None:
    scores(colour_encoder(), "knn", str(classes), tmp_path)
    (kept,) = (json.loads(file.read_text()) for file in (tmp_path / "measured").glob("*.json"))
    assert {"data", "weights", "files", "eyespot", "setting", "task", "model"} <= kept["facts"].keys()
