"""The parts of a multi-task model against their formulas and the numbers of the paper notes (h)."""

import math

import pytest
import torch
import torch.nn.functional as F

from eyespot.dense_tasks import dense_task
from eyespot.encoders import load_encoder
from eyespot.encoders.multitask import Adapter, Router, TaskHead, TeacherPath, default_levels, make_multitask_encoder

PASCAL = {
    "segmentation": dense_task("classes", 21),
    "parts": dense_task("classes", 7),
    "normals": dense_task("normals"),
    "boundary": dense_task("boundary"),
    "saliency": dense_task("saliency"),
}
NYUD = {
    "segmentation": dense_task("classes", 40),
    "normals": dense_task("normals"),
    "boundary": dense_task("boundary"),
    "depth": dense_task("depth"),
}
SIZES = {"pascal": "512,512", "nyud": "448,576"}


def count(module):
    return sum(weight.numel() for weight in module.parameters())


@pytest.mark.parametrize(
    ("stem", "data", "parts"),
    [
        ("small", "pascal", (21.983, 2.894, 0.009, 1.517, 7.394, 33.797)),
        ("small", "nyud", (21.977, 2.894, 0.009, 1.214, 5.922, 32.015)),
        ("base", "pascal", (86.433, 11.539, 0.018, 5.983, 29.533, 133.506)),
        ("base", "nyud", (86.421, 11.539, 0.018, 4.786, 23.640, 126.404)),
        ("large", "pascal", (304.147, 39.418, 0.025, 10.599, 52.484, 406.672)),
        ("large", "nyud", (304.131, 39.418, 0.025, 8.479, 42.006, 394.058)),
    ],
)
def test_parameters_are_those_of_the_official_models(stem, data, parts):
    with torch.device("meta"):
        encoder = load_encoder(f"timm/vit_{stem}_patch16_384?pretrained=false&img_size={SIZES[data]}")
        tasks = PASCAL if data == "pascal" else NYUD
        model = make_multitask_encoder(encoder, ("dinov2", "clip", "sam"), tasks)
        plain = count(make_multitask_encoder(encoder, (), tasks))
    adapters = sum(count(path.adapters) for path in model.paths.values())
    norms = sum(count(path.norms) for path in model.paths.values())
    found = (count(model.stem), adapters, norms, count(model.routers), count(model.heads), count(model))
    assert [round(number / 1e6, 3) for number in found] == list(parts)
    assert plain == count(model.stem) + count(model.heads)
    if stem == "large" and data == "pascal":
        assert round(plain / 1e6) == 357  # the paper's multi-task baseline
    if stem == "large":
        single = sum(count(model.stem) + count(head) for head in model.heads.values())
        assert round(single / 1e6) == {"pascal": 1573, "nyud": 1259}[data]


def test_counts_by_formula():
    width, channels = 64, 7
    adapter, head = Adapter(width), TaskHead(width, channels)
    assert count(adapter) == 2 * width * width // 4 + width // 4 + width + 1
    quarter = width * width // 4 + width // 4
    assert count(head) == 4 * quarter + 9 * width * width + width + 2 * width + channels * (width + 1)
    assert count(TeacherPath(width, 12, 4)) == 13 * count(adapter) + 4 * 2 * width
    assert count(Router(16, 3)) == 206


def test_an_adapter_is_a_scaled_bottleneck_with_a_skip():
    adapter, tokens = Adapter(8), torch.randn(2, 5, 8)
    assert adapter.scale.item() == 1
    assert not torch.allclose(adapter(tokens), tokens)
    with torch.no_grad():
        adapter.scale.fill_(0.5)
        adapter.down.bias.normal_()
        adapter.up.bias.normal_()
        hidden = tokens @ adapter.down.weight.T + adapter.down.bias
        gelu = 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2)))
        expected = tokens + 0.5 * (gelu @ adapter.up.weight.T + adapter.up.bias)
        torch.testing.assert_close(adapter(tokens), expected)


def test_linear_layers_start_narrow_and_without_offset():
    for module in (Adapter(256), Router(256, 3)):
        for part in module.modules():
            if isinstance(part, torch.nn.Linear):
                assert 0.018 < part.weight.std() < 0.022 and not part.bias.any()
            if isinstance(part, torch.nn.LayerNorm):
                assert (part.weight == 1).all() and not part.bias.any()


def noisy_router(width=16, experts=3):
    router = Router(width, experts)
    with torch.no_grad():
        for weight in router.parameters():
            weight += 0.3 * torch.randn_like(weight)
    return router.eval()


def maps(experts=3, width=16):
    return [torch.randn(2, width, 3, 4) for _ in range(experts)]


