import json

import pytest
import torch
import transformers
import zoo_hf
from safetensors.torch import load_file, save_file

from eyespot.encoders import load_encoder


def pooled_and_tokens(model, pixels, prefix, **arguments):
    out = model(pixels, **arguments)
    return out.pooler_output, out.last_hidden_state[:, prefix:]


def joint(model, pixels, prefix, norm):
    hidden = model.vision_model(pixels).last_hidden_state
    return model.get_image_features(pixels).pooler_output, norm(hidden[:, prefix:])


def first_and_tokens(model, pixels, prefix):
    hidden = model(pixels).last_hidden_state
    return hidden[:, 0], hidden[:, prefix:]


def mean_and_tokens(hidden):
    return hidden.mean(1), hidden


def as_tokens(maps):
    return maps.flatten(2).transpose(1, 2)


def normed_map(model, pixels):
    out = model(pixels)
    return out.pooler_output, model.layernorm(as_tokens(out.last_hidden_state))


def plain_map(model, pixels):
    out = model(pixels)
    return out.pooler_output.flatten(1), as_tokens(out.last_hidden_state)


def mean_of_map(maps):
    return maps.mean((2, 3)), as_tokens(maps)


def beit(model, pixels):
    out = model(pixels)
    return out.pooler_output, model.pooler.layernorm(out.last_hidden_state[:, 1:])


def masked_autoencoder(model, pixels):
    model.config.mask_ratio = 0.0
    order = torch.arange(16.0).expand(len(pixels), -1)  # the order of patches, which it shuffles otherwise
    hidden = model.vit(pixels, noise=order).last_hidden_state
    return hidden[:, 0], hidden[:, 1:]


def depth_backbone(model, pixels):
    hidden = model.backbone(pixels).feature_maps[-1]
    return hidden[:, 0], hidden[:, 1:]


def naflex(model, pixels):
    """With padding, as its processor makes it, against ours without."""
    batch, rows, columns = len(pixels), pixels.shape[2] // 16, pixels.shape[3] // 16
    blocks = pixels.unfold(2, 16, 16).unfold(3, 16, 16).permute(0, 2, 3, 4, 5, 1).reshape(batch, rows * columns, -1)
    padded = torch.cat([blocks, torch.zeros(batch, 9, blocks.shape[2])], dim=1)
    mask = torch.cat([torch.ones(batch, rows * columns), torch.zeros(batch, 9)], dim=1).int()
    out = model.get_image_features(padded, mask, torch.tensor([[rows, columns]] * batch))
    return out.pooler_output, out.last_hidden_state[:, : rows * columns]


# what each model of the zoo gives by its own forward, at its own size: (summary, patches as tokens)
ORACLES = {
    "dinov2": lambda m, x: pooled_and_tokens(m, x, 1),
    "dinov2 (classifier)": lambda m, x: pooled_and_tokens(m.dinov2, x, 1),
    "dinov2 with registers": lambda m, x: pooled_and_tokens(m, x, 5),
    "dinov3 vit": lambda m, x: pooled_and_tokens(m, x, 5),
    "dinov3 convnext": lambda m, x: pooled_and_tokens(m, x, 1),
    "clip": lambda m, x: joint(m, x, 1, m.vision_model.post_layernorm),
    "clip (image tower)": lambda m, x: (
        m(x).image_embeds,
        m.vision_model.post_layernorm(m(x).last_hidden_state[:, 1:]),
    ),
    "clip (no projection)": lambda m, x: (m(x).pooler_output, m.post_layernorm(m(x).last_hidden_state[:, 1:])),
    "metaclip 2": lambda m, x: joint(m, x, 1, m.vision_model.post_layernorm),
    "chinese clip": lambda m, x: joint(m, x, 1, m.vision_model.post_layernorm),
    "siglip": lambda m, x: joint(m, x, 0, torch.nn.Identity()),
    "siglip2 (naflex)": naflex,
    "aimv2": lambda m, x: mean_and_tokens(m(x).last_hidden_state),
    "aimv2 (with text)": lambda m, x: joint(m, x, 0, torch.nn.Identity()),
    "sam": lambda m, x: mean_of_map(m.get_image_embeddings(x)),
    "sam (image tower)": lambda m, x: mean_of_map(m(x).last_hidden_state),
    "sam 2": lambda m, x: mean_of_map(m.vision_encoder(x).fpn_hidden_states[-1]),
    "depth anything": depth_backbone,
    "i-jepa": lambda m, x: mean_and_tokens(m(x).last_hidden_state),
    "vit (classifier)": lambda m, x: first_and_tokens(m.vit, x, 1),
    "vit (with pooler)": lambda m, x: first_and_tokens(m, x, 1),
    "vit mae": masked_autoencoder,
    "vit msn": lambda m, x: first_and_tokens(m, x, 1),
    "deit": lambda m, x: first_and_tokens(m.deit, x, 2),
    "beit": lambda m, x: beit(m.beit, x),
    "beit (class token)": lambda m, x: first_and_tokens(m.beit, x, 1),
    "data2vec": lambda m, x: beit(m.data2vec_vision, x),
    "swin": lambda m, x: pooled_and_tokens(m.swin, x, 0),
    "swin v2": lambda m, x: pooled_and_tokens(m, x, 0),
    "convnext": lambda m, x: normed_map(m.convnext, x),
    "convnext v2": normed_map,
    "resnet": lambda m, x: plain_map(m.resnet, x),
    "regnet": plain_map,
    "radio": lambda m, x: (m(x).summary, m(x).features),
}
FIXED = {"aimv2 (with text)", "sam", "sam (image tower)", "sam 2", "swin", "swin v2"}


