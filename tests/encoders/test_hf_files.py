import json
import shutil
import sys
from fnmatch import fnmatch
from types import SimpleNamespace

import huggingface_hub
import pytest
import timm
import torch
import zoo_hf
from huggingface_hub import errors
from safetensors.torch import load_file

from eyespot.encoders import load_encoder, save_encoder


@pytest.mark.parametrize(
    ("processor", "mean", "size"),
    [
        ("BitImageProcessor", 0.48145466, (224, 224)),
        ("CLIPImageProcessor", 0.48145466, (224, 224)),
        ("SiglipImageProcessor", 0.5, (224, 224)),
        ("Siglip2ImageProcessor", 0.5, (64, 64)),
        ("DINOv3ViTImageProcessor", 0.485, (224, 224)),
        ("SamImageProcessor", 0.485, (1024, 1024)),
        ("ConvNextImageProcessor", 0.5, (384, 384)),
        ("ViTFeatureExtractor", 0.5, (224, 224)),
    ],
)
def test_what_processors_state(processor, mean, size, tmp_path):
    zoo_hf.write_model("dinov2", tmp_path)
    key = "feature_extractor_type" if processor.endswith("Extractor") else "image_processor_type"
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({key: processor}))
    encoder = load_encoder(f"hf/{tmp_path}")
    assert encoder.mean.flatten()[0].item() == pytest.approx(mean)
    assert encoder.default_size == size


def test_the_nested_layout_of_processors(tmp_path):
    zoo_hf.write_model("dinov2", tmp_path)
    stated = json.loads((tmp_path / "preprocessor_config.json").read_text())
    (tmp_path / "preprocessor_config.json").unlink()
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": stated}))
    assert load_encoder(f"hf/{tmp_path}").mean.flatten().tolist() == pytest.approx(zoo_hf.MEAN)


def test_a_processor_that_does_not_normalise(tmp_path):
    zoo_hf.write_model("radio", tmp_path)
    zoo_hf.write_processor(tmp_path, do_normalize=False)
    encoder = load_encoder(f"hf/{tmp_path}")
    assert (encoder.mean.unique().item(), encoder.std.unique().item()) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("stated", "says"),
    [
        ({"do_rescale": False}, "scales pictures by 1.0"),
        ({"rescale_factor": 1 / 127.5}, "and not by 1/255"),
        ({"image_processor_type": "ViTImageProcessor", "do_convert_grayscale": True}, "do_convert_grayscale"),
        ({"image_processor_type": "FlavaImageProcessor", "do_map_pixels": True}, "do_map_pixels"),
        ({"image_processor_type": "SuperPointImageProcessor", "do_grayscale": True}, "do_grayscale"),
        (
            {
                "image_processor_type": "LayoutLMv2ImageProcessor",
                "apply_ocr": False,
                "do_rescale": True,
                "rescale_factor": 1 / 255,
            },
            "which its mean and std do not",
        ),
        ({"image_processor_type": "EfficientNetImageProcessor"}, "more than normalise: include_top"),
        ({"image_processor_type": "NoSuchProcessor"}, "cannot be read"),
        ({"image_mean": [0.5, 0.5]}, "three numbers"),
    ],
)
def test_processors_that_are_refused(stated, says, tmp_path):
    zoo_hf.write_model("vit (classifier)", tmp_path)
    zoo_hf.write_processor(tmp_path, **stated)
    with pytest.raises(ValueError, match=says):
        load_encoder(f"hf/{tmp_path}")
    assert load_encoder(f"hf/{tmp_path}?mean=0.5,0.5,0.5&std=0.5,0.5,0.5").std.unique().item() == 0.5


def test_without_a_statement_the_statistics_must_be_given(tmp_path):
    zoo_hf.write_model("dinov2", tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match=r"preprocessor_config.json.*mean=R,G,B and std=R,G,B"):
        load_encoder(f"hf/{tmp_path}")
    with pytest.raises(ValueError, match="together"):
        load_encoder(f"hf/{tmp_path}?mean=0.5,0.5,0.5")
    assert load_encoder(f"hf/{tmp_path}?mean=0.1,0.2,0.3&std=1,1,1").default_size == (64, 64)


