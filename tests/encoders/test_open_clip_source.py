import json
import sys
import warnings

import pytest
import torch
import torch.nn.functional as F
import zoo_open_clip
from safetensors.torch import save_file
from zoo_open_clip import STATISTICS, TOWERS, write_config

from eyespot.encoders import load_encoder, save_encoder
from eyespot.encoders.sources.open_clip import _resample
from eyespot.encoders.sources.open_clip_models import find_open_clip_model
from eyespot.randomness import torch_generator

open_clip = pytest.importorskip("open_clip")

FAST = [label for label in TOWERS if label not in ("pe core", "mobileclip")]


def write_model(folder, label, **options):
    """A folder with weights, and open_clip's own model of it."""
    zoo_open_clip._entry(label)(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.create_model(f"local-dir:{folder}", load_weights=False, **options).eval()
    generator = torch_generator("weights", label)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.02 * torch.randn(weight.shape, generator=generator)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return model


def pictures(encoder):
    return torch.rand(2, 3, *encoder.default_size, generator=torch_generator("pictures"))


def normalised(images):
    mean, std = (torch.tensor(STATISTICS[key]).view(3, 1, 1) for key in ("mean", "std"))
    return (images - mean) / std


def patches_by_hand(tower, images):
    if hasattr(tower, "trunk"):
        maps = tower.trunk.forward_features(images)
        if maps.ndim == 3:
            side = tower.image_size[0] // 16
            return maps[:, tower.trunk.num_prefix_tokens :].transpose(1, 2).unflatten(2, (side, side))
        return tower.trunk.head.norm(maps)
    if hasattr(tower, "attnpool"):
        return tower.layer4(tower.layer3(tower.layer2(tower.layer1(tower.stem(images)))))
    tokens = tower.transformer(tower._embeds(images))[:, 1:]
    tokens = tokens if tower.attn_pool is not None else tower.ln_post(tokens)
    return tokens.transpose(1, 2).unflatten(2, tower.grid_size)


@pytest.mark.parametrize("label", FAST)
@torch.no_grad()
def test_summary_is_what_encode_image_gives_and_patches_the_normed_map(tmp_path, label):
    model = write_model(tmp_path, label)
    encoder = load_encoder(f"open_clip/local-dir:{tmp_path}")
    images = pictures(encoder)
    features = encoder(images)
    torch.testing.assert_close(features.summary, model.encode_image(normalised(images), normalize=False))
    torch.testing.assert_close(features.patches, patches_by_hand(model.visual, normalised(images)))
    assert "text" not in str(dict(encoder.named_parameters()).keys())
    width = {"siglip": 96}.get(label, 24)
    assert encoder.summary_dim == features.summary.shape[1] == width


@pytest.mark.parametrize("label", [label for label in FAST if label != "resnet"])
@torch.no_grad()
def test_the_pooled_vector_is_what_the_projection_takes(tmp_path, label):
    model = write_model(tmp_path, label)
    encoder = load_encoder(f"open_clip/local-dir:{tmp_path}?summary=pooled")
    images = pictures(encoder)
    pooled = encoder(images).summary
    assert encoder.summary_dim == pooled.shape[1]
    tower = model.visual
    joint = tower.head(tower.trunk.get_classifier()(pooled)) if hasattr(tower, "trunk") else pooled @ tower.proj
    torch.testing.assert_close(joint, model.encode_image(normalised(images), normalize=False))


def test_what_a_summary_can_be(tmp_path):
    write_model(tmp_path, "resnet")
    with pytest.raises(ValueError, match="attention pool of a ResNet projects by itself"):
        load_encoder(f"open_clip/local-dir:{tmp_path}?summary=pooled")
    with pytest.raises(ValueError, match="joint or pooled, not 'class'"):
        load_encoder(f"open_clip/local-dir:{tmp_path}?summary=class")


@pytest.mark.parametrize("label", ["vit, norm after pooling", "siglip"])
@torch.no_grad()
def test_another_size_resamples_as_open_clip_does(tmp_path, label):
    write_model(tmp_path, label)
    model = open_clip.create_model(f"local-dir:{tmp_path}", force_image_size=(96, 48)).eval()
    encoder = load_encoder(f"open_clip/local-dir:{tmp_path}?image_size=96,48")
    assert encoder.default_size == (96, 48)
    images = pictures(encoder)
    features = encoder(images)
    torch.testing.assert_close(features.summary, model.encode_image(normalised(images), normalize=False))
    assert features.grid == (6, 3)
    assert load_encoder(f"open_clip/local-dir:{tmp_path}?image_size=32").default_size == (32, 32)


@torch.no_grad()
def test_position_embeddings_of_a_grid_that_is_no_square_keep_rows_and_columns_apart(tmp_path):
    tower = load_encoder(zoo_open_clip.ENTRIES["open_clip vit"](tmp_path)).tower  # a grid of 4x6
    tower.positional_embedding[1:] = torch.arange(6.0).repeat(4)[:, None]
    _resample(tower, (128, 48), "vit")
    token, places = tower.positional_embedding.split([1, 8 * 3])
    columns = places.unflatten(0, (8, 3))
    torch.testing.assert_close(columns, columns[:1].expand(8, -1, -1))
    assert (columns[0].diff(dim=0) > 0).all() and not torch.equal(token[0], columns[0, 0])


def test_a_resnet_takes_one_size_and_a_convnet_any(tmp_path):
    write_model(tmp_path / "resnet", "resnet")
    with pytest.raises(ValueError, match="takes 64 pixels only"):
        load_encoder(f"open_clip/local-dir:{tmp_path / 'resnet'}?image_size=96")
    write_model(tmp_path / "convnext", "convnext")
    encoder = load_encoder(f"open_clip/local-dir:{tmp_path / 'convnext'}?image_size=96")
    assert (encoder.native_size, encoder.default_size) == (None, (96, 96))


@torch.no_grad()
def test_intermediates_are_the_blocks_outputs(tmp_path):
    model = write_model(tmp_path, "vit")
    encoder = load_encoder(f"open_clip/local-dir:{tmp_path}")
    images = pictures(encoder)
    first, second = encoder.intermediates(images, [0, 1])
    block = model.visual.transformer.resblocks[0](model.visual._embeds(normalised(images)))
    torch.testing.assert_close(first, block[:, 1:].transpose(1, 2).unflatten(2, (4, 6)))
    last = model.visual.ln_post(second.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(last, encoder(images).patches)
    with pytest.raises(ValueError, match="ascend"):
        encoder.intermediates(images, [1, 0])


@pytest.mark.parametrize("label", ["vit", "convnext"])
@torch.no_grad()
def test_weights_of_a_whole_model_or_of_its_image_tower(tmp_path, label):
    model = write_model(tmp_path, label)
    released = load_encoder(f"open_clip/local-dir:{tmp_path}")
    (tmp_path / "open_clip_model.safetensors").rename(tmp_path / "whole.safetensors")
    torch.save(model.visual.state_dict(), tmp_path / "tower.pt")
    images = pictures(released)
    for file in ("whole.safetensors", "tower.pt"):
        encoder = load_encoder(f"open_clip/local-dir:{tmp_path}", weights=tmp_path / file)
        assert torch.equal(encoder(images).summary, released(images).summary)
        assert torch.equal(encoder(images).patches, released(images).patches)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda state: state | {"visual.proj2": state.pop("visual.proj")}, "missing proj; unexpected proj2"),
        (lambda state: state | {"visual.extra": torch.zeros(2)}, "unexpected extra"),
        (lambda state: {key: value for key, value in state.items() if key != "visual.proj"}, "missing proj"),
        (lambda state: state | {"visual.proj": torch.zeros(32, 7)}, r"proj is \(32, 7\), should be \(32, 24\)"),
        (lambda state: {key: value for key, value in state.items() if "visual" not in key}, "missing"),
    ],
    ids=["renamed", "extra", "missing", "misshapen", "text only"],
)
def test_weights_that_do_not_fit_are_refused_by_name(tmp_path, spoil, says):
    model = write_model(tmp_path, "vit")
    file = tmp_path / "spoilt.pt"
    torch.save(spoil(dict(model.state_dict())), file)
    with pytest.raises(ValueError, match=says):
        load_encoder(f"open_clip/local-dir:{tmp_path}", weights=file)


