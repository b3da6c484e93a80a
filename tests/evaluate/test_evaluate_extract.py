import pytest
import torch

from eyespot.data.sets import TensorPictures
from eyespot.evaluate import FeatureBank, extract
from eyespot.features import Features


def test_size_is_native_or_rounded_to_the_stride(colour_encoder):
    free, fixed = colour_encoder(stride=16), colour_encoder(native_size=(24, 40))
    assert free.fitting_size(100) == (96, 96)
    assert free.fitting_size(104) == (112, 112)
    assert free.fitting_size((64, 90)) == (64, 96)
    assert free.fitting_size(3) == (16, 16)
    assert free.fitting_size() == (32, 32)
    assert fixed.fitting_size(100) == (24, 40)
    with pytest.raises(ValueError, match="positive"):
        free.fitting_size(0)


def test_extract_equals_the_encoder_and_does_not_depend_on_the_batch(colours):
    images = torch.rand(7, 3, 32, 32)
    whole = colours(images)
    found = extract(colours, images, batch_size=3)
    torch.testing.assert_close(found.summary, whole.summary)
    torch.testing.assert_close(found.patches.float(), whole.patches, atol=1e-3, rtol=1e-3)
    assert found.patches.dtype == torch.float16
    assert not found.summary.requires_grad


def test_uint8_pictures_are_scaled_and_resized(colours):
    images = torch.full((2, 3, 50, 70), 51, dtype=torch.uint8)
    found = extract(colours, images, size=16)
    assert found.grid == (2, 2)
    torch.testing.assert_close(found.summary, torch.full((2, 48), 0.2))


def test_without_patches_their_mean_is_kept(colours):
    images = torch.rand(2, 3, 32, 32)
    found = extract(colours, images, patches=False)
    torch.testing.assert_close(found.patches.float()[:, :, 0, 0], images.mean((2, 3)), atol=1e-3, rtol=1e-3)


def test_the_encoder_gets_its_mode_back_and_runs_in_eval_mode(colours):
    modes = []
    colours.register_forward_hook(lambda module, *_: modes.append(module.training))
    colours.train()
    extract(colours, torch.rand(1, 3, 32, 32))
    assert modes == [False] and colours.training


def test_progress_counts_pictures(colours):
    seen = []
    extract(colours, torch.rand(5, 3, 32, 32), batch_size=2, progress=lambda done, count: seen.append((done, count)))
    assert seen == [(2, 5), (4, 5), (5, 5)]


def test_large_values_stay_float32(colours):
    colours._encode = lambda images: Features(images.mean((2, 3)), images[:, :, ::8, ::8] + 1e6)
    assert extract(colours, torch.rand(1, 3, 32, 32)).patches.dtype == torch.float32


def test_nan_and_empty_input_are_refused(colours):
    with pytest.raises(ValueError, match="no pictures"):
        extract(colours, torch.rand(0, 3, 32, 32))
    colours._encode = lambda images: Features(images.mean((2, 3)) * float("nan"), images)
    with pytest.raises(ValueError, match="colours returned NaN"):
        extract(colours, torch.rand(1, 3, 32, 32))


def test_the_bank_extracts_each_picture_once(colours):
    pictures = TensorPictures(torch.rand(4, 3, 32, 32))
    bank = FeatureBank(colours)
    first = bank.features(pictures)
    assert bank.features(pictures) is first
    assert bank.summaries(pictures) is first.summary
    assert colours.pictures_seen == 4
    other = TensorPictures(torch.rand(2, 3, 32, 32))
    bank.summaries(other)
    bank.summaries(other)
    assert colours.pictures_seen == 6
