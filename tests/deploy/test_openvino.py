import logging
import re
import subprocess
import sys
import textwrap
import types
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from device_models import DEVICE_MODELS
from PIL import Image

from eyespot.deploy.formats.openvino import write, write_int8
from eyespot.deploy.graph import exportable, trace
from eyespot.encoders import load_encoder
from eyespot.encoders.identity import weights_hash
from eyespot.encoders.runtimes.openvino import import_openvino, open_session

openvino = pytest.importorskip("openvino", reason="needs OpenVINO: pip install 'eyespot[openvino]'")
SIZE = (64, 48)
LAYERS = {f"encoder.model.blocks.{block}.{part}" for block in (0, 1) for part in ("attn.qkv", "attn.proj", "mlp.fc1")}
ROTARY = "timm/vit_tiny_patch16_dinov3_qkvb?pretrained=false&depth=2&embed_dim=96&num_heads=3"


def encoder_of(spec):
    torch.manual_seed(0)
    return load_encoder(spec)


def pictures(count, size=SIZE):
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def agreement(encoder, session, images):
    """The least cosine of summaries and of patches, over pictures and positions."""
    features = encoder(images)
    pieces = [session.run(piece, ("patches", "summary")) for piece in images.split(session.taken.batch or len(images))]
    patches, summary = (torch.cat(values) for values in zip(*pieces, strict=True))
    assert (patches.shape, summary.shape) == (features.patches.shape, features.summary.shape)
    return min(
        float(F.cosine_similarity(features.summary.double(), summary.double()).min()),
        float(F.cosine_similarity(features.patches.double(), patches.double()).min()),
    )


@pytest.fixture(scope="module")
def encoder():
    return encoder_of(ROTARY)


@pytest.fixture(scope="module")
def graph(encoder):
    return trace(exportable(encoder), size=SIZE)


@pytest.fixture(scope="module")
def calibration():
    return list(pictures(8).split(1))


@pytest.fixture(scope="module")
def file(graph, tmp_path_factory):
    file = tmp_path_factory.mktemp("float") / "model.xml"
    write(graph, file)
    return file


@pytest.fixture(scope="module")
def int8_file(graph, calibration, tmp_path_factory):
    file = tmp_path_factory.mktemp("int8") / "model.xml"
    write_int8(graph, file, calibration)
    return file


def test_the_weights_beside_the_file_tell_one_encoder_from_another(file, tmp_path):
    weights = bytearray(file.with_suffix(".bin").read_bytes())
    weights[len(weights) // 2] ^= 1
    (tmp_path / "model.xml").write_bytes(file.read_bytes())
    (tmp_path / "model.bin").write_bytes(weights)
    hashes = [weights_hash(load_encoder(f"openvino/{folder}/model.xml")) for folder in (file.parent, tmp_path)]
    assert hashes[0] != hashes[1]


def test_a_file_computes_what_the_encoder_computes(encoder, graph, file):
    session = open_session(file, threads=1)
    assert agreement(encoder, session, pictures(3)) > 1 - 1e-6
    assert (session.taken.batch, session.taken.sides) == (1, SIZE)
    assert session.outputs == ("summary", "patches")
    assert session.metadata == graph.facts


def test_results_are_not_overwritten_by_the_next_run(file):
    session = open_session(file, threads=1)
    first, second = pictures(2).split(1)
    kept = session.run(first, ["summary"])[0]
    copy = kept.clone()
    session.run(second, ["summary"])
    assert torch.equal(kept, copy)


def test_weights_are_in_full_precision(graph, file):
    network = openvino.Core().read_model(file)
    kinds = {node.get_element_type() for node in network.get_ops() if node.get_type_name() == "Constant"}
    assert openvino.Type.f32 in kinds
    assert not kinds & {openvino.Type.f16, openvino.Type.bf16}


def test_as_encoder(encoder, file):
    loaded = load_encoder(f"openvino/{file}?threads=1")
    assert (loaded.stride, loaded.native_size, loaded.summary_dim) == (16, SIZE, 96)
    with torch.no_grad():
        features, expected = loaded(pictures(3)), encoder(pictures(3))
    torch.testing.assert_close(features.patches, expected.patches, atol=1e-4, rtol=1e-4)


def test_bf16_is_another_precision(encoder, file):
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(ValueError, match="precision=f32"):
            open_session(file, precision="bf16")
        return
    exact, rounded = (
        open_session(file, 1, precision).run(pictures(1), ["patches"])[0] for precision in ("f32", "bf16")
    )
    assert not torch.allclose(exact, rounded, atol=1e-5)
    assert agreement(encoder, open_session(file, 1, "bf16"), pictures(3)) > 0.999


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("test_convnext", marks=pytest.mark.formats),
        pytest.param("test_efficientnet", marks=pytest.mark.formats),
        "vit_tiny_patch16_dinov3_qkvb",
    ],
)
@pytest.mark.slow
def test_open_shapes(name, tmp_path):
    encoder = encoder_of(f"timm/{name}?pretrained=false" + ("&depth=1" if "dinov3" in name else ""))
    write(trace(exportable(encoder), batch=None, size=None), tmp_path / "model.xml")
    session = open_session(tmp_path / "model.xml", threads=1)
    assert (session.taken.batch, session.taken.sides) == (None, (None, None))
    for count, size in ((1, (64, 64)), (3, (96, 32)), (2, (160, 192))):
        assert agreement(encoder, session, pictures(count, size)) > 1 - 1e-6


