"""Do the quick probes rank encoders by what is in their features, as an independent solver does?

Ten encoders, trained by others and untrained, on real pictures at 224 px: depth and normals of the kitchen of 7-Scenes,
masks of CamVid, classes of Caltech-101. The independent solver is scikit-learn: ridge regression and logistic
regression, the penalty chosen on training pictures, predictions upsampled and scored as the tasks score them. Seconds
are CPU time of a probe alone, on one thread, its features extracted before.

    python benchmarks/probe_check.py --teachers FOLDER --data FOLDER --work FOLDER [--as after] [--independent]

Results go to results/probe_check.json, under the name given by --as. "before" was measured by this script with the
library of commit 28801d1 on the path.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, jaccard_score
from torch import Tensor

from eyespot.data.sets import open_image_folder, open_mask_folder, open_rgbd_depth, open_rgbd_normals
from eyespot.encoders import load_encoder
from eyespot.evaluate import TASKS, FeatureBank
from eyespot.evaluate.protocols.depth import depth_errors
from eyespot.evaluate.protocols.normals import AngularErrors
from eyespot.evaluate.protocols.segmentation import MeanIoU
from eyespot.report import machine_info

RESULTS = Path(__file__).parent / "results" / "probe_check.json"
SIZE = 224
METRICS = {"depth": "RMSE", "normals": "mean", "segmentation": "mIoU", "linear": "accuracy"}
MOST_ROWS = 12_000  # of the logistic regression of masks
SPREAD = 1000.0  # total variance for logistic regression, whose solver starts badly from small numbers
FIFTHS = 5

Scaler = Callable[[np.ndarray, float], Callable[[np.ndarray], np.ndarray]]


def specs(teachers: Path) -> dict[str, str]:
    """Name -> spec of the ten encoders."""
    nets = {f"EfficientNet-Lite{number}": f"tf_efficientnet_lite{number}" for number in (0, 2)}
    released = {name: f"timm/{net}?weights={teachers / net}.in1k.safetensors" for name, net in nets.items()}
    experts = {
        "expert semantic": "semantic_mobilenetv2_in1k",
        "expert segmentation": "segmentation_deeplabv3_voc",
        "expert depth": "depth_fastdepth_nyu",
        "expert keypoints": "keypoints_alike_n",
    }
    untrained = ("tf_efficientnet_lite0", "tf_efficientnet_lite2", "vit_tiny_patch16_224", "resnet18")
    return {
        **released,
        **{name: f"onnx/{teachers / file}.onnx" for name, file in experts.items()},
        **{f"untrained {name}": f"timm/{name}?pretrained=false" for name in untrained},
    }


def open_data(folder: Path) -> dict[str, Any]:
    """Task -> data."""
    return {
        "depth": open_rgbd_depth(folder / "rgbd_kitchen"),
        "normals": open_rgbd_normals(folder / "rgbd_kitchen"),
        "segmentation": open_mask_folder(folder / "camvid"),
        "linear": open_image_folder(folder / "caltech101"),
    }


def probed(bank: FeatureBank, data: dict[str, Any]) -> tuple[dict[str, float], dict[str, float]]:
    """The library's numbers by task, and the seconds that each took."""
    values, seconds = {}, {}
    for task, metric in METRICS.items():
        start = time.process_time()
        values[task] = float(TASKS[task].run(bank, data[task], seed=0)[metric])
        seconds[task] = time.process_time() - start
    return values, seconds


def independent(bank: FeatureBank, data: dict[str, Any], scaler: Scaler) -> dict[str, float]:
    """The same measured by scikit-learn, on features that are scaled in one of two ways.

    Its logistic regression of 71 classes takes minutes on summaries of one scale, so these are standardised only.
    """
    found = {
        "depth": _ridge(bank, data["depth"], scaler, lambda label: label[None], _depth_score),
        "normals": _ridge(bank, data["normals"], scaler, lambda label: label, _normals_score),
        "segmentation": _masks(bank, data["segmentation"], scaler),
    }
    return found if scaler is one_scale else {**found, "linear": _classes(bank, data["linear"], scaler)}


