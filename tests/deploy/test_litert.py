import re
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from device_models import DEVICE_MODELS, Enlarging, enlarging
from PIL import Image
from safetensors.torch import save_file

from eyespot.deploy.check import numeric_check
from eyespot.deploy.formats import litert
from eyespot.deploy.graph import exportable, trace
from eyespot.encoders import load_encoder
from eyespot.encoders.licenses import Terms
from eyespot.encoders.runtimes.litert import FACTS_MEMBER, LitertEncoder, open_session

NO_CONVERTER = "litert-torch is not installed: it wants an environment of its own, see docs/deploy/litert.md"


def build(file, *, shape=(1, 3, 8, 16), names=("summary", "patches"), signature=True):
    """A file that gives the spatial means of a picture, and the picture doubled; None in `shape` is an open side."""
    tf = pytest.importorskip("ai_edge_litert.schema_py_generated", reason="LiteRT's runtime is not installed")
    import flatbuffers
    import numpy as np

    traced = [side or 1 for side in shape]
    constants = [None, np.array([2.0], np.float32), np.array([2, 3], np.int32)]
    tensors = [
        tf.TensorT(shape=traced, shapeSignature=[side or -1 for side in shape], name="images"),
        tf.TensorT(shape=[1], buffer=1, name="two"),
        tf.TensorT(shape=[2], buffer=2, name="axes", type=tf.TensorType.INT32),
        tf.TensorT(shape=traced[:2], name="mean"),
        tf.TensorT(shape=traced, name="double"),
    ]
    operators = [
        tf.OperatorT(0, [0, 2], [3], tf.BuiltinOptions.ReducerOptions, tf.ReducerOptionsT()),
        tf.OperatorT(1, [0, 1], [4], tf.BuiltinOptions.MulOptions, tf.MulOptionsT()),
    ]
    codes = (tf.BuiltinOperator.MEAN, tf.BuiltinOperator.MUL)
    outputs = [tf.TensorMapT(name, index) for name, index in zip(names, (3, 4), strict=True)]
    described = tf.SignatureDefT([tf.TensorMapT("images", 0)], outputs, "serving_default", 0)
    model = tf.ModelT(
        version=3,
        operatorCodes=[tf.OperatorCodeT(code, builtinCode=code, version=1) for code in codes],
        subgraphs=[tf.SubGraphT(tensors, [0], [3, 4], operators)],
        buffers=[tf.BufferT(None if value is None else value.view(np.uint8)) for value in constants],
        signatureDefs=[described] if signature else None,
    )
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    file.write_bytes(bytes(builder.Output()))
    return file


def test_a_file_of_the_contract_is_an_encoder(tmp_path):
    encoder = LitertEncoder(build(tmp_path / "a.tflite"))
    images = torch.rand(3, 3, 8, 16)
    features = encoder(images)
    torch.testing.assert_close(features.patches, 2 * images)
    torch.testing.assert_close(features.summary, images.mean((2, 3)))
    assert (encoder.native_size, encoder.session.taken.batch, encoder.stride) == ((8, 16), 1, 1)
    assert encoder.license is None and encoder.terms == Terms.UNKNOWN


def test_results_do_not_change_with_the_next_run(tmp_path):
    session = open_session(build(tmp_path / "a.tflite"), threads=1)
    first = session.run(torch.zeros(1, 3, 8, 16), ["patches"])[0]
    session.run(torch.ones(1, 3, 8, 16), ["patches"])
    assert (first == 0).all()


def test_outputs_come_in_the_order_in_which_they_are_asked_for(tmp_path):
    session = open_session(build(tmp_path / "a.tflite"))
    images = torch.rand(1, 3, 8, 16)
    patches, summary = session.run(images, ("patches", "summary"))
    assert patches.shape == (1, 3, 8, 16) and summary.shape == (1, 3)
    assert set(session.outputs) == {"summary", "patches"}


def test_open_sizes_are_taken_as_they_come(tmp_path):
    session = open_session(build(tmp_path / "a.tflite", shape=(None, 3, None, None)))
    assert (session.taken.batch, session.taken.sides) == (None, (None, None))
    for shape in ((2, 3, 8, 8), (1, 3, 4, 12)):
        images = torch.rand(shape)
        torch.testing.assert_close(session.run(images, ["patches"])[0], 2 * images)


def test_facts_ride_behind_the_model(tmp_path):
    file = build(tmp_path / "a.tflite")
    assert open_session(file).metadata == {}
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("labels.txt", "of somebody else")
    assert open_session(file).metadata == {}
    litert._append_facts(file, {"license": "mit", "name": "é"})
    encoder = LitertEncoder(file)
    assert encoder.license == "mit" and encoder.session.metadata["name"] == "é"
    torch.testing.assert_close(encoder(torch.ones(1, 3, 8, 16)).summary, torch.ones(1, 3))
    assert zipfile.ZipFile(file).namelist() == ["labels.txt", FACTS_MEMBER]