def test_a_folder_without_weights_or_with_wrong_ones(tmp_path):
    model = write_model(tmp_path, "vit")
    state = dict(model.state_dict())
    state.pop("visual.proj")
    save_file(state, tmp_path / "open_clip_model.safetensors")
    with pytest.raises(ValueError, match=r"do not fit[\s\S]*visual\.proj"):
        load_encoder(f"open_clip/local-dir:{tmp_path}")
    (tmp_path / "open_clip_model.safetensors").unlink()
    with pytest.raises(RuntimeError, match=r"Put open_clip_model\.safetensors into the folder"):
        load_encoder(f"open_clip/local-dir:{tmp_path}")
    with pytest.raises(FileNotFoundError, match=r"no open_clip_config\.json"):
        load_encoder(f"open_clip/local-dir:{tmp_path / 'nowhere'}")


def test_the_model_card_states_the_licence(tmp_path):
    write_model(tmp_path, "vit")
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    spec = f"open_clip/local-dir:{tmp_path}"
    assert load_encoder(spec).license == "mit"
    assert load_encoder(f"{spec}?license=apache-2.0").license == "apache-2.0"
    assert load_encoder(f"{spec}?pretrained=false").license is None
    assert load_encoder(spec, weights=tmp_path / "open_clip_model.safetensors").license is None


