import json
import logging
import re
import sys
import warnings
from pathlib import Path

import pytest
import torch
from device_models import DEVICE_MODELS, Enlarging, enlarging
from mil_in_torch import read_program, run_program
from safetensors.torch import save_file

from eyespot.deploy.check import numeric_check
from eyespot.deploy.formats import coreml
from eyespot.deploy.graph import exportable, trace
from eyespot.encoders import load_encoder


def coremltools_or_skip():
    with coreml._quiet():
        return pytest.importorskip("coremltools", reason="coremltools is not installed")


@pytest.fixture
def coremltools():
    return coremltools_or_skip()


class Evaluated:
    """A package whose program is computed by torch; see `exported.Session`."""

    def __init__(self, package):
        self.main = read_program(package)

    def run(self, images, names):
        found = run_program(self.main, images)
        return [found[name] for name in names]


def converted(folder, spec, batch=1, size=(32, 32), layers=(), **options):
    torch.manual_seed(0)
    module = exportable(load_encoder(spec, **options), layers)
    graph = trace(module, batch=batch, size=size)
    package = folder / "model.mlpackage"
    coreml.write(graph, package)
    return module, graph, package


def types(entries):
    return {
        entry.name: (tuple(entry.type.multiArrayType.shape), entry.type.multiArrayType.dataType) for entry in entries
    }


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    coremltools_or_skip()
    folder = tmp_path_factory.mktemp("vit")
    return converted(folder, "timm/test_vit", batch=2, size=(48, 32), layers=(0,), pretrained=False)


def test_the_program_computes_what_the_model_computes(vit):
    module, graph, package = vit
    assert graph.names == ("summary", "patches", "layer_0")
    assert numeric_check(module, Evaluated(package), graph.names, [graph.example()]).passed


@pytest.mark.slow
def test_so_does_that_of_a_cnn(tmp_path, coremltools):
    module, graph, package = converted(tmp_path, "timm/test_byobnet", size=(64, 96), pretrained=False)
    assert numeric_check(module, Evaluated(package), graph.names, [graph.example()]).passed


def test_enlargements_by_fractions_pick_the_right_pixels(tmp_path, coremltools):
    graph, images = enlarging()
    coreml.write(graph, tmp_path / "model.mlpackage")
    found = run_program(read_program(tmp_path / "model.mlpackage"), images)
    torch.testing.assert_close(found["patches"], Enlarging()(images)[1])


def test_names_shapes_types_and_facts_are_in_the_package(vit, coremltools):
    _, graph, package = vit
    spec = coremltools.models.utils.load_spec(str(package))
    float32 = coremltools.proto.FeatureTypes_pb2.ArrayFeatureType.FLOAT32
    assert types(spec.description.input) == {"images": ((2, 3, 48, 32), float32)}
    assert list(types(spec.description.output)) == list(graph.names)
    assert all(dtype == float32 for _, dtype in types(spec.description.output).values())
    metadata = spec.description.metadata
    assert graph.facts.items() <= dict(metadata.userDefined).items()
    assert json.loads(metadata.userDefined["eyespot"])["model"] == graph.facts["name"] in metadata.shortDescription
    assert spec.specificationVersion == coremltools.target.iOS16
    assert sorted(path.name for path in package.iterdir()) == ["Data", "Manifest.json"]


def test_float16_is_computed_inside_and_float32_stays_outside(tmp_path, vit, coremltools):
    module, graph, full = vit
    half = tmp_path / "half.mlpackage"
    coreml.write(graph, half, "float16")
    spec = coremltools.models.utils.load_spec(str(half))
    float32 = coremltools.proto.FeatureTypes_pb2.ArrayFeatureType.FLOAT32
    assert {dtype for _, dtype in types([*spec.description.input, *spec.description.output]).values()} == {float32}
    sizes = [sum(file.stat().st_size for file in package.rglob("weight.bin")) for package in (half, full)]
    assert sizes[0] == pytest.approx(sizes[1] / 2, rel=0.1)
    check = numeric_check(module, Evaluated(half), graph.names, [graph.example()], least_cosine=0.999)
    assert check.passed and check.agreements[0].max_difference > 1e-5


def test_the_check_of_the_guide_passes_on_a_stand_in_for_core_ml(tmp_path, vit, coremltools, monkeypatch, capsys):
    class StandIn:
        def __init__(self, package, compute_units):
            assert compute_units == coremltools.ComputeUnit.CPU_ONLY
            self.main = read_program(vit[2])
            assert package == "student/model.mlpackage"

        def predict(self, given):
            found = run_program(self.main, torch.from_numpy(given["images"]))
            return {name: value.numpy() for name, value in found.items()}

    module, graph, _ = vit
    pixels = (graph.example() * 255).to(torch.uint8)
    outputs = dict(zip(graph.names, (value.contiguous() for value in module(pixels / 255)), strict=True))
    (tmp_path / "student").mkdir()
    save_file({"images": pixels, **outputs}, tmp_path / "student" / "reference.safetensors")
    guide = Path(__file__).parents[2] / "docs" / "deploy" / "coreml.md"
    *_, check = re.findall(r"^```python\n(.*?)^```", guide.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(coremltools.models, "MLModel", StandIn)
    exec(check, {})
    assert capsys.readouterr().out.count("mean cosine 1.000000") == len(graph.names)


def test_conversion_is_quiet_and_leaves_logging_as_it_was(tmp_path, vit, coremltools, capfd):
    before = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        coreml.write(vit[1], tmp_path / "again.mlpackage")
    assert capfd.readouterr() == ("", "")
    assert logging.root.manager.disable == before


def test_what_cannot_be_converted_is_told_with_versions(tmp_path, vit, coremltools, monkeypatch):
    def refuse(*args, **kwargs):
        raise NotImplementedError("Unsupported fx node sorcery")

    monkeypatch.setattr(coremltools, "convert", refuse)
    with pytest.raises(ValueError, match=r"test_vit.*coremltools \d.*torch \d.*fx node sorcery"):
        coreml.write(vit[1], tmp_path / "model.mlpackage")
    assert not list(tmp_path.iterdir())


def test_a_missing_library_is_named_with_its_remedy(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "coremltools", None)
    with pytest.raises(ImportError, match=r"pip install 'eyespot\[coreml\]'"):
        coreml.write(None, tmp_path / "model.mlpackage")


@pytest.mark.formats
@pytest.mark.parametrize(("name", "size"), DEVICE_MODELS)
def test_every_family_converts(tmp_path, coremltools, name, size):
    module, graph, package = converted(tmp_path, f"timm/{name}", size=size, pretrained=False)
    assert numeric_check(module, Evaluated(package), graph.names, [graph.example()]).passed
