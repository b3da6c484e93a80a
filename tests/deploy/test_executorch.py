import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from device_models import DEVICE_MODELS
from PIL import Image
from safetensors.torch import save_file

from eyespot.deploy.formats.executorch_forms import FORMS
from eyespot.deploy.graph import exportable, trace
from eyespot.encoders import load_encoder

pytest.importorskip("executorch", reason="ExecuTorch is not installed")

from eyespot.deploy.formats import executorch
from eyespot.encoders.runtimes.executorch import ExecutorchEncoder, open_session

TINY = "timm/vit_tiny_patch16_dinov3_qkvb?pretrained=false&depth=1"
LAYERS = [f"encoder.model.blocks.0.{name}" for name in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")]
aten = torch.ops.aten


@torch.no_grad()
def encoder_of(spec):
    """With layer scales of about one: fresh ones are so small that what a block computes would hardly be seen."""
    torch.manual_seed(0)
    encoder = load_encoder(spec).eval()
    for parameter in encoder.parameters():
        if 0 < parameter.abs().max() <= 1e-4:
            parameter.copy_(0.5 + torch.rand_like(parameter))
    return encoder


def graph_of(spec, size, batch=1):
    return trace(exportable(encoder_of(spec)), batch=batch, size=size)


def pictures(count, *size):
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def tiny():
    return graph_of(TINY, (64, 96))


@pytest.fixture(scope="module")
def tiny_file(tiny, tmp_path_factory):
    file = tmp_path_factory.mktemp("float") / "model.pte"
    executorch.write(tiny, file)
    return file


def eager(graph, images):
    with torch.no_grad():
        return graph.program.module()(images)


def cosine(a, b):
    return F.cosine_similarity(a.flatten(1).double(), b.flatten(1).double()).min().item()


@pytest.mark.parametrize(
    ("operator", "args"),
    [
        (aten.layer_norm.default, ([7], torch.randn(7), torch.randn(7), 1e-6)),
        (aten.layer_norm.default, ([7],)),
        (aten.layer_norm.default, ([4, 7],)),
        (aten.unbind.int, (1,)),
        (aten.unbind.int, (-1,)),
        (aten.select.int, (-2, -1)),
        (aten.select.int, (0, 1)),
        (aten.chunk.default, (2, -1)),
        (aten.split.Tensor, (3, -1)),
        (aten.split_with_sizes.default, ([1, 4, 2], -1)),
        (aten.adaptive_avg_pool2d.default, ([1, 1],)),
        (aten.adaptive_avg_pool2d.default, ([2, 3],)),
        (aten.upsample_nearest2d.vec, ([9, 14], None)),
        (aten.upsample_nearest2d.vec, (None, [2.0, 3.0])),
        (aten.upsample_nearest2d.vec, ([3, 5], None)),
        (aten.pad.default, ([1, 2, 0, 3],)),
        (aten.pad.default, ([0, 0, 0, 0, 1, 0], "constant", 0.5)),
        (aten.pad.default, ([1, 1, 1, 1], "reflect")),
        (aten.pad.default, ([-1, 1],)),
        (aten.matmul.default, (torch.randn(2, 3, 7, 5),)),
        (aten.matmul.default, (torch.randn(7, 5),)),
    ],
)
def test_other_forms_of_an_operator_give_what_it_gives(operator, args):
    x = torch.randn(2, 3, 4, 7)
    torch.testing.assert_close(FORMS[operator](x, *args), operator(x, *args))


@pytest.mark.parametrize("options", [{}, {"scale": 0.3}, {"attn_mask": torch.randn(4, 6)}, {"is_causal": True}])
def test_other_form_of_attention_gives_what_attention_gives(options):
    query, key, value = torch.randn(2, 3, 4, 8), torch.randn(2, 3, 6, 8), torch.randn(2, 3, 6, 5)
    expected = F.scaled_dot_product_attention(query, key, value, **options)
    form = FORMS[aten.scaled_dot_product_attention.default]
    torch.testing.assert_close(form(query, key, value, **options), expected)


def test_a_file_gives_what_the_model_gives(tiny, tiny_file):
    session = open_session(tiny_file, threads=1)
    images = pictures(1, 64, 96)
    found = session.run(images, ["patches", "summary"])
    summary, patches = eager(tiny, images)
    torch.testing.assert_close(found[0], patches, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found[1], summary, atol=1e-5, rtol=1e-4)


def test_a_file_knows_what_it_is(tiny, tiny_file):
    session = open_session(tiny_file, threads=1)
    assert (session.taken.batch, session.taken.sides, session.outputs) == (1, (64, 96), ("summary", "patches"))
    assert session.metadata == tiny.facts
    assert json.loads(session.metadata["eyespot"])["input"]["shape"] == [1, 3, 64, 96]


def test_a_vision_transformer_goes_to_xnnpack_as_one_piece(tiny_file):
    from executorch.exir._serialize._program import deserialize_pte_binary

    program = deserialize_pte_binary(tiny_file.read_bytes())
    plan = next(plan for plan in getattr(program, "program", program).execution_plan if plan.name == "forward")
    assert [delegate.id for delegate in plan.delegates] == ["XnnpackBackend"]
    assert not plan.operators


def test_a_file_is_an_encoder(tiny, tiny_file):
    encoder = ExecutorchEncoder(tiny_file, threads=1)
    images = pictures(3, 64, 96)
    features = encoder(images)
    expected = torch.cat([eager(tiny, image)[0] for image in images.split(1)])
    torch.testing.assert_close(features.summary, expected, atol=1e-5, rtol=1e-4)
    assert (encoder.stride, encoder.native_size, features.grid) == (16, (64, 96), (4, 6))


@pytest.mark.slow
def test_the_number_of_threads_is_that_of_each_session(tiny, tiny_file):
    """In a process of its own, because a pool that is gone would make the run wait for ever, and the tests with it."""
    script = """
import sys, torch
from executorch.extension.pybindings import portable_lib
from eyespot.encoders.runtimes.executorch import open_session
images = torch.rand(1, 3, 64, 96)
one, two = open_session(sys.argv[1], 1), open_session(sys.argv[1], 2)
for session, threads in ((one, 1), (two, 2), (one, 1), (one, 1), (two, 2)):
    first = session.run(images, ["summary"])
    assert portable_lib._threadpool_get_thread_count() == threads
    assert torch.equal(first[0], session.run(images, ["summary"])[0])
print("done")
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tiny_file)], capture_output=True, text=True, timeout=300, check=True
    )
    assert "done" in done.stdout


@pytest.mark.parametrize(
    ("kept", "rounded"), [([], 12 * 192**2), pytest.param(LAYERS[:-1], 4 * 192**2, marks=pytest.mark.formats)]
)
@pytest.mark.slow
def test_int8_is_near_and_smaller_by_what_was_rounded(tiny, tiny_file, tmp_path, kept, rounded):
    file = tmp_path / "model.pte"
    executorch.write_int8(tiny, file, list(pictures(2, 64, 96).split(1)), keep_float=kept)
    images = pictures(1, 64, 96)
    found = open_session(file, threads=1).run(images, ["summary", "patches"])
    assert min(map(cosine, found, eager(tiny, images))) > 0.999
    assert tiny_file.stat().st_size - file.stat().st_size == pytest.approx(3 * rounded, rel=0.03)


@pytest.mark.formats
def test_int8_of_a_convolutional_network_in_a_batch_of_two(tmp_path):
    """With padding before a pooling, which XNNPACK cannot take in int8."""
    graph = graph_of("timm/resnet10t?pretrained=false&output_stride=16", (64, 64), batch=2)
    file = tmp_path / "model.pte"
    executorch.write_int8(graph, file, list(pictures(8, 64, 64).split(2)))
    encoder, images = ExecutorchEncoder(file, threads=1), pictures(3, 64, 64)
    summary = torch.cat([eager(graph, pair)[0] for pair in (images[:2], images[1:])])[[0, 1, 3]]
    assert cosine(encoder(images).summary, summary) > 0.99
    assert file.stat().st_size < 0.3 * sum(weight.nbytes for weight in graph.program.state_dict.values())


@pytest.mark.formats
def test_int8_of_a_network_that_joins_maps(tmp_path):
    """XNNPACK refuses a file whose joints have parts of different scales."""
    graph = graph_of("timm/ghostnetv3_100?pretrained=false", (64, 64))
    executorch.write_int8(graph, tmp_path / "model.pte", list(pictures(4, 64, 64).split(1)))
    images = pictures(1, 64, 64)
    found = open_session(tmp_path / "model.pte", threads=1).run(images, ["summary"])
    assert cosine(found[0], eager(graph, images)[0]) > 0.99


def test_open_sizes_are_refused(tmp_path):
    graph = graph_of("timm/resnet10t?pretrained=false", (64, 64), batch=None)
    with pytest.raises(ValueError, match="fixed size and batch"):
        executorch.write(graph, tmp_path / "model.pte")
    with pytest.raises(ValueError, match="fixed size and batch"):
        executorch.write_int8(graph, tmp_path / "model.pte", [pictures(2, 64, 64)])
    assert not list(tmp_path.iterdir())


def test_int8_that_cannot_be_is_refused(tiny, tmp_path):
    with pytest.raises(ValueError, match="weights only"):
        executorch.write_int8(tiny, tmp_path / "model.pte", [pictures(1, 64, 96)], weights_only=True)
    with pytest.raises(ValueError, match="calibration"):
        executorch.write_int8(tiny, tmp_path / "model.pte", [])
    with pytest.raises(ValueError, match="no layers nonsense"):
        executorch.write_int8(tiny, tmp_path / "model.pte", [pictures(1, 64, 96)], keep_float=["nonsense"])


def test_a_file_that_is_none_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no executorch file"):
        open_session(tmp_path / "none.pte")
    (tmp_path / "bad.pte").write_bytes(b"not a program" * 100)
    with pytest.raises(ValueError, match="cannot be read as an ExecuTorch program"):
        open_session(tmp_path / "bad.pte")


def test_the_guide_in_python(tiny, tiny_file, tmp_path, monkeypatch, capsys):
    images = (pictures(3, 64, 96) * 255).to(torch.uint8)
    runs = [eager(tiny, image / 255) for image in images.split(1)]
    summary, patches = (torch.cat(column) for column in zip(*runs, strict=True))
    (tmp_path / "student").mkdir()
    (tmp_path / "student/model.pte").write_bytes(tiny_file.read_bytes())
    save_file(
        {"images": images, "summary": summary, "patches": patches.contiguous()},
        tmp_path / "student/reference.safetensors",
    )
    Image.fromarray(images[0].permute(1, 2, 0).numpy()).save(tmp_path / "picture.jpg", format="PNG")
    guide = Path(__file__).parents[2] / "docs/deploy/executorch.md"
    found = {}
    monkeypatch.chdir(tmp_path)
    for block in re.findall(r"```python\n(.*?)```", guide.read_text(), re.DOTALL):
        exec(block, found)
    torch.testing.assert_close(found["features"]["patches"], patches[:1], atol=1e-5, rtol=1e-4)
    said = capsys.readouterr().out
    assert said.count("mean cosine 1.000000") == 2
    assert "1 pieces for XNNPACK; [] outside" in said


@pytest.mark.formats
@pytest.mark.parametrize(("name", "size"), DEVICE_MODELS)
def test_the_models_of_the_table(name, size, tmp_path):
    graph = graph_of(f"timm/{name}?pretrained=false", size)
    executorch.write(graph, tmp_path / "model.pte")
    images = pictures(1, *size)
    found = open_session(tmp_path / "model.pte").run(images, ["summary", "patches"])
    assert min(map(cosine, found, eager(graph, images))) > 0.9999
