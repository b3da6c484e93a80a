import json
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import eyespot.deploy.formats.onnx
from eyespot.cli.main import main
from eyespot.deploy import ExportError, Int8, class_text, export
from eyespot.deploy.formats import FORMATS, find_format
from eyespot.encoders import load_encoder, save_encoder
from eyespot.encoders.text.embeddings import save_text_embeddings

TINY = "timm/test_vit?pretrained=false"
ROPE = "timm/vit_tiny_patch16_dinov3_qkvb?pretrained=false&depth=1"


def quiet(text):
    del text


def same(spec, encoder, shape):
    images = torch.rand(shape)
    with torch.no_grad():
        ours, theirs = load_encoder(spec)(images), encoder(images)
    torch.testing.assert_close(ours.summary, theirs.summary, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(ours.patches, theirs.patches, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("format", ["onnx", "torch"])
def test_a_file_says_what_the_model_says_and_knows_where_it_comes_from(tmp_path, format):
    encoder = load_encoder(f"{ROPE}&license=mit")
    done = export(encoder, format, tmp_path / "out", image_size=(64, 96), say=quiet)
    assert done.check.passed and done.check.cosine > 0.999999
    assert sorted(path.name for path in done.folder.iterdir()) == sorted(
        [FORMATS[format].file, "export.json", "reference.safetensors"]
    )
    same(done.spec, encoder, (3, 3, 64, 96))
    exported = load_encoder(done.spec)
    assert (exported.native_size, exported.stride, exported.license) == ((64, 96), 16, "mit")
    assert exported.facts["model"] == encoder.name
    assert exported.session.metadata["name"] == encoder.name
    facts = json.loads((done.folder / "export.json").read_text())
    assert facts["hash"] == exported.facts["hash"]
    assert facts["check"]["passed"] is True and facts["precision"] == "float32" and facts["versions"]["torch"]


@pytest.mark.parametrize("format", ["onnx", pytest.param("torch", marks=pytest.mark.formats)])
@pytest.mark.slow
def test_open_sizes_give_the_eager_result_at_sizes_that_were_not_traced(tmp_path, format):
    encoder = load_encoder(ROPE)
    done = export(encoder, format, tmp_path / "out", image_size="dynamic", batch="dynamic", say=quiet)
    for shape in ((1, 3, 48, 144), (3, 3, 112, 32), (2, 3, 256, 192)):
        same(done.spec, encoder, shape)
    assert len({entry.shape for entry in done.check.agreements}) == 6
    with pytest.raises(ValueError, match="multiples of 16"):
        load_encoder(done.spec)(torch.rand(1, 3, 50, 64))


@pytest.mark.formats
def test_the_rope_tables_are_constants_and_nothing_is_tiled(tmp_path):
    import onnx

    operators = {}
    for name, size in (("fixed", (64, 96)), ("open", "dynamic")):
        done = export(ROPE, "onnx", tmp_path / name, image_size=size, say=quiet)
        model = onnx.load(done.file)
        operators[name] = {node.op_type for node in model.graph.node}
        assert not operators[name] & {"Tile", "If", "Loop"}
        assert "eyespot/deploy" not in done.file.read_bytes().decode("latin1")  # no stack traces of this machine
    assert not operators["fixed"] & {"Sin", "Cos", "Range", "Shape"}


def test_the_reference_lets_any_device_check_itself(tmp_path):
    done = export(TINY, "onnx", tmp_path / "out", image_size=64, batch=2, say=quiet)
    reference = load_file(done.folder / "reference.safetensors")
    assert reference["images"].dtype == torch.uint8 and reference["images"].shape == (2, 3, 64, 64)
    found = load_encoder(done.spec)(reference["images"] / 255)
    torch.testing.assert_close(found.summary, reference["summary"], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found.patches, reference["patches"], rtol=1e-3, atol=1e-4)


def test_a_failed_check_leaves_nothing_and_spares_what_was_there(tmp_path, monkeypatch):
    export(TINY, "onnx", tmp_path / "out", image_size=32, say=quiet)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    write = eyespot.deploy.formats.onnx.write
    monkeypatch.setattr(eyespot.deploy.formats.onnx, "write", lambda graph, file: (write(graph, file), spoil(file)))
    with pytest.raises(ExportError, match=r"(?s)does not do what the model does.*patches at 1x3x64x64"):
        export(TINY, "onnx", tmp_path / "out", image_size=64, say=quiet)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def spoil(file):
    """Turns the sign of one weight: the file runs, and answers wrongly."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(file)
    weight = max(model.graph.initializer, key=lambda entry: len(entry.raw_data))
    weight.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(weight), weight.name))
    onnx.save(model, file)


def test_a_teachers_space_inner_layers_and_a_zero_shot_head(tmp_path):
    from eyespot.distill.features.chain import AdapterChain
    from eyespot.distill.features.heads import AdapterHead

    encoder = load_encoder(TINY)
    torch.manual_seed(0)
    adapters = {}
    for part, width in (("summary", 12), ("patch", 10)):
        head = AdapterHead(encoder.summary_dim, 16, width)
        adapters |= {f"heads.clip.{part}.{name}": value.detach() for name, value in head.state_dict().items()}
        for name, value in (("mean", torch.randn(width)), ("std", torch.rand(width) + 0.5)):
            adapters[f"standardizers.clip.{part}.{name}"] = value
    save_encoder(encoder, tmp_path / "student", adapters=adapters)
    student = load_encoder(f"run/{tmp_path}/student")
    save_text_embeddings(tmp_path / "words.safetensors", ("cat", "dog", "cow"), torch.randn(3, 12))
    text = class_text(str(tmp_path / "words.safetensors"), ["dog", "cat"])
    done = export(
        student,
        "onnx",
        tmp_path / "out",
        image_size=64,
        space="clip",
        layers=(0, 2),
        zero_shot={"text": text},
        say=quiet,
    )
    session = load_encoder(done.spec).session
    wanted = ("summary", "patches", "layer_0", "layer_2", "clip_summary", "clip_patches", "class_scores")
    assert session.outputs == wanted
    images = torch.rand(1, 3, 64, 64)
    found = dict(zip(wanted, session.run(images, wanted), strict=True))
    with torch.no_grad():
        there = AdapterChain(student.adapters, ("clip",))(student(images))
    torch.testing.assert_close(found["clip_summary"], there.summary, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found["clip_patches"], there.patches, rtol=1e-3, atol=1e-4)
    cosines = torch.nn.functional.cosine_similarity(there.summary, text.embeddings)
    torch.testing.assert_close(found["class_scores"], cosines[None], rtol=1e-3, atol=1e-4)
    assert json.loads(session.metadata["eyespot"])["classes"] == ["dog", "cat"]


def test_text_must_be_readable(tmp_path):
    save_text_embeddings(tmp_path / "words.safetensors", ("cat", "dog"), torch.randn(2, 12))
    file = str(tmp_path / "words.safetensors")
    assert class_text(file).names == ("cat", "dog")
    with pytest.raises(ValueError, match="does not know zebra"):
        class_text(file, ["cat", "zebra"])
    with pytest.raises(ValueError, match="name the classes"):
        class_text("hf/openai/clip-vit-base-patch32")
    with pytest.raises(ValueError, match="nothing leads"):
        export(TINY, "onnx", tmp_path / "out", zero_shot={"text": class_text(file)}, say=quiet)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"format": "onx"}, "did you mean 'onnx'"),
        ({"format": "executorch", "image_size": "dynamic"}, "fixed size and batch"),
        ({"format": "litert", "batch": "dynamic"}, "fixed size and batch"),
        ({"format": "onnx", "image_size": (50, 64)}, "48x64 would do"),
        ({"format": "torch", "int8": Int8()}, "no int8 for torch; there is for onnx, openvino, executorch"),
        ({"format": "onnx", "space": "clip"}, "no adapters lead to 'clip'"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_what_cannot_be_done_is_refused_before_anything_is_written(tmp_path, arguments, says):
    with pytest.raises(ValueError, match=says):
        export(TINY, output=tmp_path / "out", say=quiet, **arguments)
    assert not list(tmp_path.iterdir())


def test_a_file_is_not_exported_again(tmp_path):
    done = export(TINY, "onnx", tmp_path / "out", image_size=64, say=quiet)
    with pytest.raises(ValueError, match="export the model it was made from"):
        export(done.spec, "onnx", tmp_path / "again", say=quiet)


def test_missing_libraries_are_named_with_how_to_install_them(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r"pip install 'eyespot\[onnx\]'"):
        export(TINY, "onnx", tmp_path / "out", image_size=64, say=quiet)
    assert not (tmp_path / "out").exists()


def test_every_format_is_an_extra():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    extras = set(project["optional-dependencies"])
    assert set(FORMATS) - {"torch"} <= extras
    assert find_format("onnx").file == "model.onnx"


def test_the_command_line(tmp_path, capsys):
    main(["export", TINY, "--output", str(tmp_path / "out"), "--image-size", "64", "96", "--layers", "0"])
    said = capsys.readouterr().out
    assert "1x3x64x96" in said and "layer_0" in said and f'load_encoder("onnx/{tmp_path}/out/model.onnx")' in said
    with pytest.raises(SystemExit):
        main(["export", TINY, "--output", str(tmp_path / "b"), "--image-size", "64", "x"])
    assert "--image-size takes HEIGHT WIDTH" in capsys.readouterr().err