def test_other_names_can_be_told(tmp_path):
    file = build(tmp_path / "a.tflite", names=("pooled", "map"))
    with pytest.raises(ValueError, match="no output summary or patches; it has"):
        LitertEncoder(file)
    assert LitertEncoder(file, summary="pooled", patches="map").summary_dim == 3


def test_what_cannot_be_an_encoder_is_refused_with_the_reason(tmp_path):
    with pytest.raises(FileNotFoundError, match="no litert file at"):
        open_session(tmp_path / "nowhere.tflite")
    damaged = tmp_path / "damaged.tflite"
    damaged.write_bytes(b"not a model")
    with pytest.raises(ValueError, match="cannot be read as a LiteRT file"):
        open_session(damaged)
    with pytest.raises(ValueError, match="no signature"):
        open_session(build(tmp_path / "a.tflite", signature=False))
    with pytest.raises(
        ValueError, match=r"must be pictures \[batch, 3, H, W\] or \[batch, H, W, 3\], it is \[1, 4, 8, 8\]"
    ):
        open_session(build(tmp_path / "b.tflite", shape=(1, 4, 8, 8)))


def test_a_missing_library_is_named_with_its_remedy(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(ImportError, match=r"pip install 'eyespot\[litert\]'"):
        open_session(tmp_path / "a.tflite")
    monkeypatch.setitem(sys.modules, "litert_torch", None)
    with pytest.raises(ImportError, match="pip install litert-torch"):
        litert.write(None, tmp_path / "a.tflite")


def snippets(guide):
    text = (Path(__file__).parents[2] / "docs" / "deploy" / guide).read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def test_the_snippets_of_the_guide_run_as_they_stand(tmp_path, monkeypatch, capsys):
    encode, check = snippets("litert.md")
    (tmp_path / "student").mkdir()
    build(tmp_path / "student" / "model.tflite")
    Image.new("RGB", (64, 48), (255, 51, 0)).save(tmp_path / "picture.jpg", quality=100)
    pixels = torch.randint(256, (1, 3, 8, 16), dtype=torch.uint8)
    images = pixels.float() / 255
    reference = {"images": pixels, "summary": images.mean((2, 3)), "patches": 2 * images}
    save_file(reference, tmp_path / "student" / "reference.safetensors")
    monkeypatch.chdir(tmp_path)
    found = {}
    exec(encode, found)
    assert found["summary"][0] == pytest.approx([1, 0.2, 0], abs=0.02)
    assert found["patches"].shape == (1, 3, 8, 16)
    exec(check, {})
    assert capsys.readouterr().out.count("mean cosine 1.000000") == 2


def converted(folder, spec, batch=1, size=(32, 32), **options):
    pytest.importorskip("litert_torch", reason=NO_CONVERTER)
    torch.manual_seed(0)
    module = exportable(load_encoder(spec, **options))
    graph = trace(module, batch=batch, size=size)
    litert.write(graph, folder / "model.tflite")
    return module, graph, folder / "model.tflite"


def test_what_cannot_be_converted_is_told_with_versions(tmp_path, monkeypatch):
    litert_torch = pytest.importorskip("litert_torch", reason=NO_CONVERTER)

    def refuse(*args, **kwargs):
        raise RuntimeError("no lowering for sorcery")

    monkeypatch.setattr(litert_torch, "convert", refuse)
    with pytest.raises(ValueError, match=r"test_vit.*litert-torch \d.*torch \d.*lowering for sorcery"):
        converted(tmp_path, "timm/test_vit", pretrained=False)


def test_a_converted_model_says_what_the_model_says(tmp_path):
    module, graph, file = converted(tmp_path, "timm/test_vit", batch=2, size=(48, 32), pretrained=False)
    encoder = LitertEncoder(file)
    assert numeric_check(module, encoder.session, graph.names, [graph.example()]).passed
    assert encoder.session.metadata == graph.facts
    assert (encoder.session.taken.batch, encoder.native_size, encoder.stride) == (2, (48, 32), graph.stride)
    images = torch.rand(3, 3, 48, 32)
    assert encoder(images).summary.shape == (3, encoder.summary_dim)


def test_enlargements_by_fractions_pick_the_right_pixels(tmp_path):
    pytest.importorskip("litert_torch", reason=NO_CONVERTER)
    graph, images = enlarging()
    litert.write(graph, tmp_path / "model.tflite")
    (found,) = open_session(tmp_path / "model.tflite").run(images, ["patches"])
    torch.testing.assert_close(found, Enlarging()(images)[1])


@pytest.mark.formats
@pytest.mark.parametrize(("name", "size"), DEVICE_MODELS)
def test_every_family_converts(tmp_path, name, size):
    module, graph, file = converted(tmp_path, f"timm/{name}", size=size, pretrained=False)
    assert numeric_check(module, LitertEncoder(file).session, graph.names, [graph.example()]).passed