def test_the_model_card_beside_a_tags_weights_states_the_licence(tiny, tmp_path, monkeypatch):
    (tmp_path / "card").mkdir()
    (tmp_path / "card" / "README.md").write_text("---\nlicense: other\nlicense_name: apple-amlr\n---\n")
    asked = []

    def download(repo_id, filename, **kwargs):
        asked.append((repo_id, filename))
        return str(tmp_path / "card" / filename)

    monkeypatch.setattr(open_clip.pretrained, "hf_hub_download", download)
    open_clip.pretrained._PRETRAINED["tiny-clip"]["plain"]["hf_hub"] = "someone/tiny/weights.bin"
    assert load_encoder("open_clip/tiny-clip.plain").license == "apple-amlr"
    assert asked == [("someone/tiny", "README.md")]
    assert load_encoder("open_clip/tiny-clip.quick").license is None


@pytest.mark.parametrize("label", ["vit", "convnext", "pe core", "resnet"])
def test_names_excluded_from_weight_decay_are_parameters(tmp_path, label):
    encoder = load_encoder(zoo_open_clip.ENTRIES[f"open_clip {label}"](tmp_path))
    excluded = encoder.no_weight_decay() & dict(encoder.named_parameters()).keys()
    assert bool(excluded) == (label in ("vit", "pe core"))


