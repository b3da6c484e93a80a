import pytest
import torch

from eyespot.data.labelled.base import NormalsData
from eyespot.data.sets import DensePictures, TensorPictures, ToyboxConfig, ToyboxData
from eyespot.evaluate import FeatureBank
from eyespot.evaluate.protocols import normals
from eyespot.evaluate.protocols.normals import AngularErrors, angles_between


def turned(degrees):
    """Unit vectors that lie so many degrees from (0, 0, -1)."""
    angle = torch.deg2rad(torch.as_tensor(degrees, dtype=torch.float64))
    return torch.stack([angle.sin(), torch.zeros_like(angle), -angle.cos()])


def test_angles_are_exact_from_0_to_180_degrees():
    wanted = torch.tensor([0.0, 1e-6, 0.01, 11.25, 90, 179.99, 180], dtype=torch.float64)
    found = angles_between(5 * turned(wanted), turned(torch.zeros(7)))
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-9)
    arc_cosine = torch.rad2deg((turned(wanted) * turned(torch.zeros(7))).sum(0).clamp(-1, 1).acos())
    torch.testing.assert_close(found, arc_cosine, rtol=0, atol=1e-5)


def test_errors_by_hand():
    errors = AngularErrors()
    truth = turned(torch.zeros(1, 5))
    truth[:, 0, 4] = 0  # not measured
    errors.update(3 * turned([[0.005, 10.005, 20.005, 40.005, 170.0]]), truth)
    errors.update(turned([[25.005]]), turned([[0.0]]))
    found = errors.compute()
    assert found["mean"] == pytest.approx((0 + 10 + 20 + 40 + 25) / 5 + 0.005, abs=1e-6)
    assert found["median"] == pytest.approx(20.005, abs=1e-6)
    assert [found["within 11.25"], found["within 22.5"], found["within 30"]] == pytest.approx([0.4, 0.6, 0.8])
    with pytest.raises(ValueError, match="measured normal"):
        AngularErrors().compute()


def test_the_median_is_that_of_all_angles():
    generator = torch.Generator().manual_seed(0)
    angles = 180 * torch.rand(999, generator=generator, dtype=torch.float64) ** 2
    errors = AngularErrors()
    for part in angles.split(100):
        errors.update(turned(part[None]), turned(torch.zeros_like(part[None])))
    found = errors.compute()
    assert found["median"] == pytest.approx(float(angles.median()), abs=0.01)
    assert found["mean"] == pytest.approx(float(angles.mean()))


def coloured_normals(count, seed):
    """Blocks whose colour is the normal, on a half sphere towards the camera; nothing measured on the first row."""
    vectors = torch.randn(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    vectors[:, 2] = -vectors[:, 2].abs()
    vectors = vectors / vectors.norm(dim=1, keepdim=True)
    whole = vectors.repeat_interleave(8, 2).repeat_interleave(8, 3)
    pictures = TensorPictures((whole + 1) / 2)
    labels = whole.clone()
    labels[:, :, 0] = 0
    return DensePictures(pictures, labels)


def test_normals_that_are_linear_in_the_features_are_found(colours):
    data = NormalsData(coloured_normals(25, 0), coloured_normals(8, 1))
    first = normals.run(FeatureBank(colours), data)
    assert first["median"] < 20 and first["within 30"] > 0.6  # the rest lies between blocks
    assert normals.run(FeatureBank(colours), data) == first
    noise = NormalsData(data.train, DensePictures(coloured_normals(8, 2).pictures, data.val.labels))
    assert normals.run(FeatureBank(colours), noise)["median"] > 30


def test_the_toybox_s_normals_fit_its_depth():
    """The ground is level: its normal is the same everywhere in a picture, and all are unit and face the camera."""
    toybox = ToyboxData(ToyboxConfig(train=3, val=2, pairs=1, size=32))
    data = toybox.normals()
    maps = data.train.labels
    assert maps.shape == (3, 3, 32, 32) and maps.dtype == torch.float32
    assert data.train.pictures is toybox.depth().train.pictures
    torch.testing.assert_close(maps.norm(dim=1), torch.ones(3, 32, 32), rtol=0, atol=2e-3)
    ground = toybox.segmentation().train.labels == 0
    for scene in range(3):
        inside = maps[scene][:, ground[scene]]
        assert inside.std(dim=1).max() < 1e-3 and inside[1].mean() < -0.2  # y points down
