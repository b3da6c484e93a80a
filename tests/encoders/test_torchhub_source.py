import builtins
from urllib.error import URLError

import pytest
import torch
from zoo_torchhub import write_clone

from eyespot.encoders import load_encoder, save_encoder
from eyespot.randomness import torch_generator

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def pictures(height=64, width=96):
    return torch.rand(2, 3, height, width, generator=torch_generator("pictures"))


def normalised(images, mean=IMAGENET[0], std=IMAGENET[1]):
    return (images - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


@pytest.fixture
def clone(tmp_path):
    return write_clone(tmp_path / "clone")


def hubconf(folder, text):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "hubconf.py").write_text(text)
    return folder


@torch.no_grad()
def test_the_dino_way(clone):
    encoder = load_encoder(f"torchhub/{clone}:dino?pretrained=false")
    images = pictures()
    features = encoder(images)
    found = encoder.model.forward_features(normalised(images))
    assert torch.equal(features.summary, found["x_norm_clstoken"])
    assert torch.equal(features.tokens, found["x_norm_patchtokens"])
    assert (encoder.stride, encoder.default_size, encoder.native_size) == (16, (224, 224), None)
    assert encoder.name == f"torchhub/{clone}:dino?pretrained=false" and encoder.license is None


@torch.no_grad()
def test_the_radio_way_gets_pictures_as_they_are(clone):
    encoder = load_encoder(f"torchhub/{clone}:radio")
    images = pictures()
    features = encoder(images)
    found = encoder.model(images)
    assert torch.equal(features.summary, found.summary) and torch.equal(features.tokens, found.features)
    assert (encoder.summary_dim, encoder.patch_dim, encoder.default_size) == (48, 24, (64, 96))
    with pytest.raises(NotImplementedError, match="inner layers"):
        encoder.intermediates(images, [0])


@torch.no_grad()
def test_the_timm_way(clone):
    encoder = load_encoder(f"torchhub/{clone}:timm_model?pretrained=false")
    direct = load_encoder("timm/test_vit?pretrained=false")
    direct.model.load_state_dict(encoder.timm.model.state_dict())
    images = pictures()
    assert torch.equal(encoder(images).summary, direct(images).summary)
    assert torch.equal(encoder(images).patches, direct(images).patches)
    assert torch.equal(encoder.intermediates(images, [0])[0], direct.intermediates(images, [0])[0])
    assert encoder.default_size == direct.default_size
    shifted = load_encoder(f"torchhub/{clone}:timm_model?pretrained=false&mean=0.1,0.2,0.3&std=0.4,0.5,0.6")
    torch.testing.assert_close(shifted.mean.flatten(), torch.tensor([0.1, 0.2, 0.3]))
    assert encoder.no_weight_decay() == {f"timm.{name}" for name in direct.no_weight_decay()} != set()
    with pytest.raises(ValueError, match="states its size itself"):
        load_encoder(f"torchhub/{clone}:timm_model?pretrained=false&size=96")
    assert shifted.timm.mean.equal(shifted.mean) and shifted.timm.std.equal(shifted.std)


@torch.no_grad()
def test_options_of_ours_and_of_the_entry_point(clone):
    spec = f"torchhub/{clone}:dino?patch_size=14&size=56,84&mean=0.43,0.41,0.3&std=0.21,0.16,0.14&license=mit"
    encoder = load_encoder(spec, pretrained=False)
    assert (encoder.stride, encoder.default_size, encoder.license) == (14, (56, 84), "mit")
    images = pictures(56, 84)
    found = encoder.model.forward_features(normalised(images, (0.43, 0.41, 0.3), (0.21, 0.16, 0.14)))
    assert torch.equal(encoder(images).summary, found["x_norm_clstoken"])
    with pytest.raises(ValueError, match="multiples of 14, got 64x96"):
        encoder(pictures())
    with pytest.raises(ValueError, match="unexpected keyword argument 'depth'"):
        load_encoder(f"torchhub/{clone}:radio?depth=3")
    with pytest.raises(ValueError, match="give a multiple of the model's stride as size="):
        load_encoder(f"torchhub/{clone}:dino?pretrained=false&patch_size=14&size=50,96")


