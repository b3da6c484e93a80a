"""Teachers too large to run here: built without memory for their weights, and sent shapes."""

import pytest
import torch
from zoo_timm import GIANTS

from eyespot.encoders import load_encoder

pytestmark = pytest.mark.zoo

# parameters, width of the summary, of the patches, stride, size they were made for, tokens before the patches
SIZES = {
    "vit_pe_core_gigantic_patch14_448": (1_880_066_560, 1536, 1536, 14, 448, 0),
    "vit_pe_lang_gigantic_patch14_448": (1_740_922_624, 1536, 1536, 14, 448, 0),
    "vit_huge_plus_patch16_dinov3": (840_509_440, 1280, 1280, 16, 256, 5),
    "vit_7b_patch16_dinov3": (6_716_030_976, 4096, 4096, 16, 256, 5),
    "vit_giant_patch14_reg4_dinov2": (1_136_483_840, 1536, 1536, 14, 518, 5),
    "vit_giantopt_patch16_siglip_384": (1_163_659_776, 1536, 1536, 16, 384, 0),
    "vit_huge_patch16_radio_v4": (631_985_920, 1280, 1280, 16, 512, 10),
    "samvit_huge_patch16": (637_026_048, 256, 256, 16, 1024, 0),
    "mobilenetv5_300m": (294_126_912, 2048, 2048, 48, 768, 0),
}
# EUPE A.1, in the paper's own rounding
PUBLISHED = {
    "vit_pe_core_gigantic_patch14_448": "1.9B",
    "vit_pe_lang_gigantic_patch14_448": "1.7B",
    "vit_huge_plus_patch16_dinov3": "0.84B",
    "vit_7b_patch16_dinov3": "6.7B",
}


@pytest.fixture(scope="module", params=GIANTS)
def giant(request):
    with torch.device("meta"):
        return load_encoder(f"timm/{request.param}?pretrained=false")


def architecture(giant):
    return giant.name.removeprefix("timm/").partition("?")[0]


def test_sizes(giant):
    parameters, summary, patches, stride, side, prefix = SIZES[architecture(giant)]
    assert sum(weight.numel() for weight in giant.parameters()) == parameters
    assert all(weight.is_meta for weight in giant.parameters())
    assert (giant.summary_dim, giant.patch_dim, giant.stride) == (summary, patches, stride)
    assert giant.default_size == (side, side)
    assert (getattr(giant.model, "num_prefix_tokens", 0), giant.license) == (prefix, None)


def test_sizes_are_those_that_the_paper_names(giant):
    published = PUBLISHED.get(architecture(giant))
    if published is not None:
        billions = SIZES[architecture(giant)][0] / 1e9
        digits = len(published.partition(".")[2]) - 1
        assert f"{billions:.{digits}f}B" == published


def test_features_have_the_announced_shapes(giant):
    for size in [giant.native_size] if giant.native_size else [giant.default_size, giant.fitting_size((224, 336))]:
        features = giant(torch.rand(2, 3, *size, device="meta"))
        assert features.summary.shape == (2, giant.summary_dim)
        assert features.patches.shape == (2, giant.patch_dim, size[0] // giant.stride, size[1] // giant.stride)
    with pytest.raises(ValueError, match=r"takes|multiples"):
        giant(torch.rand(2, 3, 2 * giant.stride + 1, 64, device="meta"))