@pytest.mark.formats
def test_what_openvino_has_no_operator_for(tmp_path):
    with pytest.raises(ValueError, match=r"no operator for .*bicubic2d_aa.*fixed"):
        write(trace(exportable(encoder_of("timm/test_vit?pretrained=false")), size=None), tmp_path / "model.xml")
    assert not list(tmp_path.iterdir())


def test_fixed_batch(tmp_path):
    encoder = encoder_of("timm/test_efficientnet?pretrained=false")
    write(trace(exportable(encoder), batch=2, size=(64, 32)), tmp_path / "model.xml")
    loaded, images = load_encoder(f"openvino/{tmp_path / 'model.xml'}"), pictures(3, (64, 32))
    with torch.no_grad():
        torch.testing.assert_close(loaded(images).patches, encoder(images).patches, atol=1e-4, rtol=1e-4)


def test_int8_is_small_and_near(encoder, file, int8_file):
    session = open_session(int8_file, threads=1)
    assert agreement(encoder, session, pictures(4)) > 0.98
    assert session.outputs == ("summary", "patches")
    assert int8_file.with_suffix(".bin").stat().st_size < 0.5 * file.with_suffix(".bin").stat().st_size


def int8_constants(file):
    network = openvino.Core().read_model(file)
    return sum(
        node.get_element_type() in (openvino.Type.i8, openvino.Type.u8)
        for node in network.get_ops()
        if node.get_type_name() == "Constant" and len(node.get_output_shape(0)) > 1
    )


def test_the_layer_that_reads_the_picture_stays_in_float(int8_file):
    assert int8_constants(int8_file) == 2 * 4  # linear layers of two blocks, no patch embedding


def test_layers_kept_in_float(graph, calibration, int8_file, tmp_path):
    write_int8(graph, tmp_path / "model.xml", calibration, keep_float=LAYERS)
    assert int8_constants(tmp_path / "model.xml") == 2 * 4 - len(LAYERS)
    with pytest.raises(ValueError, match=r"no layers attn\.qkv to keep in float.*blocks\.0\.attn\.qkv"):
        write_int8(graph, tmp_path / "model.xml", calibration, keep_float=["attn.qkv"])


def test_int8_of_a_cnn(tmp_path):
    encoder = encoder_of("timm/test_resnet?pretrained=false")
    graph, size = trace(exportable(encoder), size=(64, 32)), (64, 32)
    write_int8(
        graph, tmp_path / "model.xml", list(pictures(8, size).split(1)), keep_float=["encoder.model.layer1.0.conv1"]
    )
    session = open_session(tmp_path / "model.xml", threads=1)
    assert agreement(encoder, session, pictures(2, size)) > 0.97
    assert session.metadata == graph.facts
    convolutions = sum(node.target is torch.ops.aten.conv2d.default for node in graph.program.graph.nodes)
    assert int8_constants(tmp_path / "model.xml") == convolutions - 2  # without the first, and the one to be kept


def test_weights_only_needs_no_pictures(encoder, graph, file, calibration, tmp_path):
    small = tmp_path / "model.xml"
    write_int8(graph, small, [], weights_only=True)
    assert agreement(encoder, open_session(small, threads=1), pictures(3)) > 0.999
    assert small.with_suffix(".bin").stat().st_size < 0.5 * file.with_suffix(".bin").stat().st_size
    with pytest.raises(ValueError, match="needs calibration pictures"):
        write_int8(graph, small, [])