def pictures(size, count=2):
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)


@torch.no_grad()
@pytest.mark.parametrize("label", zoo_hf.MODELS)
def test_equal_to_transformers_own_forward(label, tmp_path):
    model = zoo_hf.write_model(label, tmp_path)
    encoder = load_encoder(f"hf/{tmp_path}")
    side = encoder.default_size[0]
    bytes_ = pictures(side)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    pixels = processor(list(bytes_), return_tensors="pt", do_resize=False, do_center_crop=False)["pixel_values"]
    summary, patches = ORACLES[label](model, pixels)
    features = encoder(bytes_ / 255)
    torch.testing.assert_close(features.summary, summary, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(features.tokens, patches, rtol=1e-4, atol=1e-5)
    assert (encoder.native_size is not None) == (label in FIXED)
    assert (encoder.name, encoder.license, encoder.training) == (f"hf/{tmp_path}", "apache-2.0", False)


@torch.no_grad()
@pytest.mark.parametrize(
    "label", ["dinov3 vit", "siglip", "siglip2 (naflex)", "i-jepa", "vit (with pooler)", "convnext"]
)
def test_other_sizes(label, tmp_path):
    model = zoo_hf.write_model(label, tmp_path)
    encoder = load_encoder(f"hf/{tmp_path}")
    images = torch.rand(2, 3, 64, 96)
    if label in ("siglip", "i-jepa", "vit (with pooler)"):
        call = model.get_image_features if label == "siglip" else model
        tokens = call(normalised(images), interpolate_pos_encoding=True).last_hidden_state
        tokens = tokens[:, 1:] if label.startswith("vit") else tokens
    else:
        tokens = ORACLES[label](model, normalised(images))[1]
    patches = encoder(images).patches
    assert patches.shape[2:] == (64 // encoder.stride, 96 // encoder.stride)
    torch.testing.assert_close(patches.flatten(2).transpose(1, 2), tokens, rtol=1e-4, atol=1e-5)


def normalised(images):
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (zoo_hf.MEAN, zoo_hf.STD))
    return (images - mean) / std


@torch.no_grad()
@pytest.mark.parametrize("label", ["dinov2", "dinov3 vit", "clip (no projection)", "beit", "convnext", "radio"])
def test_intermediates_end_where_the_final_norm_begins(label, tmp_path):
    zoo_hf.write_model(label, tmp_path)
    encoder = load_encoder(f"hf/{tmp_path}")
    images = torch.rand(2, 3, 64, 96)
    blocks = 4 if label == "convnext" else 2
    maps = encoder.intermediates(images, range(blocks))
    norms = {"dinov3 vit": "norm", "clip (no projection)": "post_layernorm", "beit": "pooler.layernorm"}
    norm = torch.nn.Identity() if label == "radio" else encoder.model.get_submodule(norms.get(label, "layernorm"))
    patches = encoder(images).patches
    torch.testing.assert_close(norm(maps[-1].permute(0, 2, 3, 1)).permute(0, 3, 1, 2), patches, rtol=1e-4, atol=1e-5)
    assert torch.equal(encoder.intermediates(images, [1])[0], maps[1])
    for taps in ([1, 0], [0, 0], [blocks], [-1]):
        with pytest.raises(ValueError, match="ascend within 0 to"):
            encoder.intermediates(images, taps)


@torch.no_grad()
def test_the_vector_before_the_projection(tmp_path):
    model = zoo_hf.write_model("clip", tmp_path)
    joint_space, pooled = load_encoder(f"hf/{tmp_path}"), load_encoder(f"hf/{tmp_path}?summary=pooled")
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(pooled(images).patches, joint_space(images).patches)
    torch.testing.assert_close(model.visual_projection(pooled(images).summary), joint_space(images).summary)
    assert (pooled.summary_dim, joint_space.summary_dim) == (32, 20)
    assert not any("projection" in name for name, _ in pooled.named_parameters())
    with pytest.raises(ValueError, match="summary=pooled"):
        load_encoder(f"hf/{tmp_path}?summary=mean")


@pytest.mark.parametrize("label", ["clip", "siglip", "aimv2 (with text)", "chinese clip", "depth anything", "sam"])
def test_only_the_image_tower_is_kept(label, tmp_path):
    whole = zoo_hf.write_model(label, tmp_path)
    encoder = load_encoder(f"hf/{tmp_path}")
    names = [name for name, _ in encoder.named_parameters()]
    assert not [name for name in names if "text" in name or "logit" in name or "mask_decoder" in name]
    assert len(names) < len(list(whole.parameters()))


def test_swin_keeps_to_one_size_because_others_would_change_it(tmp_path):
    zoo_hf.write_model("swin", tmp_path)
    encoder = load_encoder(f"hf/{tmp_path}")
    assert encoder.native_size == (128, 128)
    with pytest.raises(ValueError, match="128x128 pictures only"):
        encoder(torch.rand(1, 3, 64, 64))


def test_a_video_models_configuration(tmp_path):
    """The official SAM 2 repos name the video model."""
    zoo_hf.write_model("sam 2", tmp_path)
    change(tmp_path, model_type="sam2_video", architectures=["Sam2VideoModel"])
    assert load_encoder(f"hf/{tmp_path}").patch_dim == 16


# -- weights --


def change(folder, **entries):
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **entries}))


