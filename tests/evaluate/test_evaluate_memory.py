"""The quick dense probes hold neither the feature map nor the labels in memory."""

import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from eyespot import contents
from eyespot.data.labelled import base
from eyespot.data.labelled.base import FileLabels
from eyespot.data.sets import DensePictures, DepthData, SegmentationData
from eyespot.encoders.base import Encoder
from eyespot.evaluate import FeatureBank
from eyespot.evaluate.protocols import depth, segmentation
from eyespot.features import Features

STATUS = Path("/proc/self/status")
SIDE = 256


class Shuffled(Encoder):
    """All pixels of a cell as its feature: 192 numbers per 8 x 8 pixels."""

    name, summary_dim, patch_dim, stride, default_size = "shuffled", 3, 192, 8, (SIDE, SIDE)

    def _encode(self, images):
        return Features(images.mean((2, 3)), F.pixel_unshuffle(images, 8))


class MadePictures:
    """Pictures made when they are read."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def read(self, start, stop, size):
        return torch.stack([torch.full((3, *size), (index % 7) / 7) for index in range(start, stop)])

    def fingerprint(self):
        return "made"


def anonymous_bytes():
    """Memory of this process without the pages of mapped files, which the system takes back when it needs them."""
    lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    return int(lines["RssAnon"].split()[0]) * 1024


class Peak:
    """The largest `anonymous_bytes` while the block runs."""

    def __enter__(self):
        self.most = anonymous_bytes()
        self.ended = threading.Event()
        self.watcher = threading.Thread(target=self._watch)
        self.watcher.start()
        return self

    def _watch(self):
        while not self.ended.is_set():
            self.most = max(self.most, anonymous_bytes())
            time.sleep(0.002)

    def __exit__(self, *_):
        self.ended.set()
        self.watcher.join()


@pytest.mark.skipif(not STATUS.exists() or "RssAnon" not in STATUS.read_text(), reason="needs Linux's /proc")
@pytest.mark.parametrize("task", [pytest.param("segmentation", marks=pytest.mark.slow), "depth"])
def test_memory_does_not_grow_with_the_data_set(task, tmp_path, monkeypatch):
    """Five times the pictures, the same memory; of the added ones features are 151 MB, labels 101 MB or more."""
    monkeypatch.setattr(base, "KEPT_BYTES", 1e6)
    path = tmp_path / "label.npy"
    halves = np.repeat([1, 2], SIDE // 2)[:, None].repeat(SIDE, 1)
    np.save(path, halves.astype(np.float32 if task == "depth" else np.int64))

    def most(count):
        labels = FileLabels([path] * count, lambda file: torch.from_numpy(np.load(file)))
        dense = DensePictures(MadePictures(count), labels)
        data = DepthData(dense, dense) if task == "depth" else SegmentationData(dense, dense, classes=5)
        run = depth.run if task == "depth" else segmentation.run
        with Peak() as peak:
            run(FeatureBank(Shuffled(), batch_size=4, folder=Path(tempfile.mkdtemp(dir=tmp_path))), data)
        return peak.most

    most(16)  # loads libraries and fills the allocator's pools
    few = most(96)
    # What the allocator happens to keep differs by 100 MB; what grows with the data is there each time.
    assert any(most(480) < few + 60e6 for _ in range(4))


def test_labels_are_read_once_as_long_as_there_is_room(monkeypatch, tmp_path):
    monkeypatch.setattr(base, "KEPT_BYTES", 100)
    monkeypatch.setattr(contents, "SETTLED", -(10**18))  # files that were written just now count as settled
    files = [tmp_path / str(number) for number in range(4)]
    for file in files:
        file.touch()
    reads = []

    def read(path):
        reads.append(int(path.name))
        return torch.full((64,), int(path.name), dtype=torch.uint8)

    labels = FileLabels(files, read)
    for _ in range(3):
        assert [int(label[0]) for label in labels[0:4]] == [0, 1, 2, 3] and int(labels[-1][0]) == 3
    assert [reads.count(path) for path in range(4)] == [1, 1, 3, 6]