def test_nothing_is_printed_and_logging_stays_as_it_was(graph, calibration, tmp_path, capfd):
    handlers, disabled = logging.root.handlers[:], logging.root.manager.disable
    write(graph, tmp_path / "float.xml")
    write_int8(graph, tmp_path / "int8.xml", calibration[:2])
    assert capfd.readouterr() == ("", "")
    assert (logging.root.handlers, logging.root.manager.disable) == (handlers, disabled)


@pytest.mark.slow
def test_no_reports_are_sent(tmp_path):
    """In a fresh process, because tests are a place where these libraries send nothing."""
    program = """
        import os, socket, sys
        def refuse(*args, **kwargs):
            os.write(2, b"network access")
            os._exit(3)
        socket.getaddrinfo = socket.socket.connect = refuse
        import torch
        from eyespot.deploy.formats.openvino import write, write_int8
        from eyespot.deploy.graph import exportable, trace
        from eyespot.encoders import load_encoder
        graph = trace(exportable(load_encoder("timm/test_resnet?pretrained=false")), size=(32, 32))
        write(graph, "model.xml")
        write_int8(graph, "int8.xml", [torch.rand(1, 3, 32, 32)])
        load_encoder("openvino/model.xml")
    """
    clean = {"HOME": str(tmp_path), "PYTHONPATH": ":".join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "intel").exists()  # where they keep their consent and their number


def test_no_more_reports_are_sent_if_somebody_has_begun(monkeypatch):
    sent = []

    class TelemetrySender:
        def send(self, backend, message):
            sent.append(message)

    sender = types.ModuleType("sender")
    sender.TelemetrySender = TelemetrySender
    monkeypatch.setitem(sys.modules, "openvino_telemetry", types.ModuleType("openvino_telemetry"))
    monkeypatch.setitem(sys.modules, "openvino_telemetry.utils.sender", sender)
    import_openvino()
    TelemetrySender().send("backend", "message")
    assert sent == []


def test_bad_input(file, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="no openvino file"):
        open_session(tmp_path / "model.xml")
    alone = tmp_path / "alone.xml"
    alone.write_bytes(file.read_bytes())
    with pytest.raises(FileNotFoundError, match=r"alone\.bin"):
        open_session(alone)
    alone.with_suffix(".bin").write_bytes(b"")
    alone.write_text("<net>")
    with pytest.raises(ValueError, match="cannot be read as an OpenVINO network"):
        open_session(alone)
    with pytest.raises(ValueError, match="f32 or bf16"):
        open_session(file, precision="f16")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ImportError, match=r"pip install 'eyespot\[openvino\]'"):
        open_session(file)


def test_the_guides_snippet(encoder, file, tmp_path):
    guide = Path(__file__).parents[2] / "docs" / "deploy" / "openvino.md"
    program = re.search(r"```python\n(.*?)```", guide.read_text(), re.DOTALL)[1]
    (tmp_path / "student").mkdir()
    for part in (file, file.with_suffix(".bin")):
        (tmp_path / "student" / part.name).write_bytes(part.read_bytes())
    image = pictures(1)[0].mul(255).round().byte()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / "picture.png")
    program = program.replace("picture.jpg", "picture.png")  # a JPEG would not be the same picture
    program += 'np.savez("features.npz", summary=summary, patches=patches)\n'
    clean = {"HOME": str(tmp_path), "CI": "true", "PYTHONPATH": ":".join(filter(None, sys.path))}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{encoder.name} None (1, 96) (1, 96, 4, 3)")
    with torch.no_grad():
        expected = encoder(image[None] / 255)
    found = np.load(tmp_path / "features.npz")
    assert np.allclose(found["summary"], expected.summary, atol=1e-4)
    assert np.allclose(found["patches"], expected.patches, atol=1e-4)


@pytest.mark.formats
@pytest.mark.parametrize(("name", "size"), DEVICE_MODELS)
def test_networks_for_devices(name, size, tmp_path):
    encoder = encoder_of(f"timm/{name}?pretrained=false")
    write(trace(exportable(encoder), size=size), tmp_path / "model.xml")
    assert agreement(encoder, open_session(tmp_path / "model.xml"), pictures(2, size)) > 1 - 1e-5
