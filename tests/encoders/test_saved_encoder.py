import json

import pytest
import torch
from safetensors.torch import load_file

from eyespot.encoders import load_encoder, save_encoder

SAVED = """
import torch
from eyespot import Encoder, Features

class Own(Encoder):
    def __init__(self, width):
        super().__init__((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
        self.summary_dim = self.patch_dim = width
        self.stride, self.default_size = 8, (32, 32)
        self.embed = torch.nn.Conv2d(3, width, 8, 8)

    def _encode(self, images):
        maps = self.embed(images)
        return Features(maps.mean((2, 3)), maps)

def make(width=4):
    return Own(width)
"""


def small(**options):
    return load_encoder("timm/test_vit", pretrained=False, **options)


@pytest.fixture
def images():
    return torch.rand(2, 3, 64, 64)


def test_the_folder_holds_what_timm_and_people_need(tmp_path):
    folder = save_encoder(
        small(), tmp_path / "deep/er/model", license="mit", details={"stage": "3"}, card="# A card", adapters={}
    )
    assert sorted(file.name for file in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    config = json.loads((folder / "config.json").read_text())
    assert config["architecture"] == "test_vit" and config["num_classes"] == 0
    assert config["pretrained_cfg"]["license"] == "mit"
    assert config["pretrained_cfg"]["input_size"] == [3, 160, 160]
    facts = {"stage": "3", "summary_dim": 64, "patch_dim": 64, "stride": 16, "license": "mit"}
    assert facts.items() <= config["eyespot"].items()


def test_adapters_travel_with_the_model(tmp_path):
    adapters = {"heads.a.patch.0.weight": torch.randn(4, 3), "standardizers.a.patch.mean": torch.randn(3).double()}
    folder = save_encoder(small(), tmp_path / "model", adapters=adapters)
    loaded = load_encoder(f"run/{folder}").adapters
    assert loaded.keys() == adapters.keys()
    assert all(torch.equal(loaded[name], value) for name, value in adapters.items())
    copy = save_encoder(load_encoder(f"run/{folder}"), tmp_path / "copy")
    assert (copy / "adapters.safetensors").read_bytes() == (folder / "adapters.safetensors").read_bytes()
    assert load_encoder(f"run/{save_encoder(small(), tmp_path / 'other')}").adapters == {}


@pytest.mark.parametrize("inside", ["", "student", "model"])
@torch.no_grad()
def test_model_run_and_stage_folders_all_load(tmp_path, images, inside):
    encoder = small()
    save_encoder(encoder, tmp_path / "run" / inside)
    assert torch.equal(load_encoder(f"run/{tmp_path / 'run'}")(images).summary, encoder(images).summary)


@torch.no_grad()
def test_a_relative_folder(tmp_path, images, monkeypatch):
    encoder = small()
    save_encoder(encoder, tmp_path / "here/student")
    monkeypatch.chdir(tmp_path)
    assert torch.equal(load_encoder("run/here")(images).patches, encoder(images).patches)


def test_lineage_comes_back(tmp_path):
    teachers = [{"name": "timm/a", "licence": "mit"}]
    folder = save_encoder(small(), tmp_path / "model", details={"teachers": teachers})
    assert load_encoder(f"run/{folder}").lineage == teachers


@pytest.mark.parametrize("name", ["mobilenetv3_small_100.lamb_in1k", "mobilenetv3_large_100.miil_in21k_ft_in1k"])
@torch.no_grad()
def test_the_normalisation_of_a_tag_survives(tmp_path, images, name):
    """Tags of one architecture may differ in mean and std, and the default tag's are not the saved model's."""
    encoder = load_encoder(f"timm/{name}", pretrained=False)
    loaded = load_encoder(f"run/{save_encoder(encoder, tmp_path / 'model')}")
    assert torch.equal(loaded.mean, encoder.mean) and torch.equal(loaded.std, encoder.std)
    assert torch.equal(loaded(images).summary, encoder(images).summary)


def test_an_option_of_the_architecture_survives(tmp_path):
    encoder = small(img_size=96, depth=2)
    loaded = load_encoder(f"run/{save_encoder(encoder, tmp_path / 'model')}")
    assert loaded.default_size == (96, 96) and len(loaded.model.blocks) == 2


@torch.no_grad()
def test_a_python_encoder_is_built_again_with_its_options(tmp_path, images):
    (tmp_path / "own.py").write_text(SAVED)
    encoder = load_encoder(f"python/{tmp_path / 'own.py'}:make?width=6")
    loaded = load_encoder(f"run/{save_encoder(encoder, tmp_path / 'model')}")
    assert loaded.patch_dim == 6
    assert torch.equal(loaded(images).patches, encoder(images).patches)


def test_saving_replaces_the_whole_folder_or_nothing(tmp_path):
    folder = save_encoder(small(), tmp_path / "model", card="# first")
    before = load_file(folder / "model.safetensors")
    with pytest.raises(TypeError):
        save_encoder(small(), folder, details={"not JSON": object()})
    after = load_file(folder / "model.safetensors")
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]
    save_encoder(small(), folder)
    assert not (folder / "README.md").exists()


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"student/.*run//path"):
        load_encoder(f"run/{tmp_path}")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "test_vit"}))
    with pytest.raises(ValueError, match="timm/local-dir"):
        load_encoder(f"run/{tmp_path}")
    folder = save_encoder(small(), tmp_path / "model")
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        load_encoder(f"run/{folder}")


def test_run_takes_no_options(tmp_path):
    folder = save_encoder(small(), tmp_path / "model")
    with pytest.raises(ValueError, match="depth"):
        load_encoder(f"run/{folder}?depth=2")
