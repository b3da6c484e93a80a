"""The quick dense probes: what they are fitted on, that only information in the features counts, other solvers."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression, Ridge
from torch import Tensor

from eyespot.data.sets import (
    DensePictures,
    DepthData,
    NormalsData,
    SegmentationData,
    TensorPictures,
    ToyboxConfig,
    ToyboxData,
)
from eyespot.encoders.base import Encoder
from eyespot.evaluate import TASKS, FeatureBank
from eyespot.evaluate.probing import axes as axes_module
from eyespot.evaluate.probing import cells as cells_module
from eyespot.evaluate.probing.axes import held_out_parts, principal_axes
from eyespot.evaluate.probing.cells import Cells, cell_means, class_shares, labelled_cells
from eyespot.evaluate.probing.logistic import fit_classes
from eyespot.evaluate.probing.ridge import fit_ridge
from eyespot.evaluate.protocols import depth, normals, segmentation
from eyespot.features import Features

WIDTH = 24


class Patches(Encoder):
    """Fixed random nonlinear features of 8 x 8 pixels, which a test may change: `change` takes [B, D, h, w]."""

    name, stride, default_size = "patches", 8, (32, 32)

    def __init__(self, change=lambda patches: patches, width=WIDTH):
        super().__init__()
        self.change = change
        weights = torch.randn(WIDTH, 192, generator=torch.Generator().manual_seed(5)) / 14
        scales = torch.logspace(-1, 1, WIDTH)
        self.register_buffer("weights", weights * scales[:, None])
        self.summary_dim = self.patch_dim = width

    def _encode(self, images):
        patches = torch.einsum("oc,bchw->bohw", self.weights, F.pixel_unshuffle(images - 0.5, 8)).tanh()
        patches = self.change(patches)
        return Features(patches.mean((2, 3)), patches)


@pytest.fixture(scope="module")
def toybox():
    return ToyboxData(ToyboxConfig(train=40, val=20, pairs=1, size=32))


class Blocks:
    """Pictures of coloured blocks; colours tell depth, normal and class of a block."""

    def __init__(self):
        self.splits = [self.split(60, 0), self.split(30, 1)]

    @staticmethod
    def split(count, seed):
        colours = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
        wide = colours.repeat_interleave(8, 2).repeat_interleave(8, 3)
        vectors = F.normalize(wide - torch.tensor([0.5, 0.5, 1.5])[:, None, None], dim=1)
        maps = {"depth": 1 + 3 * wide[:, 0] + wide[:, 1] ** 2, "normals": vectors, "segmentation": wide.argmax(1)}
        return {task: DensePictures(TensorPictures(wide), labels) for task, labels in maps.items()}

    def depth(self):
        return DepthData(*(split["depth"] for split in self.splits))

    def normals(self):
        return NormalsData(*(split["normals"] for split in self.splits))

    def segmentation(self):
        return SegmentationData(*(split["segmentation"] for split in self.splits), classes=3)


@pytest.fixture(scope="module")
def blocks():
    return Blocks()


DENSE = {"depth": "RMSE", "normals": "mean", "segmentation": "mIoU"}


def dense_values(encoder, data):
    bank = FeatureBank(encoder, 32)
    return {task: TASKS[task].run(bank, getattr(data, task)())[metric] for task, metric in DENSE.items()}


def values(encoder, toybox):
    bank = FeatureBank(encoder, 32)
    classes = toybox.classification()
    others = {name: TASKS[name].run(bank, classes)["accuracy"] for name in ("linear", "reading")}
    return dense_values(encoder, toybox) | others


def test_cells_by_hand():
    label = torch.tensor([[1.0, 3.0, 0.0, 0.0], [5.0, 7.0, 2.0, 0.0]])
    means, counts = cell_means(label[None], label > 0, (1, 2))
    assert means.tolist() == [[4.0], [2.0]] and counts.tolist() == [4, 1]
    mask = torch.tensor([[0, 0, 2, 9], [1, 0, 2, 9]])
    shares, counts = class_shares(mask, 3, 9, (1, 2))
    assert shares.tolist() == [[0.75, 0.25, 0], [0, 0, 1]] and counts.tolist() == [4, 2]
    patches = torch.arange(4.0).view(1, 2, 1, 2)
    found = labelled_cells(patches, label[None], lambda one, grid: cell_means(one[None], one > 0, grid), 0)
    assert found.features.tolist() == [[0, 2], [1, 3]] and found.weights.tolist() == [1, 0.25]
    with pytest.raises(ValueError, match="no pixel of the training pictures is labelled"):
        labelled_cells(patches, 0 * label[None], lambda one, grid: cell_means(one[None], one > 0, grid), 0)


@pytest.mark.parametrize("size", [(32, 48), (33, 47), (5, 200)])
def test_means_of_cells_are_those_of_the_pixels_whose_centre_lies_there(size):
    label = torch.rand(size, generator=torch.Generator().manual_seed(0))
    found, counts = cell_means(label[None], label > 0.3, (4, 6))
    for cell in range(24):
        inside = [
            float(label[y, x])
            for y in range(size[0])
            for x in range(size[1])
            if (int((y + 0.5) * 4 / size[0]), int((x + 0.5) * 6 / size[1])) == divmod(cell, 6) and label[y, x] > 0.3
        ]
        assert counts[cell] == len(inside)
        assert float(found[cell, 0]) == pytest.approx(np.mean(inside) if inside else 0)


def test_of_large_data_some_pictures_and_some_cells_of_each_are_taken(monkeypatch):
    monkeypatch.setattr(cells_module, "PICTURES", 4)
    monkeypatch.setattr(cells_module, "CELLS", 20)
    patches, labels = torch.rand(10, 2, 3, 3), torch.ones(10, 6, 6)

    def drawn(seed):
        return labelled_cells(patches, labels, lambda one, grid: cell_means(one[None], one > 0, grid), seed)

    assert drawn(0).pictures.bincount().tolist() == [5, 0, 5, 0, 0, 5, 0, 5]
    assert torch.equal(drawn(0).features, drawn(0).features) and not torch.equal(drawn(0).features, drawn(1).features)


def test_neighbouring_pictures_are_held_out_together_and_each_once():
    groups = torch.arange(11).repeat_interleave(3)
    parts = list(held_out_parts(groups, 1000))
    assert torch.equal(torch.stack(parts).sum(0), torch.ones(33))
    for part in parts:
        held = groups[part].unique()
        assert held.tolist() == list(range(int(held[0]), int(held[-1]) + 1)) and part.sum() == 3 * len(held)
    assert len(list(held_out_parts(groups, 4))) == 2  # of two or three pictures each
    assert len(list(held_out_parts(torch.zeros(7), 50))) == 5 and list(held_out_parts(torch.zeros(1), 50)) == []


@pytest.mark.parametrize(("rows", "width"), [(200, 6), (20, 50)])
def test_axes_are_those_of_the_weighted_covariance(rows, width, monkeypatch):
    monkeypatch.setattr(axes_module, "CHUNK", 70)  # a few rows at a time
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(rows, width, generator=generator, dtype=torch.float64) * torch.logspace(-1, 1, width) + 7
    weights = torch.rand(rows, generator=generator, dtype=torch.float64)
    found = principal_axes(features, weights)
    inputs = found.coordinates(features)
    covariance = np.cov(features.numpy().T, aweights=weights.numpy(), ddof=0)
    wanted = np.sort(np.linalg.eigvalsh(covariance))[::-1][: inputs.shape[1]] / covariance.trace()
    np.testing.assert_allclose(np.cov(inputs.numpy().T, aweights=weights.numpy(), ddof=0), np.diag(wanted), atol=1e-9)
    assert sum(wanted) == pytest.approx(1)
    assert principal_axes(torch.full((5, 3), 7.0)).basis.shape == (3, 0)


CHANGES = {
    "larger": (lambda patches: 300 * patches, WIDTH),
    "tiny": (lambda patches: 1e-7 * patches, WIDTH),
    "shifted": (lambda patches: patches + 3, WIDTH),
    "rotated": (
        lambda patches: torch.einsum(
            "oc,bchw->bohw",
            torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(3))).Q,
            patches,
        ),
        WIDTH,
    ),
    "twice": (lambda patches: torch.cat([patches, patches], 1), 2 * WIDTH),
    "padded": (lambda patches: F.pad(patches, (0, 0, 0, 0, 0, 100)), WIDTH + 100),
}


@pytest.fixture(scope="module")
def plain_values(toybox):
    return values(Patches(), toybox)


@pytest.mark.parametrize("name", CHANGES)
def test_scale_rotation_and_repeated_or_empty_channels_change_nothing(name, toybox, plain_values):
    """But for the rounding of features to float16."""
    found = values(Patches(*CHANGES[name]), toybox)
    for task, value in plain_values.items():
        assert found[task] == pytest.approx(value, rel=0.01), task


def test_an_informative_encoder_is_above_one_of_noise_which_is_at_the_floor(blocks):
    noise = torch.Generator().manual_seed(9)
    seeing = dense_values(Patches(), blocks)
    blind = dense_values(Patches(lambda patches: torch.randn(len(patches), 300, 4, 4, generator=noise), 300), blocks)
    floor = {task: TASKS[task].floor(getattr(blocks, task)())[metric] for task, metric in DENSE.items()}
    for task in ("depth", "normals"):
        assert seeing[task] < 0.8 * floor[task]
        assert blind[task] == pytest.approx(floor[task], rel=0.03)
    assert seeing["segmentation"] > blind["segmentation"] + 0.3
    assert floor["segmentation"] < blind["segmentation"] < 0.25  # a third of a third each, by chance


def random_cells(width=40, count=300, outputs=2, noise=0.5):
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(count, width, generator=generator) * torch.logspace(-1, 0.5, width)
    truth = torch.randn(width, outputs, generator=generator) * (torch.arange(width) % 3 == 0)[:, None]
    targets = features @ truth + noise * torch.randn(count, outputs, generator=generator)
    weights = 0.2 + torch.rand(count, generator=generator)
    return Cells(features, targets, weights, torch.arange(count) // 10)


def by_scikit_learn(cells: Cells, make, loss):
    """The best of our penalties by hand: fits on four fifths of the pictures, judged on the rest; then one on all."""
    inputs = cells.features.double().numpy()
    mean = np.average(inputs, axis=0, weights=cells.weights.numpy())
    scale = np.sqrt(np.average(np.square(inputs - mean), axis=0, weights=cells.weights.numpy()).sum())
    inputs = (inputs - mean) / scale
    pictures = cells.pictures.numpy()
    fifth = pictures * 5 // (pictures.max() + 1)

    def error(penalty):
        return sum(loss(make(penalty, inputs, fifth != held), inputs, fifth == held) for held in range(5))

    best = min(axes_module.PENALTIES, key=error)
    model = make(best, inputs, np.ones(len(inputs), dtype=bool))
    return lambda features: (features.double().numpy() - mean) / scale, model


def test_ridge_equals_scikit_learn():
    cells = random_cells()
    targets, weights = cells.targets.double().numpy(), cells.weights.double().numpy()

    def make(penalty, inputs, rows):
        return Ridge(penalty * weights[rows].sum()).fit(inputs[rows], targets[rows], sample_weight=weights[rows])

    def loss(model, inputs, rows):
        return np.sum(np.square(model.predict(inputs[rows]) - targets[rows]) * weights[rows][:, None])

    scaled, model = by_scikit_learn(cells, make, loss)
    asked = torch.randn(50, 40)
    found = fit_ridge(cells)(asked.T[None, :, :, None])[0, :, :, 0].T
    np.testing.assert_allclose(found.numpy(), model.predict(scaled(asked)), rtol=1e-3, atol=1e-3)


def test_classes_equal_scikit_learn():
    """Shares of classes are rows of each class with that weight."""
    cells = random_cells(width=12, outputs=3, noise=3.0)
    cells = Cells(cells.features, (cells.targets / 2).softmax(1), cells.weights, cells.pictures)
    shares, weights = cells.targets.double().numpy(), cells.weights.double().numpy()

    def make(penalty, inputs, rows):
        count = rows.sum()
        model = LogisticRegression(C=1 / (penalty * weights[rows].sum()), max_iter=2000, tol=1e-8)
        return model.fit(
            np.tile(inputs[rows], (3, 1)),
            np.repeat(np.arange(3), count),
            sample_weight=(shares[rows] * weights[rows][:, None]).T.ravel(),
        )

    found = fit_classes(cells)
    asked = torch.randn(50, 12)
    logits = found(asked.T[None, :, :, None])[0, :, :, 0].T.double()

    def disagreement(penalty):
        scaled, model = by_scikit_learn(cells, lambda _, inputs, rows: make(penalty, inputs, rows), lambda *_: 0.0)
        return float(np.abs(model.predict_proba(scaled(asked)) - logits.softmax(1).numpy()).max())

    assert min(disagreement(penalty) for penalty in axes_module.PENALTIES[2:7]) < 5e-3


def independent_depth(patches: Tensor, val: Tensor, data: DepthData) -> float:
    """RMSE by scikit-learn on standardised channels, the penalty chosen on the last pictures."""

    def rows(maps):
        return maps.double().permute(0, 2, 3, 1).flatten(0, 2).numpy()

    mean, std = rows(patches).mean(0), rows(patches).std(0)
    inputs, asked = (rows(patches) - mean) / std, (rows(val) - mean) / std
    targets = F.adaptive_avg_pool2d(data.train.labels[:, None].double(), (4, 4)).flatten().numpy()
    cut = len(inputs) * 4 // 5

    def error(alpha):
        return np.square(Ridge(alpha).fit(inputs[:cut], targets[:cut]).predict(inputs[cut:]) - targets[cut:]).mean()

    model = Ridge(min(np.logspace(-3, 5, 9), key=error)).fit(inputs, targets)
    found = F.interpolate(torch.from_numpy(model.predict(asked)).view(-1, 1, 4, 4), (32, 32), mode="bilinear")[:, 0]
    errors = (found.clamp(data.low, data.high) - data.val.labels).square().flatten(1).mean(1).sqrt()
    return float(errors.mean())


def test_ten_encoders_stand_in_the_order_of_an_independent_solver(blocks):
    """Of more and more noise, in more and more channels."""
    data = blocks.depth()
    found, wanted = [], []
    for step in range(10):
        noise = torch.Generator().manual_seed(step)

        def change(patches, step=step, noise=noise):
            extra = torch.randn(len(patches), WIDTH + 8 * step, 4, 4, generator=noise)
            return torch.cat([patches + 0.1 * step * extra[:, :WIDTH], extra[:, WIDTH:]], 1)

        bank = FeatureBank(Patches(change, WIDTH + 8 * step), 32)
        train, val = (bank.features(split.pictures).patches for split in (data.train, data.val))
        found.append(depth.run(bank, data)["RMSE"])
        wanted.append(independent_depth(train, val, data))
    assert found == pytest.approx(wanted, rel=0.05)
    ranks = [np.argsort(np.argsort(row)) for row in (found, wanted)]
    assert np.corrcoef(*ranks)[0, 1] > 0.9


@pytest.mark.parametrize("task", DENSE)
def test_validation_labels_never_change_what_is_fitted(task, toybox, monkeypatch):
    module = {"depth": depth, "normals": normals, "segmentation": segmentation}[task]
    heads = []
    quick_head = module.quick_head
    monkeypatch.setattr(module, "quick_head", lambda *given: heads.append(quick_head(*given)) or heads[-1])
    data = getattr(toybox, task)()
    wrong = DensePictures(data.val.pictures, data.val.labels.flip(0).flip(-1))
    other = {
        "depth": lambda: DepthData(data.train, wrong, data.low, data.high),
        "normals": lambda: NormalsData(data.train, wrong),
        "segmentation": lambda: SegmentationData(data.train, wrong, data.classes, data.ignore),
    }[task]()
    first, second = (module.run(FeatureBank(Patches(), 32), one) for one in (data, other))
    assert first != second
    for one, two in zip(heads[0].buffers(), heads[1].buffers(), strict=True):
        assert torch.equal(one, two)


def test_a_single_training_picture_and_features_without_any_variance_are_no_error():
    labels = torch.zeros(1, 16, 16, dtype=torch.int64)
    labels[:, 8:] = 1
    split = DensePictures(TensorPictures(torch.rand(1, 3, 32, 32)), labels)
    data = SegmentationData(split, split, 4)
    assert 0 <= segmentation.run(FeatureBank(Patches(), 32), data)["mIoU"] <= 1
    alike = Patches(lambda patches: 0 * patches + 1)
    assert segmentation.run(FeatureBank(alike, 32), data)["mIoU"] == pytest.approx(0.25)  # one of two classes, halves
    metres = DensePictures(split.pictures, 1 + labels.float())
    assert depth.run(FeatureBank(alike, 32), DepthData(metres, metres))["RMSE"] == pytest.approx(0.5)


def test_a_class_that_no_training_pixel_shows_is_never_the_answer(toybox):
    data = toybox.segmentation()
    head = segmentation.quick_head(
        torch.randn(40, 5, 4, 4, generator=torch.Generator().manual_seed(0)),
        SegmentationData(data.train, data.val, data.classes + 3, data.ignore),
        0,
    )
    assert int(head(1000 * torch.randn(4, 5, 4, 4)).argmax(1).max()) < data.classes
