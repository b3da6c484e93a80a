"""A toy encoder, a toy table and a page with everything on it."""

import io

import torch
from PIL import Image

from eyespot.encoders.base import Encoder
from eyespot.evaluate.resolution import CurvePoint, ResolutionCurve
from eyespot.evaluate.results import Column, Metric, ResultTable
from eyespot.features import Features
from eyespot.report import (
    Figure,
    LicenceBox,
    PictureGrid,
    PictureStrips,
    Report,
    Strip,
    StripGroup,
    resolution_figures,
    training_curves,
)
from eyespot.report.exhibits.figures import Scale


class Blocks(Encoder):
    """Average colour of every block; remembers the sizes it saw."""

    def __init__(self, stride=8, native_size=None, name="blocks", license=None):
        super().__init__()
        self.name, self.stride, self.native_size, self.license = name, stride, native_size, license
        self.summary_dim = self.patch_dim = 3
        self.default_size = native_size or (32, 32)
        self.seen = []

    def _encode(self, images):
        assert not self.training
        self.seen.append(tuple(images.shape[2:]))
        patches = torch.nn.functional.avg_pool2d(images, self.stride)
        return Features(patches.mean((2, 3)), patches)


def noise(*shape, seed=0):
    """uint8 pictures that no format can compress."""
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def red_png():
    """A drawing that is no SVG."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 32), "red").save(buffer, "png")
    return buffer.getvalue()


def table(models=("expert", "<script>alert(1)</script>")):
    """Two tasks with a value missing, cost, and settings."""
    columns = [
        Column("cost", Metric("params", unit="M", higher_is_better=False)),
        Column("knn", Metric("accuracy")),
        Column("depth", Metric("RMSE", unit="m", higher_is_better=False)),
        Column("depth", Metric("delta1", headline=False)),
        Column("segmentation", Metric("mIoU")),
    ]
    first, second = models
    rows = {
        first: {
            "cost/params": 5.0,
            "knn/accuracy": 0.5,
            "depth/RMSE": 0.25,
            "depth/delta1": 0.9,
            "segmentation/mIoU": 0.4,
        },
        second: {"cost/params": None, "knn/accuracy": 0.75, "depth/RMSE": 0.5, "segmentation/mIoU": 0.2},
    }
    settings = {"data": {"knn": "toybox <b>"}, "options": {"knn": {"k": 20}}, "seeds": [0, 1]}
    return ResultTable(columns, rows, settings)


def teacher(name="timm/x", licence="cc-by-nc-4.0"):
    return {
        "name": name,
        "licence": licence,
        "summary_dim": 384,
        "patch_dim": 192,
        "stride": 16,
        "parameters": 5_524_416,
    }


def curve():
    points = {
        "timm/free": [CurvePoint((64, 64), {"accuracy": 0.25}), CurvePoint((128, 128), {"accuracy": 0.5})],
        "onnx/a/fixed.onnx": [CurvePoint((96, 96), {"accuracy": 0.75})],
    }
    return ResolutionCurve(
        "knn", (Metric("accuracy"),), ((64, 64), (128, 128)), points, frozenset({"onnx/a/fixed.onnx"})
    )


def full(pictures=2, side=8, columns=("picture", "what"), grids=1):
    """A page with every section; its size is set by the number and sides of its pictures."""
    steps = [{"step": step, "loss": 1.0 / step, "lr": 1e-3} for step in (1, 2, 3)]
    tiles = noise(pictures, 3, side, side)
    seen = PictureGrid(
        "Colours",
        "One cell is one patch.",
        dict.fromkeys(columns, tiles),
        {columns[-1]: [f"note {row}" for row in range(pictures)]},
        Scale("near", "far", ["#000000", "#ffffff"]),
    )
    strip = Strip(
        "a model", list(tiles), [f"tile {place}" for place in range(pictures)], [True, False] * (pictures // 2), "half"
    )
    return Report(
        title="A <script> report",
        summary="Three into one.",
        headline={"Student": "tiny & small", "Minutes": 9.5},
        table=table(),
        resolution=resolution_figures([curve()]),
        figures=[Figure("A drawing", "Red.", red_png(), alt="a red square"), *[seen] * grids],
        examples=[PictureStrips("Neighbours", "The nearest.", [StripGroup("a dog", [strip], tiles[0])])] * grids,
        curves=training_curves({"stage-1": steps}),
        licences=[LicenceBox("student: learnt from", [teacher()])],
        configs={"a run": "seed: 0\nname: '<script>'\n"},
        machines={"a run": {"cpu": "a cpu", "gpus": [], "memory_gib": 15.6, "torch": "2.11"}},
        notes=["One seed only."],
        failures=["a<b>.jpg: truncated"],
    )