@torch.no_grad()
def test_intermediates_are_those_of_the_model(clone):
    encoder = load_encoder(f"torchhub/{clone}:dino?pretrained=false")
    images = pictures()
    first, last = encoder.intermediates(images, [0, 1])
    wanted = encoder.model.get_intermediate_layers(normalised(images), n=2, reshape=True, norm=False)
    assert torch.equal(first, wanted[0]) and torch.equal(last, wanted[1])
    normed = encoder.model.norm(last.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(normed, encoder(images).patches)
    with pytest.raises(ValueError, match="ascend"):
        encoder.intermediates(images, [1, 0])
    with pytest.raises(ValueError, match="divide by 255"):
        encoder.intermediates(images * 255, [0])


@torch.no_grad()
def test_saved_and_loaded_bit_for_bit(clone, tmp_path):
    for entry in ("dino?pretrained=false", "timm_model?pretrained=false"):
        encoder = load_encoder(f"torchhub/{clone}:{entry}")
        saved = load_encoder(f"run/{save_encoder(encoder, tmp_path / 'saved')}")
        assert torch.equal(saved(pictures()).patches, encoder(pictures()).patches)


# ---- weights: loaded by us, strictly ----

EUPE = """
import torch

WIDTH = 8


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.patch_embed = torch.nn.Conv2d(3, WIDTH, 16, 16)

    def forward_features(self, images):
        tokens = self.patch_embed(images).flatten(2).transpose(1, 2)
        return {"x_norm_clstoken": tokens.mean(1), "x_norm_patchtokens": tokens}


def eupe_vitt16(*, pretrained=False, weights="OFFICIAL", **kwargs):
    model = Model()
    if pretrained:
        print("loading", weights)
        raise OSError("HTTP 403")
    return model
"""


@torch.no_grad()
def test_weights_never_stay_random_in_silence(tmp_path):
    """EUPE D.5: the official ViT-T entry point takes weights=FILE and returns random ones, unless told pretrained=True;
    what it does load, it loads with strict=False."""
    folder = hubconf(tmp_path / "eupe", EUPE)
    state = {"patch_embed.weight": torch.randn(8, 3, 16, 16), "patch_embed.bias": torch.randn(8)}
    torch.save(state, tmp_path / "vitt.pt")
    encoder = load_encoder(f"torchhub/{folder}:eupe_vitt16", weights=tmp_path / "vitt.pt")
    assert encoder.model.state_dict().keys() == state.keys()
    assert all(torch.equal(encoder.model.state_dict()[key], value) for key, value in state.items())
    with pytest.raises(OSError, match="403"):  # without a word about weights the official ones are asked for
        load_encoder(f"torchhub/{folder}:eupe_vitt16")

    torch.save({"renamed": state["patch_embed.weight"], "patch_embed.bias": torch.zeros(7)}, tmp_path / "wrong.pt")
    with pytest.raises(
        ValueError, match=r"missing patch_embed\.weight; unexpected renamed; patch_embed\.bias is \(7,\)"
    ):
        load_encoder(f"torchhub/{folder}:eupe_vitt16", weights=tmp_path / "wrong.pt")
    torch.save(state | {"projectors.clip.weight": torch.zeros(2)}, tmp_path / "official.pt")
    with pytest.raises(ValueError, match=r"unexpected projectors\.clip\.weight.*loaded as eupe/NAME"):
        load_encoder(f"torchhub/{folder}:eupe_vitt16", weights=tmp_path / "official.pt")
    with pytest.raises(FileNotFoundError, match="no weight file"):
        load_encoder(f"torchhub/{folder}:eupe_vitt16", weights=tmp_path / "none.pt")


def test_a_second_file_of_the_same_name_is_not_the_first_one(tmp_path):
    """EUPE D.5: local weights went through a cache keyed by file name."""
    folder = hubconf(tmp_path / "eupe", EUPE)
    for number in (1.0, 2.0):
        (tmp_path / str(number)).mkdir()
        file = tmp_path / str(number) / "weights.pt"
        torch.save(
            {"patch_embed.weight": torch.zeros(8, 3, 16, 16), "patch_embed.bias": torch.full((8,), number)}, file
        )
        encoder = load_encoder(f"torchhub/{folder}:eupe_vitt16", weights=file)
        assert encoder.model.patch_embed.bias.unique().item() == number


# ---- what comes back ----

OTHERS = """
import torch

from eyespot import Encoder, Features


class Eyes(Encoder):
    def __init__(self):
        super().__init__()
        self.summary_dim = self.patch_dim = 3
        self.stride, self.default_size, self.license = 16, (32, 32), "mit"

    def _encode(self, images):
        patches = torch.nn.functional.avg_pool2d(images, 16)
        return Features(patches.mean((2, 3)), patches)


class Gives(torch.nn.Module):
    def __init__(self, what):
        super().__init__()
        self.what = what

    def forward(self, images):
        batch = len(images)
        return {
            "one": torch.zeros(batch, 1000),
            "three": (torch.zeros(batch, 4), torch.zeros(batch, 4, 2, 2), torch.zeros(batch)),
            "adaptors": {"backbone": (torch.zeros(batch, 4), torch.zeros(batch, 4, 4)), "clip": None},
            "odd": (torch.zeros(batch, 4), torch.zeros(batch, 7, 4)),
        }[self.what]


def eyes():
    return Eyes()


def gives(what):
    return Gives(what)


def pair():
    return Gives("one"), "a transform"
"""


def test_an_encoder_is_taken_as_it_is(tmp_path):
    folder = hubconf(tmp_path / "others", OTHERS)
    encoder = load_encoder(f"torchhub/{folder}:eyes")
    assert type(encoder).__name__ == "Eyes"
    assert (encoder.name, encoder.license, encoder.training) == (f"torchhub/{folder}:eyes", "mit", False)
    assert load_encoder(f"torchhub/{folder}:eyes?license=isc").license == "isc"
    with pytest.raises(ValueError, match="states mean, std and size itself"):
        load_encoder(f"torchhub/{folder}:eyes?mean=0,0,0&std=1,1,1")


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("gives?what=one", "the model returned a Tensor; understood are"),
        ("gives?what=three", "the model returned a tuple of Tensor, Tensor, Tensor"),
        ("gives?what=adaptors", "the model returned a dict with backbone, clip"),
        ("pair", "the entry point returned a tuple of Gives, str"),
    ],
)
def test_anything_else_is_refused_with_what_it_was(tmp_path, entry, says):
    folder = hubconf(tmp_path / "others", OTHERS)
    with pytest.raises(ValueError, match=says) as refusal:
        load_encoder(f"torchhub/{folder}:{entry}")
    assert "python/file.py:factory" in str(refusal.value)


