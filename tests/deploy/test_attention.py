import pytest
import torch

from eyespot.deploy.attention import rotate_all_tokens, split_heads
from eyespot.deploy.graph import exportable
from eyespot.deploy.simplify import simplify
from eyespot.encoders import load_encoder

# `simplify` has both passes; they are called here as well, because to run twice must change nothing.
aten = torch.ops.aten
ROTARY = "timm/vit_tiny_patch16_dinov3_qkvb?pretrained=false&depth=2&embed_dim=48&num_heads=3"
SIZE = (48, 64)


def traced(spec, dynamic=None, size=SIZE):
    torch.manual_seed(0)
    encoder = load_encoder(spec)
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        program = torch.export.export(exportable(encoder), (images,), dynamic_shapes=dynamic, strict=False)
    return encoder, simplify(program), images


def uses(graph, target):
    return sum(node.target is target for node in graph.graph.nodes)


@torch.no_grad()
def assert_exact(encoder, graph, images):
    features = encoder(images)
    summary, patches = graph(images)
    assert torch.equal(summary, features.summary)
    assert torch.equal(patches, features.patches)


def test_the_sequence_stays_whole():
    encoder, graph, images = traced(ROTARY)
    split_heads(graph)
    rotate_all_tokens(graph)
    assert_exact(encoder, graph, images)
    assert uses(graph, aten.unbind.int) == 0
    rotations = 2 * 2  # queries and keys of two blocks
    assert uses(graph, aten.cat.default) == 1 + rotations  # the prefix tokens once, then only rotated halves
    assert uses(graph, aten.slice.Tensor) <= 2 * 3 + 2 * rotations + 2


def test_blocks_share_their_tables():
    _, graph, _ = traced(ROTARY)
    rotate_all_tokens(graph)
    tables = [name for name, _ in graph.named_buffers() if name.startswith("rotary_")]
    assert len(tables) == 2
    cos, sin = (dict(graph.named_buffers())[name] for name in sorted(tables))
    assert cos.shape == (1, 1, 5 + 12, 16)
    assert torch.equal(cos[..., :5, :], torch.ones(1, 1, 5, 16))
    assert torch.equal(sin[..., :5, :], torch.zeros(1, 1, 5, 16))


def test_heads_of_a_transformer_without_rotary_embedding():
    encoder, graph, images = traced("timm/test_vit?pretrained=false")
    split_heads(graph)
    rotate_all_tokens(graph)
    assert_exact(encoder, graph, images)
    assert uses(graph, aten.unbind.int) == 0
    assert all(node.meta["val"].ndim < 5 for node in graph.graph.nodes if node.target is aten.permute.default)


def test_open_batch():
    encoder, graph, images = traced(ROTARY, {"images": {0: torch.export.Dim("batch", max=64)}})
    split_heads(graph)
    rotate_all_tokens(graph)
    assert_exact(encoder, graph, images)
    assert_exact(encoder, graph, torch.cat([images, images[:1]]))


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext"])
def test_networks_without_attention_stay_as_they_are(name):
    _, graph, _ = traced(f"timm/{name}?pretrained=false", size=(32, 64))
    before = [node.target for node in graph.graph.nodes]
    split_heads(graph)
    rotate_all_tokens(graph)
    assert [node.target for node in graph.graph.nodes] == before


def test_neighbours_are_not_taken_for_halves():
    spec = "timm/eva02_tiny_patch14_224?pretrained=false&depth=1&img_size=56&patch_size=8"
    encoder, graph, images = traced(spec, size=(56, 56))
    split_heads(graph)
    before = uses(graph, aten.cat.default)
    rotate_all_tokens(graph)
    assert uses(graph, aten.cat.default) == before
    assert_exact(encoder, graph, images)
