from dataclasses import dataclass, field

import torch
from report_toys import Blocks, noise

from eyespot.data.labelled.base import TensorPictures
from eyespot.evaluate.extraction import FeatureBank
from eyespot.report import Gallery, PictureGrid


@dataclass
class Counting:
    """An exhibit that counts how often it is asked to look."""

    data: TensorPictures
    setting: dict | None
    looked: list = field(default_factory=list)
    name = "counting"

    def look(self, bank):
        self.looked.append(bank.encoder.name)
        return [torch.tensor([1.5, float(len(self.looked))]), torch.arange(3)]

    def draw(self, findings):
        tile = {"a": noise(1, 3, 4, 4)}
        return [PictureGrid(label, str([one.tolist() for one in found]), tile) for label, found in findings.items()]


def shown(exhibit, folder, *encoders, size=16):
    gallery = Gallery([exhibit], folder)
    for encoder in encoders:
        gallery.add(encoder.name, FeatureBank(encoder, size))
    return [figure.caption for figure in gallery.figures()]


def test_what_was_expensive_is_looked_at_once_per_model_data_and_setting(tmp_path):
    pictures = TensorPictures(noise(2, 3, 16, 16))
    exhibit = Counting(pictures, {"steps": 3})
    a, b = Blocks(8, name="a"), Blocks(8, name="b")
    first = shown(exhibit, tmp_path, a, b)
    assert exhibit.looked == ["a", "b"]
    assert shown(exhibit, tmp_path, a, b) == first == ["[[1.5, 1.0], [0, 1, 2]]", "[[1.5, 2.0], [0, 1, 2]]"]
    assert exhibit.looked == ["a", "b"]
    shown(Counting(pictures, {"steps": 4}, exhibit.looked), tmp_path, a)
    shown(Counting(TensorPictures(noise(2, 3, 16, 16, seed=1)), {"steps": 3}, exhibit.looked), tmp_path, a)
    shown(exhibit, tmp_path, a, size=24)
    assert exhibit.looked == ["a", "b", "a", "a", "a"]


def test_what_is_cheap_or_has_no_folder_is_looked_at_again(tmp_path):
    pictures = TensorPictures(noise(2, 3, 16, 16))
    cheap, kept = Counting(pictures, None), Counting(pictures, {"steps": 3})
    for _ in range(2):
        shown(cheap, tmp_path, Blocks(8))
        shown(kept, None, Blocks(8))
    assert len(cheap.looked) == len(kept.looked) == 2
    assert list(tmp_path.iterdir()) == []


def test_without_encoders_nothing_hangs():
    assert shown(Counting(TensorPictures(noise(1, 3, 16, 16)), None), None) == []