def one_scale(train: np.ndarray, count: float) -> Callable[[np.ndarray], np.ndarray]:
    """Centres features; one number brings their total variance to `count`."""
    mean, scale = train.mean(axis=0), np.sqrt(train.var(axis=0).sum() / count)
    return lambda features: (features - mean) / scale


def every_channel(train: np.ndarray, count: float) -> Callable[[np.ndarray], np.ndarray]:
    """Standardises every channel; a total variance of `count` too, but quiet channels become as loud as the others."""
    mean, std = train.mean(axis=0), train.std(axis=0)
    scale = np.where(std > 1e-6 * std.max(), std, np.inf) * np.sqrt(train.shape[1] / count)
    return lambda features: (features - mean) / scale


def _rows(patches: Tensor) -> np.ndarray:
    """[N, D, h, w] -> [N h w, D]."""
    return patches.float().permute(0, 2, 3, 1).flatten(0, 2).numpy()


def _ridge(
    bank: FeatureBank, data: Any, scaler: Scaler, channels: Callable[[Tensor], Tensor], score: Callable[..., float]
) -> float:
    train, val = bank.features(data.train.pictures).patches, bank.features(data.val.pictures).patches
    grid = train.shape[2:]
    labels = torch.stack([channels(label) for label in data.train.labels])
    measured = (labels != 0).any(1, keepdim=True).float()
    share = F.adaptive_avg_pool2d(measured, grid)
    means = F.adaptive_avg_pool2d(labels * measured, grid) / share.clamp(min=1e-9)
    kept = (share > 0.5).flatten().numpy()
    picture = np.repeat(np.arange(len(train)), grid[0] * grid[1])[kept]
    targets = means.permute(0, 2, 3, 1).flatten(0, 2).double().numpy()[kept]
    scaled = scaler(_rows(train)[kept], 1.0)
    inputs = scaled(_rows(train)[kept])
    fold = picture * FIFTHS // len(train)

    def error(alpha: float) -> float:
        total = 0.0
        for held in range(FIFTHS):
            model = Ridge(alpha).fit(inputs[fold != held], targets[fold != held])
            miss = model.predict(inputs[fold == held]).reshape(-1, targets.shape[1]) - targets[fold == held]
            total += float(np.square(miss).sum())
        return total

    best = min((len(inputs) * 10.0**-power for power in range(-1, 7)), key=error)
    model = Ridge(best).fit(inputs, targets)
    found = torch.from_numpy(model.predict(scaled(_rows(val)))).view(len(val), *grid, -1).permute(0, 3, 1, 2)
    return score(found, data)


def _depth_score(found: Tensor, data: Any) -> float:
    errors = []
    for depth, truth in zip(found, data.val.labels, strict=True):
        errors.append(depth_errors(_upsampled(depth, truth)[0].clamp(data.low, data.high), truth))
    return float(np.mean([error["RMSE"] for error in errors if error is not None]))


def _normals_score(found: Tensor, data: Any) -> float:
    errors = AngularErrors()
    for normals, truth in zip(found, data.val.labels, strict=True):
        errors.update(_upsampled(normals, truth), truth)
    return errors.compute()["mean"]


def _upsampled(output: Tensor, label: Tensor) -> Tensor:
    return F.interpolate(output[None], size=label.shape[-2:], mode="bilinear")[0]


