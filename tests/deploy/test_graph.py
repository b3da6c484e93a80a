import json

import pytest
import torch

from eyespot.deploy.graph import exportable, trace
from eyespot.encoders import load_encoder

VIT = "timm/vit_tiny_patch16_dinov3_qkvb?pretrained=false&depth=2"


@pytest.fixture(scope="module")
def vit():
    return load_encoder(VIT)


def operators(graph):
    return [str(node.target) for node in graph.program.graph.nodes if node.op == "call_function"]


def close(encoder, graph, images):
    with torch.no_grad():
        features, outputs = encoder(images), graph.program.module(check_guards=False)(images)
    torch.testing.assert_close(outputs[0], features.summary, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(outputs[1], features.patches, rtol=1e-5, atol=1e-5)


def test_a_fixed_size(vit):
    graph = trace(exportable(vit), size=(64, 96))
    assert (graph.names, graph.batch, graph.size, graph.stride) == (("summary", "patches"), 1, (64, 96), 16)
    assert graph.example().shape == (1, 3, 64, 96)
    close(vit, graph, torch.rand(1, 3, 64, 96))
    assert not [name for name in operators(graph) if "sin" in name or "cos" in name or "tile" in name]


def test_open_sizes(vit):
    graph = trace(exportable(vit), batch=None, size=None)
    for shape in ((1, 3, 64, 64), (3, 3, 32, 160), (2, 3, 240, 80)):
        close(vit, graph, torch.rand(shape))
    assert json.loads(graph.facts["eyespot"])["input"]["shape"] == [None, 3, None, None]
    assert json.loads(graph.facts["eyespot"])["outputs"] == {"summary": [None, 192], "patches": [None, 192, None, None]}


def test_a_model_of_one_size_is_traced_at_it():
    encoder = load_encoder("timm/levit_128s?pretrained=false")
    assert trace(exportable(encoder)).size == encoder.native_size == (224, 224)
    with pytest.raises(ValueError, match="224x224"):
        trace(exportable(encoder), size=(64, 64))


def test_a_size_that_does_not_fit_is_refused_with_one_that_would(vit):
    with pytest.raises(ValueError, match="64x96 would do"):
        trace(exportable(vit), size=(70, 100))


def test_layers_have_the_names_of_their_weights(vit):
    graph = trace(exportable(vit), size=(32, 32))
    names = set(graph.layers.values())
    assert {f"encoder.model.blocks.{block}.mlp.fc{layer}" for block in (0, 1) for layer in (1, 2)} <= names
    assert "encoder.model.patch_embed.proj" in names
    nodes = {node.name for node in graph.program.graph.nodes}
    assert set(graph.layers) <= nodes


def test_facts_tell_where_it_comes_from(vit):
    facts = trace(exportable(vit), size=(32, 64)).facts
    everything = json.loads(facts["eyespot"])
    assert all(isinstance(value, str) for value in facts.values())
    assert facts["name"] == everything["model"] == VIT
    assert facts["hash"] == everything["hash"]
    assert len(facts["hash"]) == 64
    assert everything["architecture"] == "vit_tiny_patch16_dinov3_qkvb"
    assert everything["input"]["shape"] == [1, 3, 32, 64]
    assert everything["outputs"] == {"summary": [1, 192], "patches": [1, 192, 2, 4]}
    assert "license" not in facts  # random weights have none
    assert trace(exportable(load_encoder(f"{VIT}&license=mit")), size=(32, 32)).facts["license"] == "mit"


def test_run_time_forms_leave_the_encoder_as_it_was():
    encoder = load_encoder("timm/fastvit_t8?pretrained=false")
    before = [name for name, _ in encoder.named_modules()]
    module = exportable(encoder)
    assert [name for name, _ in encoder.named_modules()] == before
    assert len(list(module.modules())) < len(before)
    graph = trace(module, size=(64, 64))
    close(encoder, graph, torch.rand(1, 3, 64, 64))
    assert not [name for name in operators(graph) if "batch_norm" in name]


def test_channels_last_models_are_traced_in_plain_memory():
    encoder = load_encoder("timm/resnet10t?pretrained=false&channels_last=true")
    graph = trace(exportable(encoder), size=(64, 64))
    assert encoder.channels_last
    assert not [name for name in operators(graph) if "contiguous" in name or "clone" in name]
    close(encoder, graph, torch.rand(1, 3, 64, 64))


def test_inner_layers_cost_nothing_twice(vit):
    plain, with_layers = (trace(exportable(vit, layers), size=(32, 32)) for layers in ((), (0, 1)))
    assert with_layers.names == ("summary", "patches", "layer_0", "layer_1")
    assert sum("linear" in name for name in operators(with_layers)) == sum(
        "linear" in name for name in operators(plain)
    )
    images = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        maps = vit.intermediates(images, (0, 1))
        outputs = with_layers.program.module()(images)
    for ours, theirs in zip(outputs[2:], maps, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_what_cannot_be_traced_is_refused_with_the_reason(tmp_path):
    (tmp_path / "counting.py").write_text(
        "import torch\n"
        "from eyespot.encoders.base import Encoder\n"
        "from eyespot.features import Features\n"
        "class Counting(Encoder):\n"
        "    name, summary_dim, patch_dim, stride, default_size = 'counting', 3, 3, 8, (32, 32)\n"
        "    def _encode(self, images):\n"
        "        if float(images.mean()) > 0.5:\n"
        "            images = images * 2\n"
        "        patches = torch.nn.functional.avg_pool2d(images, 8)\n"
        "        return Features(patches.mean((2, 3)), patches)\n"
    )
    encoder = load_encoder(f"python/{tmp_path}/counting.py:Counting")
    with pytest.raises(ValueError, match=r"cannot be traced by torch\.export: .+"):
        trace(exportable(encoder), size=(32, 32))
