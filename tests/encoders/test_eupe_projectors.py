"""`projectors.*` of official EUPE files: adapter heads where shapes and words tell, otherwise kept as they are."""

import shutil

import pytest
import torch
from torch.nn import functional
from zoo_eupe import official_state, projector_state

from eyespot.distill.features.chain import AdapterChain
from eyespot.encoders import load_encoder
from eyespot.encoders.sources.eupe import write_eupe_checkpoint


@pytest.fixture(autouse=True)
def no_large_files_stay(tmp_path):
    yield
    shutil.rmtree(tmp_path)


def assert_same(one, other):
    assert list(one) == list(other)
    assert all(torch.equal(one[name], other[name]) for name in one)


@torch.no_grad()
@pytest.mark.parametrize(("name", "width"), [("vitt16", 192), ("convnext_tiny", 768)])
def test_projectors_become_adapter_heads(tmp_path, name, width):
    state, projectors = official_state(name), projector_state(width)
    torch.save(state | projectors, tmp_path / "official.pt")
    encoder = load_encoder(f"eupe/{name}", weights=tmp_path / "official.pt")
    heads = {name for name in encoder.adapters if name.startswith("heads.")}
    layers = ("0.weight", "1.weight", "1.bias", "3.weight")
    assert heads == {f"heads.dinov3radio.{part}.{layer}" for part in ("summary", "patch") for layer in layers}

    features = encoder(torch.rand(1, 3, 64, 96))
    mapped = AdapterChain(encoder.adapters, ("dinov3radio",))(features)
    summary, patches = (
        section_4_1(projectors, f"projectors.heads.dinov3radio_{part}.mlp", values)
        for part, values in (("cls_token", features.summary), ("patch_tokens", features.tokens))
    )
    torch.testing.assert_close(mapped.tokens, patches, rtol=1e-5, atol=1e-5)
    assert torch.cosine_similarity(mapped.summary, summary) > 1 - 1e-6  # of summaries the direction is what counts


def section_4_1(state, path, values):
    """Linear without bias, LayerNorm, GELU, linear without bias (EUPE A.2)."""
    hidden = values @ state[f"{path}.0.weight"].T
    hidden = functional.layer_norm(hidden, hidden.shape[-1:], state[f"{path}.1.weight"], state[f"{path}.1.bias"])
    return functional.gelu(hidden) @ state[f"{path}.3.weight"].T


def shuffled_head(path, names, width=192, hidden=10, out=7):
    """A head whose tensors have other names, in another order."""
    shapes = {"first": (hidden, width), "weight": (hidden,), "bias": (hidden,), "last": (out, hidden)}
    return {f"{path}.{name}": torch.rand(shapes[kind]) for kind, name in names.items()}


FC = {"last": "fc2.weight", "weight": "ln.weight", "bias": "ln.bias", "first": "fc1.weight"}
NUMBERS = {"bias": "layers.1.bias", "first": "layers.0.weight", "last": "layers.3.weight", "weight": "layers.1.weight"}
RECOGNISED = {
    "part below teacher": ("projectors.heads.proxy.{}", "class", "patch", FC),
    "part before teacher": ("projectors.{}.heads.proxy", "cls", "dense", NUMBERS),
    "one level": ("projectors.{}", "summary", "features", FC),
    "a word with suffix": ("projectors.heads.proxy-{}", "clstoken-head", "patchtokens-head", NUMBERS),
}
KEPT_AS_THEY_ARE = {
    "no word says which": shuffled_head("projectors.heads.a", FC) | shuffled_head("projectors.heads.b", FC),
    "words that contradict": shuffled_head("projectors.cls_patch", FC) | shuffled_head("projectors.patch", FC),
    "only one of the two": shuffled_head("projectors.heads.t.cls", FC),
    "two of a kind": shuffled_head("projectors.t.cls", FC) | shuffled_head("projectors.t.summary", NUMBERS),
    "another input width": shuffled_head("projectors.cls", FC, 191) | shuffled_head("projectors.patch", FC),
    "linear layers with biases": shuffled_head("projectors.t.cls", FC)
    | shuffled_head("projectors.t.patch", FC)
    | {"projectors.t.cls.fc1.bias": torch.rand(10), "projectors.t.patch.fc1.bias": torch.rand(10)},
    "something else": {"projectors.heads.dinov3radio": torch.rand(3), "projectors.step": torch.tensor(5)},
}


def through_a_file(projectors, tmp_path):
    """(adapters of an official file with these projectors, the file written back)."""
    torch.save(official_state("vitt16") | projectors, tmp_path / "official.pt")
    encoder = load_encoder("eupe/vitt16", weights=tmp_path / "official.pt")
    back = torch.load(write_eupe_checkpoint(encoder, tmp_path / "back.pt"), weights_only=True)
    assert_same(back, official_state("vitt16") | projectors)
    return {name: value for name, value in encoder.adapters.items() if not name.startswith("official.")}


@pytest.mark.parametrize("case", RECOGNISED)
def test_heads_are_recognised_by_shapes_and_words(tmp_path, case):
    path, summary, patch, names = RECOGNISED[case]
    projectors = {}
    for word in (patch, summary):
        projectors |= shuffled_head(path.format(word), names)
    adapters = through_a_file(projectors, tmp_path)
    assert len(adapters) == 8
    for part, word in (("summary", summary), ("patch", patch)):
        for kind, ours in (("first", "0.weight"), ("weight", "1.weight"), ("bias", "1.bias"), ("last", "3.weight")):
            theirs = projectors[f"{path.format(word)}.{names[kind]}"]
            assert torch.equal(adapters[f"heads.proxy.{part}.{ours}"], theirs)


@pytest.mark.parametrize("case", KEPT_AS_THEY_ARE)
def test_what_is_not_recognised_keeps_its_name(tmp_path, case):
    projectors = KEPT_AS_THEY_ARE[case]
    assert_same(through_a_file(projectors, tmp_path), projectors)
