import pytest
import torch
import torch.nn.functional as F

from eyespot.features import Features, resize_map


def features(count=2, grid=(3, 5)):
    return Features(torch.randn(count, 4), torch.randn(count, 6, *grid))


def test_length_grid_and_tokens():
    one = features()
    assert len(one) == 2 and one.grid == (3, 5) and one.tokens.shape == (2, 15, 6)
    for row in range(3):
        for column in range(5):
            assert torch.equal(one.tokens[:, row * 5 + column], one.patches[:, :, row, column])


@pytest.mark.parametrize(
    ("summary", "patches", "says"),
    [
        ((2, 4), (2, 15, 6), r"patches \[B, D, h, w\]"),
        ((2, 1, 4), (2, 6, 3, 5), r"summary \[B, C\]"),
        ((2, 4), (3, 6, 3, 5), "summary holds 2 pictures, patches 3"),
    ],
)
def test_other_shapes_are_refused(summary, patches, says):
    with pytest.raises(ValueError, match=says):
        Features(torch.zeros(summary), torch.zeros(patches))


def test_they_cannot_be_changed():
    with pytest.raises(AttributeError):
        features().summary = torch.zeros(2, 4)  # type: ignore[misc]


def test_selection_type_and_device():
    one = features(3)
    chosen = one[torch.tensor([2, 0])]
    assert torch.equal(chosen.summary, one.summary[[2, 0]]) and torch.equal(chosen.patches, one.patches[[2, 0]])
    assert len(one[1:]) == 2
    half = Features(one.summary.half(), one.patches.bfloat16()).float()
    assert half.summary.dtype == half.patches.dtype == torch.float32
    moved = one.to("meta")
    assert moved.summary.device.type == moved.patches.device.type == "meta"


@pytest.mark.parametrize("grid", [(6, 10), (2, 3), (7, 4)])
def test_resizing_is_bicubic_in_both_directions(grid):
    one = features()
    wanted = F.interpolate(one.patches, size=grid, mode="bicubic", align_corners=False)
    resized = one.resized(grid)
    torch.testing.assert_close(resized.patches, wanted)
    assert resized.summary is one.summary and resized.grid == grid


def test_resizing_to_the_same_grid_changes_nothing():
    patches = torch.randn(1, 2, 3, 5)
    assert resize_map(patches, (3, 5)) is patches


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_resizing_keeps_the_type_and_computes_in_float32(dtype):
    patches = torch.randn(1, 2, 3, 5).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        resized = resize_map(patches, (6, 6))
    assert resized.dtype == dtype
    wanted = F.interpolate(patches.float(), size=(6, 6), mode="bicubic", align_corners=False)
    tolerance = max(torch.finfo(dtype).eps, 1e-6)  # float64 maps are computed in float32 as well
    torch.testing.assert_close(resized, wanted.to(dtype), rtol=tolerance, atol=tolerance)


def test_a_constant_map_stays_constant_and_gradients_flow():
    patches = torch.full((1, 2, 4, 4), 0.7, requires_grad=True)
    resized = resize_map(patches, (9, 5))
    torch.testing.assert_close(resized, torch.full((1, 2, 9, 5), 0.7))
    resized.sum().backward()
    torch.testing.assert_close(patches.grad.sum(), torch.tensor(2.0 * 9 * 5))


def test_logits_go_where_the_features_go():
    one = Features(torch.randn(3, 4), torch.randn(3, 6, 2, 2), torch.randn(3, 5).half())
    assert one.float().logits.dtype == torch.float32
    assert torch.equal(one[1:].logits, one.logits[1:])
    assert torch.equal(one.resized((4, 4)).logits, one.logits)
    assert one.to("meta").logits.is_meta
    assert features(3).float().logits is None


def test_logits_are_one_row_per_picture():
    with pytest.raises(ValueError, match="logits must be"):
        Features(torch.zeros(2, 4), torch.zeros(2, 6, 1, 1), torch.zeros(3, 5))


@pytest.mark.parametrize("headed", [False, True])
def test_features_are_exported_with_and_without_logits(headed):
    class Toy(torch.nn.Module):
        def forward(self, images):
            summary = images.mean((2, 3))
            return Features(summary, images, 2 * summary if headed else None)

    program = torch.export.export(Toy(), (torch.rand(2, 3, 4, 4),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    found = program.module()(torch.ones(5, 3, 4, 4))
    assert len(program.graph_signature.user_outputs) == 2 + headed
    assert (found.logits.tolist() == [[2.0] * 3] * 5) if headed else (found.logits is None)