def rewrite(folder, edit):
    file = folder / "model.safetensors"
    state = load_file(file)
    edit(state)
    save_file(state, file, metadata={"format": "pt"})


@pytest.mark.parametrize("label", ["dinov2", "dinov3 vit", "clip", "sam 2", "depth anything", "vit (classifier)"])
def test_weights_that_do_not_fit_are_named(label, tmp_path):
    zoo_hf.write_model(label, tmp_path)
    kept = (tmp_path / "model.safetensors").read_bytes()
    inside = {"clip": "vision_model.", "sam 2": "vision_encoder.", "depth anything": "backbone."}.get(label, "")
    inside = "vit." if "vit (" in label else inside
    name = next(key for key in load_file(tmp_path / "model.safetensors") if key.startswith(inside))
    last = name.removeprefix(inside)

    def misfit(edit, *says):
        (tmp_path / "model.safetensors").write_bytes(kept)
        rewrite(tmp_path, edit)
        with pytest.raises(ValueError) as refusal:
            load_encoder(f"hf/{tmp_path}")
        assert all(text in str(refusal.value) for text in says), str(refusal.value)

    misfit(lambda state: state.pop(name), "missing", last.rpartition(".")[2])
    misfit(lambda state: state.update({f"{inside}extra.weight": torch.zeros(3)}), "unexpected", "extra.weight")
    misfit(lambda state: state.update({"extra.weight": torch.zeros(3)}), "unexpected extra.weight")
    misfit(lambda state: state.update({f"{name}ed": state.pop(name)}), "missing", "unexpected", f"{last}ed")
    misfit(lambda state: state.update({name: torch.zeros(7, 7)}), "is (7, 7), should be")


def test_damaged_and_absent_weights(tmp_path):
    zoo_hf.write_model("dinov2", tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ValueError, match="cannot be loaded as Dinov2Model"):
        load_encoder(f"hf/{tmp_path}")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"no model.safetensors.*weights=FILE.*pretrained=false"):
        load_encoder(f"hf/{tmp_path}")


@torch.no_grad()
def test_weights_of_a_file(tmp_path):
    zoo_hf.write_model("clip", tmp_path)
    images = torch.rand(1, 3, 64, 64)
    encoder = load_encoder(f"hf/{tmp_path}")
    file = tmp_path / "model.safetensors"
    other = file.rename(tmp_path.parent / "mine.safetensors")
    loaded = load_encoder(f"hf/{tmp_path}", weights=other)
    assert torch.equal(loaded(images).summary, encoder(images).summary)
    assert loaded.license is None and load_encoder(f"hf/{tmp_path}?license=mit", weights=other).license == "mit"
    torch.save({"vision_model.what": torch.zeros(1)}, tmp_path / "odd.pt")
    with pytest.raises(ValueError, match=r"odd.pt does not fit CLIPVisionModelWithProjection: missing .* and \d+ more"):
        load_encoder(f"hf/{tmp_path}", weights=tmp_path / "odd.pt")