def test_patches_that_are_no_grid_are_refused(tmp_path):
    folder = hubconf(tmp_path / "others", OTHERS)
    with pytest.raises(ValueError, match=r"patches of shape \(1, 7, 4\) make no even grid of a 224x224 picture"):
        load_encoder(f"torchhub/{folder}:gives?what=odd")


# ---- finding the repository ----


def test_a_relative_folder(clone, monkeypatch):
    monkeypatch.chdir(clone.parent)
    assert load_encoder("torchhub/clone:dino?pretrained=false").summary_dim == 24


def test_what_is_no_repository_or_entry_point(clone, tmp_path):
    for target in ("dino", f"{clone}", ":dino", f"{clone}:"):
        with pytest.raises((ValueError, FileNotFoundError), match="write torchhub/OWNER/NAME:ENTRY"):
            load_encoder(f"torchhub/{target}")
    with pytest.raises(ValueError, match="no such entry point; did you mean dino"):
        load_encoder(f"torchhub/{clone}:dinos")
    with pytest.raises(ValueError, match="did you mean timm_model"):
        load_encoder(f"torchhub/{clone}:timm_modle")
    with pytest.raises(FileNotFoundError, match=r"no hubconf\.py"):
        load_encoder(f"torchhub/{tmp_path}:dino")
    for nowhere in (tmp_path / "nowhere", "./nowhere", "nowhere"):
        with pytest.raises(FileNotFoundError, match=r"no folder .*OWNER/NAME"):
            load_encoder(f"torchhub/{nowhere}:dino")


def test_two_clones_with_one_package_name_are_not_mixed_up(tmp_path):
    for number in (1, 2):
        folder = hubconf(tmp_path / str(number), "from eyespot_test_package.models import model\n")
        (folder / "eyespot_test_package").mkdir()
        (folder / "eyespot_test_package" / "__init__.py").touch()
        (folder / "eyespot_test_package" / "models.py").write_text(
            EUPE.replace("WIDTH = 8", f"WIDTH = {number}") + "\n\ndef model():\n    return Model()\n"
        )
    assert load_encoder(f"torchhub/{tmp_path / '1'}:model").summary_dim == 1
    with pytest.raises(ValueError, match=r"'eyespot_test_package' was imported from .*in another process"):
        load_encoder(f"torchhub/{tmp_path / '2'}:model")


@pytest.fixture
def github(tmp_path, monkeypatch):
    """A torch.hub cache without network, and what `torch.hub.load` was asked for."""

    def offline(*args, **kwargs):
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "urlopen", offline)
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    return tmp_path / "hub"


def test_offline_the_clone_to_bring_is_named(github):
    for repo in ("someone/models", "someone/models:v2"):
        with pytest.raises(
            RuntimeError, match=r"clone github\.com/someone/models.*torchhub//path/to/clone:dino.*weights"
        ):
            load_encoder(f"torchhub/{repo}:dino?trust=true")


def test_weights_that_a_clone_cannot_fetch_are_asked_for(tmp_path):
    text = "def model(pretrained=True):\n    from urllib.error import URLError\n    raise URLError('no network')\n"
    folder = hubconf(tmp_path / "clone", text)
    with pytest.raises(RuntimeError, match=r"could not be fetched .*Offline\? Then bring the weight file") as error:
        load_encoder(f"torchhub/{folder}:model")
    assert "clone github" not in str(error.value)


def test_code_from_github_runs_only_if_trusted(github, monkeypatch):
    def nobody_there(prompt):
        raise EOFError

    monkeypatch.setattr(builtins, "input", nobody_there)
    with pytest.raises(PermissionError, match="runs code of that repository; if you trust it, add trust=true"):
        load_encoder("torchhub/someone/models:main:dino")
    monkeypatch.setattr(builtins, "input", lambda prompt: "n")
    with pytest.raises(PermissionError, match="trust=true"):
        load_encoder("torchhub/someone/models:main:dino")


def test_a_cached_repository_needs_no_network(github):
    write_clone(github / "someone_models_main")
    encoder = load_encoder("torchhub/someone/models:main:dino?trust=true&pretrained=false")
    assert encoder.name == "torchhub/someone/models:main:dino?trust=true&pretrained=false"
    again = load_encoder("torchhub/someone/models:dino?pretrained=false")  # torch.hub looks for main by itself
    assert again.summary_dim == encoder.summary_dim == 24
