import pytest
import torch

from eyespot.report.drawing.colours import PALETTE, UNKNOWN, class_colours, in_colours, stops

# Full colour-vision deficiencies as linear maps of linear RGB: Machado, Oliveira and Fernandes, 2009, table 1.
VISION = {
    "normal": torch.eye(3),
    "protanopia": torch.tensor(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": torch.tensor(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": torch.tensor(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
TO_XYZ = torch.tensor([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
WHITE = torch.tensor([0.9505, 1.0, 1.089])


def lab(colours, vision):
    """CIELAB of sRGB [N, 3] as seen with a deficiency."""
    linear = torch.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    seen = (linear @ VISION[vision].T).clamp(0, 1) @ TO_XYZ.T / WHITE
    root = torch.where(seen > 0.008856, seen ** (1 / 3), 7.787 * seen + 16 / 116)
    x, y, z = root.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def nearest(colours, vision):
    """Distance of the two colours that are hardest to tell apart; about 2.3 is just noticeable."""
    return float(torch.pdist(lab(colours, vision)).min())


@pytest.mark.parametrize("vision", VISION)
def test_the_first_eight_classes_are_told_apart_by_everyone(vision):
    assert nearest(class_colours(8), vision) > 9


@pytest.mark.parametrize("vision", VISION)
def test_the_first_four_lines_are_told_apart_by_everyone(vision):
    lines = torch.tensor([[int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)] for colour in PALETTE])
    assert nearest(lines[:4], vision) > 9
    assert torch.all((lab(lines, "normal")[:, 0] > 40) & (lab(lines, "normal")[:, 0] < 70))  # on white and on black


def test_classes_have_24_colours_and_then_repeat():
    colours = class_colours(50)
    assert colours.shape == (50, 3) and bool(((colours >= 0) & (colours <= 1)).all())
    assert len(colours[:24].unique(dim=0)) == 24
    assert torch.equal(colours[24:48], colours[:24])
    assert nearest(class_colours(24), "normal") > 5


@pytest.mark.parametrize("name", ["viridis", "magma", "cividis"])
def test_scales_grow_steadily_lighter_for_everyone(name):
    colours = in_colours(torch.linspace(0, 1, 32), 0, 1, name).T
    for vision in VISION:
        assert bool((lab(colours, vision)[:, 0].diff() > -0.5).all())


def test_values_beyond_the_scale_get_its_ends_and_unknown_ones_grey():
    values = torch.tensor([[-5.0, 0.0, 2.0], [2.5, 9.0, torch.nan]])
    colours = in_colours(values, 0.0, 2.0)
    assert colours.shape == (3, 2, 3)
    assert torch.equal(colours[:, 0, 0], colours[:, 0, 1])
    assert torch.equal(colours[:, 0, 2], colours[:, 1, 1])
    assert torch.equal(colours[:, 1, 2], torch.full((3,), UNKNOWN))


def test_a_scale_without_extent_is_one_colour():
    assert bool(in_colours(torch.full((2, 2), 3.0), 3.0, 3.0).isfinite().all())


def test_stops_run_from_the_first_to_the_last_colour():
    assert (stops("viridis")[0], stops("viridis")[-1], len(stops("viridis", 5))) == ("#440154", "#fde725", 5)