@torch.no_grad()
def test_torch_files_and_half_precision(tmp_path):
    model = zoo_hf.write_model("dinov2", tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    torch.save({name: value.bfloat16() for name, value in state.items()}, tmp_path / "pytorch_model.bin")
    change(tmp_path, dtype="bfloat16")
    encoder = load_encoder(f"hf/{tmp_path}")
    assert {weight.dtype for weight in encoder.parameters()} == {torch.float32}
    mine, theirs = dict(encoder.model.named_parameters()), dict(model.named_parameters())
    assert all(torch.equal(mine[name], theirs[name].bfloat16().float()) for name in theirs)


def test_random_weights_carry_no_licence_and_need_no_file(tmp_path):
    zoo_hf.write_model("dinov2", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    encoder = load_encoder(f"hf/{tmp_path}?pretrained=false")
    assert encoder.license is None and not encoder.training
    with torch.device("meta"):
        assert load_encoder(f"hf/{tmp_path}?pretrained=false").patch_dim == 32


def test_a_student_of_transformers_learns(tmp_path):
    zoo_hf.write_model("dinov2", tmp_path)
    encoder = load_encoder(f"hf/{tmp_path}?pretrained=false")
    features = encoder(torch.rand(1, 3, 64, 64))
    (features.summary.pow(3).sum() + features.patches.pow(3).sum()).backward()
    idle = [name for name, weight in encoder.named_parameters() if weight.grad is None]
    assert idle == ["model.embeddings.mask_token"]


# -- models that are not in our table --


def test_code_of_the_repo_is_never_run(tmp_path):
    (tmp_path / "modeling.py").write_text("raise SystemExit('code of the repo has run')")
    entry = {"AutoConfig": "modeling.Config", "AutoModel": "modeling.Model"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "strange", "auto_map": entry}))
    with pytest.raises(ValueError, match=r"does not run.*python/file.py:factory"):
        load_encoder(f"hf/{tmp_path}")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "stranger"}))
    with pytest.raises(ValueError, match="knows no model type 'stranger'"):
        load_encoder(f"hf/{tmp_path}")


def write_unknown(folder, config, model_class):
    getattr(transformers, model_class)(config).save_pretrained(folder)
    zoo_hf.write_processor(folder)


def test_families_that_are_not_in_the_table_go_by_the_general_rule(tmp_path):
    sizes = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 2, 2]}
    config = transformers.PvtV2Config(image_size=64, **sizes, sr_ratios=[1, 1, 1, 1], mlp_ratios=[2, 2, 2, 2])
    write_unknown(tmp_path / "maps", config, "PvtV2Model")
    encoder = load_encoder(f"hf/{tmp_path / 'maps'}")
    assert (encoder.patch_dim, encoder.stride, encoder.native_size) == (16, 32, None)

    write_unknown(tmp_path / "tokens", transformers.PixioConfig(**zoo_hf._MLP, n_cls_tokens=2), "PixioModel")
    with pytest.raises(ValueError, match=r"shape \(1, 18, 32\).* is not a grid of patches.*prefix=K"):
        load_encoder(f"hf/{tmp_path / 'tokens'}")
    assert load_encoder(f"hf/{tmp_path / 'tokens'}?prefix=2").stride == 16


def test_models_that_give_no_grid_are_refused(tmp_path):
    text = transformers.BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    write_unknown(tmp_path / "text", text, "BertModel")
    with pytest.raises(ValueError, match="a bert model of transformers does not take pictures alone"):
        load_encoder(f"hf/{tmp_path / 'text'}")
    queries = transformers.YolosConfig(**{**zoo_hf._MLP, "image_size": [64, 64]}, num_detection_tokens=5)
    write_unknown(tmp_path / "queries", queries, "YolosModel")
    with pytest.raises(ValueError, match="is not a grid of patches"):
        load_encoder(f"hf/{tmp_path / 'queries'}")


def test_odd_folders_and_options(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        load_encoder(f"hf/{tmp_path}")
    (tmp_path / "open_clip_config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="open_clip/"):
        load_encoder(f"hf/{tmp_path}")
    for text, says in (("{", "damaged"), ("[]", "not the configuration"), ("{}", "neither a model of transformers")):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ValueError, match=says):
            load_encoder(f"hf/{tmp_path}")
    zoo_hf.write_model("dinov2", tmp_path)
    with pytest.raises(ValueError, match="frobnicate"):
        load_encoder(f"hf/{tmp_path}?frobnicate=3")
    with pytest.raises(ValueError, match="no revision 'main'"):
        load_encoder(f"hf/{tmp_path}?revision=main")
    with pytest.raises(FileNotFoundError, match="hf//path/to/folder"):
        load_encoder("hf//no/such/folder")