@pytest.mark.parametrize(
    ("card", "license"),
    [
        ("---\nlicense: mit\n---\n", "mit"),
        ("---\nlicense: other\nlicense_name: dinov3-license\n---\n", "dinov3-license"),
        ("---\nlicense:\n- mit\n- cc-by-nc-4.0\n---\n", "mit and cc-by-nc-4.0"),
        ("---\ntags: [vision]\n---\n", None),
        ("# no header", None),
        ("---\nlicense: [\n---\n", None),
        (None, None),
    ],
)
def test_the_licence_of_the_card(card, license, tmp_path):
    zoo_hf.write_model("dinov2", tmp_path)
    (tmp_path / "README.md").unlink() if card is None else (tmp_path / "README.md").write_text(card)
    assert load_encoder(f"hf/{tmp_path}").license == license
    assert load_encoder(f"hf/{tmp_path}?license=isc").license == "isc"


# -- the hub --


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A stand-in for the hub: repos are folders in `hub.repos`; what was fetched is written down in `hub.fetched`."""
    stand_in = SimpleNamespace(repos=tmp_path / "repos", cache=tmp_path / "cache", fetched=[], revisions=set())

    def snapshot_download(repo, revision=None, allow_patterns=()):
        folder, copy = stand_in.repos / repo, stand_in.cache / repo
        copy.mkdir(parents=True, exist_ok=True)
        stand_in.revisions.add(revision)
        for file in (file for file in folder.rglob("*") if file.is_file()):
            name = str(file.relative_to(folder))
            if any(fnmatch(name, pattern) for pattern in allow_patterns):
                stand_in.fetched.append(name)
                shutil.copy(file, copy / name)
        return str(copy)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return stand_in


def test_only_what_is_needed_is_downloaded(hub):
    repo = hub.repos / "somebody" / "dinov2"
    zoo_hf.write_model("dinov2", repo)
    for extra in ("onnx/model.onnx", "tf_model.h5", "pytorch_model.bin", "flax_model.msgpack"):
        (repo / extra).parent.mkdir(exist_ok=True)
        (repo / extra).write_bytes(b"large")
    encoder = load_encoder("hf/somebody/dinov2?revision=v1.0")
    described = ["README.md", "config.json", "preprocessor_config.json"]
    assert sorted(hub.fetched) == [*described[:2], "model.safetensors", described[2]]
    assert hub.revisions == {"v1.0"}
    assert (encoder.name, encoder.license) == ("hf/somebody/dinov2?revision=v1.0", "apache-2.0")
    hub.fetched.clear()
    load_encoder("hf/somebody/dinov2", pretrained=False)
    assert sorted(hub.fetched) == described


def test_torch_files_are_downloaded_where_there_is_nothing_safer(hub):
    repo = hub.repos / "somebody" / "dinov2"
    zoo_hf.write_model("dinov2", repo)
    torch.save(load_file(repo / "model.safetensors"), repo / "pytorch_model.bin")
    (repo / "model.safetensors").unlink()
    load_encoder("hf/somebody/dinov2")
    assert "pytorch_model.bin" in hub.fetched


def test_a_folder_of_that_name_wins(hub, tmp_path, monkeypatch):
    zoo_hf.write_model("dinov2", tmp_path / "somebody" / "dinov2")
    monkeypatch.chdir(tmp_path)
    assert load_encoder("hf/somebody/dinov2").name == "hf/somebody/dinov2"
    assert hub.fetched == []


@torch.no_grad()
def test_our_student_comes_back_from_the_hub(hub):
    student = load_encoder("timm/test_vit", pretrained=False)
    adapters = {"heads.teacher.summary.0.weight": torch.rand(4)}
    save_encoder(student, hub.repos / "me" / "student", license="mit", adapters=adapters, card="---\nlicense: x\n---\n")
    loaded = load_encoder("hf/me/student")
    images = torch.rand(1, 3, 64, 96)
    assert torch.equal(loaded(images).patches, student(images).patches)
    assert (loaded.name, loaded.license, loaded.origin) == ("hf/me/student", "mit", "timm/test_vit?pretrained=false")
    assert torch.equal(loaded.adapters["heads.teacher.summary.0.weight"], adapters["heads.teacher.summary.0.weight"])
    with pytest.raises(ValueError, match="summary"):
        load_encoder("hf/me/student?summary=pooled")


@pytest.mark.parametrize("spec", ["python/os:system?command=exit", "torchhub/evil/repo:entry", "run/elsewhere"])
def test_a_saved_model_that_names_code_is_refused(spec, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"eyespot": {"spec": spec}}))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=r"may be anybody's code.*run/"):
        load_encoder(f"hf/{tmp_path}")


@pytest.mark.parametrize(
    "section",
    [
        {"spec": "timm/test_vit", "class": "os:system"},
        {"spec": "timm/test_vit", "head": "linear", "encoder": {"eyespot": {"spec": "python/os:system"}}},
        {
            "spec": "timm/test_vit",
            "team": [{"architecture": "test_vit", "eyespot": {"spec": "x", "class": "os:system"}}],
        },
    ],
)
def test_a_saved_model_with_a_part_that_names_code_is_refused(section, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "test_vit", "eyespot": section}))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=r"python/os:system.*may be anybody's code"):
        load_encoder(f"hf/{tmp_path}")


@torch.no_grad()
def test_a_saved_student_of_transformers(hub, tmp_path):
    zoo_hf.write_model("dinov2", tmp_path / "start")
    student = load_encoder(f"hf/{tmp_path / 'start'}")
    for weight in student.parameters():
        weight += 0.1
    save_encoder(student, hub.repos / "me" / "student")
    images = torch.rand(1, 3, 64, 96)
    assert torch.equal(load_encoder("hf/me/student")(images).patches, student(images).patches)


@torch.no_grad()
def test_a_timm_repo(hub):
    model = timm.create_model("test_vit", num_classes=5).eval()
    model.pretrained_cfg["mean"] = (0.1, 0.2, 0.3)
    repo = hub.repos / "timm" / "test_vit.somewhere"
    timm.models.save_for_hf(model, repo, safe_serialization=True)
    (repo / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    encoder = load_encoder("hf/timm/test_vit.somewhere")
    images = torch.rand(1, 3, 64, 96)
    mean, std = (torch.tensor(model.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    bigger = timm.create_model("test_vit", num_classes=0, dynamic_img_size=True).eval()
    bigger.load_state_dict(model.state_dict(), strict=False)
    torch.testing.assert_close(encoder(images).summary, bigger((images - mean) / std))
    assert (encoder.name, encoder.license) == ("hf/timm/test_vit.somewhere", "cc-by-nc-4.0")
    assert load_encoder("hf/timm/test_vit.somewhere?pretrained=false").license is None
    (repo / "model.safetensors").unlink()
    shutil.rmtree(hub.cache)
    with pytest.raises(FileNotFoundError, match="weights=FILE"):
        load_encoder("hf/timm/test_vit.somewhere")


def response(status):
    return SimpleNamespace(status_code=status, headers={}, request=None)


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (errors.LocalEntryNotFoundError("offline"), FileNotFoundError, r"config.json.*model.safetensors.*hf//path/to"),
        (errors.OfflineModeIsEnabled("offline"), FileNotFoundError, r"Offline\? Bring.*preprocessor_config.json"),
        (OSError("no route to host"), FileNotFoundError, r"no route to host.*hf//path/to/folder"),
        (errors.GatedRepoError("403", response=response(403)), PermissionError, "accept its licence.*hf auth login"),
        (errors.RepositoryNotFoundError("401", response=response(401)), FileNotFoundError, "neither a folder nor"),
        (errors.RevisionNotFoundError("404", response=response(404)), FileNotFoundError, "no revision 'v9'"),
        (errors.HFValidationError("bad"), FileNotFoundError, "ORG/NAME"),
    ],
)
def test_downloads_that_fail_say_what_to_do(error, kind, says, monkeypatch):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(kind, match=says):
        load_encoder("hf/somebody/model?revision=v9")


def test_without_transformers_the_error_says_how_to_install_it(tmp_path, monkeypatch):
    zoo_hf.write_model("dinov2", tmp_path)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"pip install 'eyespot\[hf\]'"):
        load_encoder(f"hf/{tmp_path}")