@torch.no_grad()
def test_a_router_is_the_mlp_per_token_then_the_mean():
    router, experts = noisy_router(), maps()
    tokens = experts[0].flatten(2).transpose(1, 2)
    hidden = F.gelu(F.layer_norm(router.hidden[0](tokens), (8,), router.hidden[1].weight, router.hidden[1].bias))
    clean = router.logits(hidden).mean(1)[:, :3]
    torch.testing.assert_close(router.weights(tokens), clean.softmax(1))
    expected = sum(clean.softmax(1)[:, number, None, None, None] * experts[number] for number in range(3))
    torch.testing.assert_close(router(experts), expected)
    assert torch.equal(router(experts), router(experts))


@torch.no_grad()
def test_the_noise_of_training_follows_the_formula_and_differs_by_position():
    router, experts = noisy_router().train(), maps()
    tokens = experts[0].flatten(2).transpose(1, 2)
    clean, raw = router.logits(router.hidden(tokens)).mean(1).chunk(2, 1)
    torch.manual_seed(3)
    noise = torch.randn(2, 3, 3, 4)
    logits = clean[:, :, None, None] + noise * (torch.log1p(raw.exp()) + 0.01)[:, :, None, None]
    expected = sum(logits.softmax(1)[:, number, None] * experts[number] for number in range(3))
    torch.manual_seed(3)
    torch.testing.assert_close(router(experts), expected)

    flat = [torch.full((1, 16, 3, 4), float(number)) for number in range(3)]
    assert router(flat).flatten(2)[0, 0].unique().numel() == 12
    assert router.eval()(flat).flatten(2)[0, 0].unique().numel() == 1


@torch.no_grad()
def test_with_all_its_layers_zero_a_router_takes_the_mean():
    router, experts = noisy_router(), maps()
    for part in router.modules():
        if isinstance(part, torch.nn.Linear):
            part.weight.zero_()
            part.bias.zero_()
    torch.testing.assert_close(router(experts), torch.stack(experts).mean(0))


@torch.no_grad()
def test_what_is_off_leaves_its_share_to_the_others():
    router, experts = noisy_router(), maps()
    tokens = experts[0].flatten(2).transpose(1, 2)
    all_on = router.weights(tokens)
    kept = all_on[:, [0, 2]]
    torch.testing.assert_close(router.weights(tokens, [0, 2]), kept / kept.sum(1, keepdim=True))
    some = router([experts[0], experts[2]], [0, 2])
    router.rearrange([0, 2])
    assert router.experts == 2
    torch.testing.assert_close(router([experts[0], experts[2]]), some)


@torch.no_grad()
@pytest.mark.parametrize("offset", [0.0, -50.0, 50.0])
def test_newcomers_start_with_next_to_no_weight_wherever_the_logits_lie(offset):
    router, tokens = noisy_router(), torch.randn(4, 12, 16)
    router.logits.bias[:3] += offset + torch.tensor([3.0, -1.0, 0.0])
    before, raw = router.weights(tokens), router.logits.weight[3:].clone()
    router.rearrange([0, 1, 2, None, None])
    after = router.weights(tokens)
    assert router.experts == 5
    assert (after[:, 3:] < math.exp(-4) / 3).all() and (after[:, 3:] > 0).all()
    torch.testing.assert_close(after[:, :3] / after[:, :3].sum(1, keepdim=True), before)
    assert torch.equal(router.logits.weight[5:8], raw)


@torch.no_grad()
def test_a_head_resizes_to_a_quarter_then_to_the_picture():
    head = TaskHead(16, 3).eval()
    levels = [torch.randn(2, 16, 2, 3) for _ in range(4)]
    resized = [
        F.interpolate(layer(level), (8, 12), mode="bilinear") for layer, level in zip(head.reduce, levels, strict=True)
    ]
    convolution, norm, gelu = head.fuse
    expected = head.predict(gelu(norm(convolution(torch.cat(resized, 1)))))
    expected = F.interpolate(expected, (32, 48), mode="bilinear")
    torch.testing.assert_close(head(levels, (32, 48)), expected)
    assert head(levels, (32, 48)).shape == (2, 3, 32, 48)
    assert convolution.bias is not None and isinstance(norm, torch.nn.BatchNorm2d)


@pytest.mark.parametrize(
    ("blocks", "levels"), [(12, (2, 5, 8, 11)), (24, (5, 11, 17, 23)), (8, (1, 3, 5, 7)), (6, (1, 2, 4, 5))]
)
def test_levels_are_quarters(blocks, levels):
    assert default_levels(blocks) == levels
    with pytest.raises(ValueError, match="at least 4 blocks"):
        default_levels(3)