@torch.no_grad()
def test_saved_and_loaded_bit_for_bit(tmp_path):
    encoder = load_encoder(zoo_open_clip.ENTRIES["open_clip convnext"](tmp_path / "model"))
    images = pictures(encoder)
    saved = load_encoder(f"run/{save_encoder(encoder, tmp_path / 'saved')}")
    assert torch.equal(saved(images).summary, encoder(images).summary)
    assert torch.equal(saved(images).patches, encoder(images).patches)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A built-in model "tiny-clip" with the tags plain, quick (trained with QuickGELU), grey (other statistics)."""
    from open_clip import factory, pretrained

    config = {"embed_dim": 24, "vision_cfg": TOWERS["vit"], "text_cfg": zoo_open_clip.TEXT}
    monkeypatch.setitem(factory._MODEL_CONFIGS, "tiny-clip", config)
    model = open_clip.create_model("tiny-clip").eval()
    save_file(model.state_dict(), tmp_path / "tiny.safetensors")
    tag = {"file": str(tmp_path / "tiny.safetensors"), **STATISTICS}
    tags = {"plain": tag, "quick": tag | {"quick_gelu": True}, "grey": tag | {"mean": (0.5, 0.5, 0.5)}}
    monkeypatch.setitem(pretrained._PRETRAINED, "tiny-clip", tags)
    return tmp_path / "tiny.safetensors"


@torch.no_grad()
def test_a_tag_brings_weights_activation_and_statistics(tiny):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain, quick, grey = (load_encoder(f"open_clip/tiny-clip.{tag}") for tag in ("plain", "quick", "grey"))
    images = pictures(plain)
    model = open_clip.create_model("tiny-clip", pretrained=str(tiny)).eval()
    quick_model = open_clip.create_model("tiny-clip", pretrained=str(tiny), force_quick_gelu=True).eval()
    torch.testing.assert_close(plain(images).summary, model.encode_image(normalised(images)))
    torch.testing.assert_close(quick(images).summary, quick_model.encode_image(normalised(images)))
    assert not torch.allclose(plain(images).summary, quick(images).summary, atol=1e-4)
    assert grey.mean.flatten().tolist() == [0.5, 0.5, 0.5]


@torch.no_grad()
def test_a_tag_beside_a_weight_file_states_the_same(tiny):
    for tag in ("plain", "quick", "grey"):
        released = load_encoder(f"open_clip/tiny-clip.{tag}")
        brought = load_encoder(f"open_clip/tiny-clip.{tag}", weights=tiny)
        images = pictures(released)
        assert torch.equal(released(images).summary, brought(images).summary)


def test_statistics_that_nobody_stated_are_asked_for(tiny):
    with pytest.raises(ValueError, match=r"normalised in 2 ways.*tiny-clip\.TAG\?weights=FILE, or give mean="):
        load_encoder("open_clip/tiny-clip", weights=tiny)
    encoder = load_encoder("open_clip/tiny-clip?mean=0.1,0.2,0.3&std=0.4,0.5,0.6", weights=tiny)
    torch.testing.assert_close(encoder.mean.flatten(), torch.tensor([0.1, 0.2, 0.3]))
    torch.testing.assert_close(encoder.std.flatten(), torch.tensor([0.4, 0.5, 0.6]))
    assert load_encoder("open_clip/tiny-clip?pretrained=false").license is None


def test_the_activation_of_every_released_weight_is_known():
    for name, tag in open_clip.list_pretrained():
        model = find_open_clip_model(f"{name}.{tag}")
        stated = open_clip.get_pretrained_cfg(name, tag).get("quick_gelu", False)
        assert model.quick_gelu == (stated or model.config.get("quick_gelu", False)), (name, tag)
    assert find_open_clip_model("ViT-B-32.openai").quick_gelu
    assert not find_open_clip_model("ViT-B-32.laion2b_s34b_b79k").quick_gelu
    assert not find_open_clip_model("ViT-B-32").quick_gelu


def test_unknown_names_and_tags_are_answered_with_those_there_are(tiny):
    with pytest.raises(ValueError, match=r"no model 'ViT-B-33'; did you mean .*ViT-B-32"):
        load_encoder("open_clip/ViT-B-33.openai")
    with pytest.raises(ValueError, match="no weights 'plane'; there are plain, quick, grey"):
        load_encoder("open_clip/tiny-clip.plane")
    with pytest.raises(ValueError, match=r"which weights\? Write open_clip/tiny-clip\.TAG.*Tags: plain, quick, grey"):
        load_encoder("open_clip/tiny-clip")
    with pytest.raises(ValueError, match="unexpected keyword argument 'depth'"):
        load_encoder("open_clip/tiny-clip?depth=3")


def test_offline_the_file_to_bring_is_named(monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(open_clip.factory, "download_pretrained", offline)
    monkeypatch.setattr(open_clip.pretrained, "hf_hub_download", offline)
    wanted = r"open_clip_model\.safetensors of laion/CLIP-ViT-B-32-laion2B-s34B-b79K.*weights=FILE"
    with pytest.raises(RuntimeError, match=wanted):
        load_encoder("open_clip/ViT-B-32.laion2b_s34b_b79k")
    with pytest.raises(RuntimeError, match=r"Bring that repository's folder.*local-dir:FOLDER"):
        load_encoder("open_clip/hf-hub:someone/some-clip")


def test_a_missing_open_clip_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(ImportError, match=r"pip install 'eyespot\[open_clip\]'"):
        load_encoder("open_clip/ViT-B-32.openai")


def test_a_pool_in_open_clips_own_head_is_refused(tmp_path):
    vision = {"image_size": 64, "timm_model_name": "resnet10t", "timm_pool": "rot_attn", "timm_proj": ""}
    write_config(tmp_path, vision, custom_text=True)
    with pytest.raises(ValueError, match="one vector per picture"):
        load_encoder(f"open_clip/local-dir:{tmp_path}?pretrained=false")


def test_a_configuration_that_is_none(tmp_path):
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"embed_dim": 8}))
    with pytest.raises(ValueError, match="no model_cfg"):
        load_encoder(f"open_clip/local-dir:{tmp_path}")


GIANTS = {
    "PE-Core-bigG-14-448": (1280, 1536, 14, (448, 448), (32, 32), 1.882e9),
    "ViT-gopt-16-SigLIP2-384": (1536, 1536, 16, (384, 384), (24, 24), 1.163e9),
    "ViT-bigG-14": (1280, 1664, 14, (224, 224), (16, 16), 1.845e9),
    "ViT-SO400M-14-SigLIP-384": (1152, 1152, 14, (384, 384), (27, 27), 0.428e9),
}


@pytest.mark.parametrize("name", GIANTS)
def test_giants_on_the_meta_device(name):
    summary_dim, patch_dim, stride, size, grid, parameters = GIANTS[name]
    with torch.device("meta"):
        encoder = load_encoder(f"open_clip/{name}?pretrained=false")
        features = encoder(torch.zeros(1, 3, *size))
    assert (encoder.summary_dim, encoder.patch_dim, encoder.native_size) == (summary_dim, patch_dim, size)
    assert encoder.stride == stride or size[0] % stride  # 384 pixels are 27 patches of 14, and a rest
    assert features.summary.shape == (1, summary_dim) and features.patches.shape == (1, patch_dim, *grid)
    assert sum(weight.numel() for weight in encoder.parameters()) == pytest.approx(parameters, rel=0.01)


@pytest.mark.zoo
def test_every_model_that_open_clip_has_on_the_meta_device():
    for name in open_clip.list_models():
        with torch.device("meta"), torch.no_grad():
            encoder = load_encoder(f"open_clip/{name}?pretrained=false")
            features = encoder(torch.zeros(1, 3, *encoder.default_size))
        assert encoder.summary_dim == features.summary.shape[1] == open_clip.get_model_config(name)["embed_dim"], name
        assert encoder.patch_dim == features.patches.shape[1], name


def test_summaries_of_an_image_text_model_are_compared_with_its_texts(tmp_path):
    """The point of the joint embedding: the cosine is open_clip's own logit, but for the scale."""
    model = write_model(tmp_path, "vit")
    encoder = load_encoder(f"open_clip/local-dir:{tmp_path}")
    images = pictures(encoder)
    tokens = open_clip.get_tokenizer(f"local-dir:{tmp_path}")(["a cat", "a dog"])
    with torch.no_grad():
        logits, _ = model.get_logits(normalised(images), tokens)
        cosine = F.normalize(encoder(images).summary, dim=1) @ F.normalize(model.encode_text(tokens), dim=1).T
    torch.testing.assert_close(logits, model.logit_scale.exp() * cosine)