def _masks(bank: FeatureBank, data: Any, scaler: Scaler) -> float:
    train, val = bank.features(data.train.pictures).patches, bank.features(data.val.pictures).patches
    grid = train.shape[2:]
    shares = [
        F.adaptive_avg_pool2d(F.one_hot(mask.long(), data.classes + 1).permute(2, 0, 1).double(), grid)
        for mask in data.train.labels
    ]
    labels = torch.stack(shares)[:, : data.classes].argmax(1).flatten().numpy()
    known = (torch.stack(shares)[:, data.classes] < 0.5).flatten().numpy()
    picture = np.repeat(np.arange(len(train)), grid[0] * grid[1])
    rows = np.random.default_rng(0).permutation(np.flatnonzero(known))[:MOST_ROWS]
    inputs = _rows(train)[rows]
    scaled = scaler(inputs, SPREAD)
    model = _logistic(scaled(inputs), labels[rows], picture[rows] * FIFTHS // len(train) == FIFTHS - 1, _overlap)
    scores = np.full((len(val) * grid[0] * grid[1], data.classes), -1e4)
    scores[:, model.classes_] = model.decision_function(scaled(_rows(val)))
    metric = MeanIoU(data.classes, data.ignore)
    for output, truth in zip(
        torch.from_numpy(scores).view(len(val), *grid, -1).permute(0, 3, 1, 2), data.val.labels, strict=True
    ):
        metric.update(_upsampled(output, truth).argmax(0), truth)
    return metric.compute()


def _classes(bank: FeatureBank, data: Any, scaler: Scaler) -> float:
    train, val = (bank.summaries(split.pictures).numpy() for split in (data.train, data.val))
    scaled, labels = scaler(train, SPREAD), data.train.labels.numpy()
    held = np.random.default_rng(0).permutation(len(labels)) < len(labels) // FIFTHS
    model = _logistic(scaled(train), labels, held, accuracy_score)
    return float((model.predict(scaled(val)) == data.val.labels.numpy()).mean())


def _overlap(truth: np.ndarray, found: np.ndarray) -> float:
    return float(jaccard_score(truth, found, average="macro", zero_division=0))


def _logistic(
    inputs: np.ndarray, labels: np.ndarray, held: np.ndarray, score: Callable[..., float]
) -> LogisticRegression:
    """Fitted to all, with the C that is best on what was held out."""

    def fitted(strength: float, rows: np.ndarray) -> LogisticRegression:
        return LogisticRegression(C=strength, tol=1e-3, max_iter=200).fit(inputs[rows], labels[rows])

    strengths = [1 / (len(labels) * SPREAD * 10.0**-power) for power in range(2, 8)]
    best = max(strengths, key=lambda strength: score(labels[held], fitted(strength, ~held).predict(inputs[held])))
    return fitted(best, np.ones_like(held))


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("teachers", "data", "work"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--as", dest="label", default="after", help="name of this measurement: before or after")
    parser.add_argument("--independent", action="store_true", help="measure by scikit-learn instead")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = open_data(given.data)
    results = json.loads(given.results.read_text()) if given.results.exists() else {}
    for name, spec in specs(given.teachers).items():
        torch.manual_seed(0)
        bank = FeatureBank(load_encoder(spec), SIZE, folder=given.work / "features" / name.replace(" ", "_"))
        for task in METRICS:
            for split in (data[task].train, data[task].val):
                bank.features(split.pictures)
        entry = results.setdefault("encoders", {}).setdefault(name, {"channels": bank.encoder.patch_dim})
        if given.independent:
            for scaler in (one_scale, every_channel):
                entry[f"scikit-learn, {scaler.__name__.replace('_', ' ')}"] = {
                    "values": independent(bank, data, scaler)
                }
        else:
            values, seconds = probed(bank, data)
            entry[given.label] = {"values": values, "seconds": seconds}
        print(name, json.dumps(entry), flush=True)
        results["machine"] = machine_info()
        floors = {task: TASKS[task].floor for task in METRICS if hasattr(TASKS[task], "floor")}
        results |= (
            {"floor": {task: floor(data[task])[METRICS[task]] for task, floor in floors.items()}} if floors else {}
        )
        given.results.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
