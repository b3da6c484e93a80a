import pytest
import torch

from eyespot.encoders import load_encoder
from eyespot.evaluate.cost import cost


@pytest.mark.parametrize(
    ("name", "size", "giga_macs", "parameters"),
    [
        # EUPE paper notes, B.4: GMAC at 256 and 512; parameters less what timm's twin lacks (mask token, key bias)
        ("vit_tiny_patch16_dinov3_qkvb", 256, 1.7, 5.492),
        ("vit_tiny_patch16_dinov3_qkvb", 512, 10.5, 5.492),
        ("vit_small_patch16_dinov3_qkvb", 256, 6.2, 21.601),
        ("convnext_tiny", 256, 5.8, 27.820),
    ],
)
def test_cost_of_the_eupe_family(name, size, giga_macs, parameters):
    found = cost(load_encoder(f"timm/{name}?pretrained=false"), size, timing=False)
    assert round(found["cost/GMACs"], 1) == giga_macs
    assert found["cost/params"] == pytest.approx(parameters, abs=6e-3)
    assert "cost/ms" not in found


def test_a_linear_layer_by_hand(colours):
    colours.extra = torch.nn.Linear(48, 10, bias=False)
    encode = colours._encode
    colours._encode = lambda images: type(features := encode(images))(colours.extra(features.summary), features.patches)
    found = cost(colours, None, timing=True)
    assert found["cost/GMACs"] == 480 / 1e9 and found["cost/params"] == 480 / 1e6
    assert found["cost/ms"] > 0


def test_what_another_runtime_hides_is_unknown(colours):
    assert cost(colours, None, timing=False) == {"cost/params": None, "cost/GMACs": None}
