"""EUPE's networks once more, in plain torch, from the facts of EUPE D.1 and D.2 (official names, no timm)."""

import math

import torch
from torch.nn import functional
from zoo_eupe import CONVNEXTS, VITS


def vit_forward(state, images, width, heads):
    """All tokens [B, 5 + N, width] under the final norm: class, four storage tokens, patches row by row."""
    maps = functional.conv2d(images, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=16)
    batch, _, rows, columns = maps.shape
    tokens = torch.cat(
        [
            state["cls_token"].expand(batch, -1, -1),
            state["storage_tokens"].expand(batch, -1, -1),
            maps.flatten(2).transpose(1, 2),
        ],
        1,
    )
    angles = rope_angles(rows, columns)

    def norm(place, values):
        return functional.layer_norm(values, (width,), state[f"{place}.weight"], state[f"{place}.bias"], 1e-5)

    def linear(place, values):
        return functional.linear(values, state[f"{place}.weight"], state[f"{place}.bias"])

    for block in (f"blocks.{number}" for number in range(12)):
        bias = state[f"{block}.attn.qkv.bias"] * state[f"{block}.attn.qkv.bias_mask"]
        qkv = norm(f"{block}.norm1", tokens) @ state[f"{block}.attn.qkv.weight"].T + bias
        query, key, value = qkv.view(batch, -1, 3, heads, 64).permute(2, 0, 3, 1, 4)
        query, key = rotated(query, angles), rotated(key, angles)
        attended = (query @ key.transpose(-2, -1) / math.sqrt(64)).softmax(-1) @ value
        attended = linear(f"{block}.attn.proj", attended.transpose(1, 2).reshape(batch, -1, width))
        tokens = tokens + attended * state[f"{block}.ls1.gamma"]
        hidden = functional.gelu(linear(f"{block}.mlp.fc1", norm(f"{block}.norm2", tokens)))
        tokens = tokens + linear(f"{block}.mlp.fc2", hidden) * state[f"{block}.ls2.gamma"]
    return norm("norm", tokens)


def rope_angles(rows, columns):
    """[rows * columns, 64]: 16 row angles, 16 column angles, and both again."""
    periods = torch.tensor([100.0 ** (2 * i / 32) for i in range(16)])
    y, x = ((torch.arange(count) + 0.5) / count * 2 - 1 for count in (rows, columns))
    y, x = torch.meshgrid(y, x, indexing="ij")
    angles = torch.cat([2 * math.pi * axis.flatten()[:, None] / periods for axis in (y, x)], 1)
    return angles.repeat(1, 2)


def rotated(values, angles):
    """RoPE on the patches only; dimension i is paired with i + 32."""
    prefix, patches = values[:, :, :5], values[:, :, 5:]
    turned = torch.cat([-patches[..., 32:], patches[..., :32]], -1)
    return torch.cat([prefix, patches * angles.cos() + turned * angles.sin()], 2)


def convnext_forward(state, images, depths):
    """The last stage's map [B, D, h, w], before the final norm."""

    def norm(place, maps):
        return channel_norm(maps, state[f"{place}.weight"], state[f"{place}.bias"])

    def conv(place, maps, **options):
        return functional.conv2d(maps, state[f"{place}.weight"], state[f"{place}.bias"], **options)

    maps = norm("downsample_layers.0.1", conv("downsample_layers.0.0", images, stride=4))
    for stage, depth in enumerate(depths):
        if stage:
            maps = conv(f"downsample_layers.{stage}.1", norm(f"downsample_layers.{stage}.0", maps), stride=2)
        for block in (f"stages.{stage}.{number}" for number in range(depth)):
            hidden = norm(f"{block}.norm", conv(f"{block}.dwconv", maps, padding=3, groups=maps.shape[1]))
            for layer in ("pwconv1", "pwconv2"):
                weight, bias = state[f"{block}.{layer}.weight"], state[f"{block}.{layer}.bias"]
                hidden = functional.conv2d(hidden, weight[:, :, None, None], bias)
                hidden = functional.gelu(hidden) if layer == "pwconv1" else hidden
            maps = maps + hidden * state[f"{block}.gamma"][:, None, None]
    return maps


def channel_norm(maps, weight, bias):
    mean, variance = maps.mean(1, keepdim=True), maps.var(1, unbiased=False, keepdim=True)
    return (maps - mean) / (variance + 1e-6).sqrt() * weight[:, None, None] + bias[:, None, None]


def by_hand(name, state, images):
    """(summary, patches) as the official model gives them."""
    grid = (images.shape[2] // 16, images.shape[3] // 16)
    if name in VITS:
        tokens = vit_forward(state, images, *VITS[name])
        return tokens[:, 0], tokens[:, 5:].transpose(1, 2).unflatten(2, grid)
    maps = convnext_forward(state, images, CONVNEXTS[name][0])
    final = state["norm.weight"], state["norm.bias"]
    return channel_norm(maps.mean((2, 3), keepdim=True), *final).flatten(1), channel_norm(maps, *final)
