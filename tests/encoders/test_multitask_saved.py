import json

import pytest
import torch

from eyespot.dense_tasks import dense_task
from eyespot.encoders import load_encoder, save_encoder
from eyespot.encoders.multitask import MultiTaskEncoder, PathEncoder
from multitask_tiny import PATHS, STEM, TASKS, pictures, tiny


@torch.no_grad()
@pytest.mark.parametrize("router", ["mor", "sum"])
def test_a_folder_gives_the_same_model_bit_for_bit(tmp_path, router):
    spec = STEM.replace("depth=4", "depth=6")
    tasks = {"segmentation": dense_task("classes", 3, names=("sky", "road", "tree")), "depth": dense_task("depth")}
    model, images = tiny(router=router, spec=spec, tasks=tasks, levels=(0, 2, 3, 5)), pictures()
    loaded = load_encoder(f"run/{save_encoder(model, tmp_path / 'model')}")
    assert isinstance(loaded, MultiTaskEncoder) and not loaded.training
    assert (loaded.tasks, loaded.path_names, loaded.router) == (tasks, PATHS, router)
    assert (loaded.levels, loaded.active, loaded.default_size) == ((0, 2, 3, 5), PATHS, (64, 64))
    assert loaded.state_dict().keys() == model.state_dict().keys()
    before, after = model.predict(images), loaded.predict(images)
    assert before.keys() == after.keys() and all(torch.equal(after[name], before[name]) for name in before)
    assert torch.equal(loaded(images).summary, model(images).summary)
    copy = load_encoder(f"run/{save_encoder(loaded, tmp_path / 'copy')}")
    assert all(torch.equal(copy.predict(images)[name], before[name]) for name in before)


@torch.no_grad()
def test_what_is_off_stays_off_and_adapters_travel_along(tmp_path):
    model = tiny()
    model.active = ["sam"]
    adapters = {"aligners.sam.0.weight": torch.randn(4, 32)}
    folder = save_encoder(model, tmp_path / "model", adapters=adapters, license="mit", details={"stage": "2"})
    loaded = load_encoder(f"run/{folder}")
    assert loaded.active == ("sam",) and loaded.path_names == PATHS and loaded.license == "mit"
    assert torch.equal(loaded.adapters["aligners.sam.0.weight"], adapters["aligners.sam.0.weight"])
    assert torch.equal(loaded.predict(pictures())["depth"], model.predict(pictures())["depth"])
    config = json.loads((folder / "config.json").read_text())
    assert config["architecture"] == "vit_tiny_patch16_224" and config["model_args"]["final_norm"] is False
    assert config["eyespot"]["multitask"]["tasks"].keys() == TASKS.keys() and config["eyespot"]["stage"] == "2"


@torch.no_grad()
def test_a_path_is_an_encoder_of_its_own(tmp_path):
    model, images = tiny(), pictures()
    folder = save_encoder(model, tmp_path / "model")
    levels = model.look(images)
    path = load_encoder(f"run/{folder}?path=sam")
    assert isinstance(path, PathEncoder) and path.name == f"run/{folder}?path=sam"
    features = path(images)
    assert torch.equal(features.patches, levels.paths["sam"][-1])
    torch.testing.assert_close(features.summary, features.patches.mean((2, 3)))
    assert (features.summary.shape[1], features.patches.shape[1]) == (path.summary_dim, path.patch_dim)
    for found, level in zip(path.intermediates(images, [1, 3]), levels.paths["sam"][1::2], strict=True):
        assert torch.equal(found, level)
    assert not any("clip" in name or "heads" in name or "routers" in name for name in path.state_dict())

    stem = load_encoder(f"run/{folder}", path="stem")
    assert torch.equal(stem(images).summary, levels.summary)
    assert torch.equal(stem(images).patches, levels.stem[-1])
    assert torch.equal(stem.intermediates(images, [1])[0], levels.stem[1])


def test_paths_that_are_not_there_are_refused(tmp_path):
    folder = save_encoder(tiny(), tmp_path / "model")
    with pytest.raises(ValueError, match="no path dino; it has clip, sam"):
        load_encoder(f"run/{folder}?path=dino")
    with pytest.raises(ValueError, match="behind blocks 0, 1, 2, 3 only"):
        load_encoder(f"run/{folder}?path=sam").intermediates(pictures(), [4])
    plain = save_encoder(load_encoder("timm/test_vit?pretrained=false"), tmp_path / "plain")
    with pytest.raises(ValueError, match=r"no multi-task model.*leave out path=sam"):
        load_encoder(f"run/{plain}?path=sam")


@torch.no_grad()
def test_a_path_can_be_saved_while_its_model_is_there(tmp_path):
    path = load_encoder(f"run/{save_encoder(tiny(), tmp_path / 'model')}?path=clip")
    loaded = load_encoder(f"run/{save_encoder(path, tmp_path / 'path')}")
    assert torch.equal(loaded(pictures()).patches, path(pictures()).patches)


def test_weights_of_another_model_are_refused(tmp_path):
    folder = save_encoder(tiny(), tmp_path / "model")
    other = save_encoder(tiny(paths=("clip",)), tmp_path / "other")
    with pytest.raises(ValueError, match=r"missing paths\.sam"):
        load_encoder(f"run/{folder}", weights=other / "model.safetensors")
