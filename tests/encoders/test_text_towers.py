import json
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from zoo_open_clip import COCA, TOWERS, write_config

from eyespot.encoders.text.embeddings import TextEmbeddings, load_text_embeddings, read_names, save_text_embeddings
from eyespot.encoders.text.encoding import TEMPLATES, TextTower, class_embeddings, load_text_tower, read_templates

TEXTS = ["a photo of a cat.", "a dog", "a striped dog of a cat", "cat"]


# ---- open_clip ----


def write_open_clip(folder, **model):
    open_clip = pytest.importorskip("open_clip")
    write_config(folder, TOWERS["coca" if "multimodal_cfg" in model else "vit"], **model)
    built = open_clip.create_model(f"local-dir:{folder}", load_weights=False).eval()
    save_file(built.state_dict(), folder / "open_clip_model.safetensors")
    return built, open_clip.get_tokenizer(f"local-dir:{folder}")


@pytest.mark.parametrize("kind", [{}, {"custom_text": True}, {"quick_gelu": True}, COCA], ids=str)
@torch.no_grad()
def test_open_clip_texts_are_those_of_encode_text(tmp_path, kind):
    model, tokenizer = write_open_clip(tmp_path, **kind)
    tower = load_text_tower(f"open_clip/local-dir:{tmp_path}")
    wanted = model.encode_text(tokenizer(TEXTS), normalize=False)
    torch.testing.assert_close(tower.embed(TEXTS), wanted)
    assert isinstance(tower, TextTower)
    assert (tower.name, tower.width) == (f"open_clip/local-dir:{tmp_path}", 24)
    assert tower.embed([]).shape == (0, 24)
    assert not any(key.startswith("visual") for key in tower.model.state_dict())


def test_a_tower_computes_without_gradient_in_batches(tmp_path):
    write_open_clip(tmp_path)
    tower = load_text_tower(f"open_clip/local-dir:{tmp_path}")
    many = [f"a photo of {number} cats" for number in range(130)]
    embedded = tower.embed(many)
    assert embedded.dtype == torch.float32 and not embedded.requires_grad
    torch.testing.assert_close(embedded[[0, 64, 129]], tower.embed([many[0], many[64], many[129]]))
    assert not any(weight.requires_grad for weight in tower.parameters()) and not tower.training


@pytest.mark.parametrize("kind", [{}, {"custom_text": True}], ids=str)
def test_open_clip_text_weights_from_a_file_are_strict(tmp_path, kind):
    model, _ = write_open_clip(tmp_path, **kind)
    released = load_text_tower(f"open_clip/local-dir:{tmp_path}")
    file = tmp_path / "brought.pt"
    torch.save(model.state_dict(), file)
    brought = load_text_tower(f"open_clip/local-dir:{tmp_path}?weights={file}")
    assert brought.name == f"open_clip/local-dir:{tmp_path}?weights={file}"
    assert torch.equal(brought.embed(TEXTS), released.embed(TEXTS))
    state = model.state_dict()
    broken = next(key for key in state if key.endswith("ln_final.weight"))
    torch.save({("other" if key == broken else key): value for key, value in state.items()}, file)
    with pytest.raises(ValueError, match=f"missing {broken}; unexpected other"):
        load_text_tower(f"open_clip/local-dir:{tmp_path}", weights=str(file))


def test_open_clip_towers_that_are_not_there(tmp_path, monkeypatch):
    pytest.importorskip("open_clip")
    with pytest.raises(FileNotFoundError, match=r"no open_clip_config\.json"):
        load_text_tower(f"open_clip/local-dir:{tmp_path}")
    with pytest.raises(ValueError, match="did you mean"):
        load_text_tower("open_clip/ViT-B-33")
    with pytest.raises(ValueError, match="unexpected keyword argument 'depth'"):
        load_text_tower("open_clip/ViT-B-32?depth=3")
    write_config(tmp_path, TOWERS["vit"], text={"context_length": 8, "vocab_size": 9, "width": 16, "heads": 2,
                                                "layers": 1, "hf_tokenizer_name": "someone/words"})  # fmt: skip
    with pytest.raises(RuntimeError, match=r"no tokenizer[\s\S]*those of someone/words.*local-dir:FOLDER"):
        load_text_tower(f"open_clip/local-dir:{tmp_path}?pretrained=false")
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(ImportError, match=r"pip install 'eyespot\[open_clip\]'"):
        load_text_tower("open_clip/ViT-B-32.openai")


# ---- transformers ----

WORDS = ["<pad>", "</s>", "<s>", "<unk>", "a", "photo", "of", "cat", "dog", ".", "striped"]
TEXT_CONFIG = {
    "vocab_size": len(WORDS), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
    "num_attention_heads": 2, "max_position_embeddings": 12, "projection_size": 16,
    "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2,
}  # fmt: skip
VISION_CONFIG = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "image_size": 16, "patch_size": 8,
}  # fmt: skip


def write_hf(folder, kind):
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{kind}Config")(text_config=TEXT_CONFIG, vision_config=VISION_CONFIG)
    if kind == "CLIP":
        config.projection_dim = 20
    model = getattr(transformers, f"{kind}Model")(config).eval()
    model.save_pretrained(folder)
    write_tokenizer(folder, kind)
    return model, transformers.AutoTokenizer.from_pretrained(folder)


def write_tokenizer(folder, kind):
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    special = {"pad_token": "<pad>", "unk_token": "<unk>", "eos_token": "</s>", "bos_token": "<s>"}
    # padded on the wrong side on purpose: what SigLIP needs must not hang on a tokenizer's defaults
    side = "right" if kind == "CLIP" else "left"
    PreTrainedTokenizerFast(tokenizer_object=words, padding_side=side, **special).save_pretrained(folder)


def test_hf_clip_texts_are_those_of_get_text_features(tmp_path):
    model, tokenizer = write_hf(tmp_path, "CLIP")
    tower = load_text_tower(f"hf/{tmp_path}")
    with torch.no_grad():
        wanted = model.get_text_features(**tokenizer(TEXTS, padding=True, return_tensors="pt")).pooler_output
    torch.testing.assert_close(tower.embed(TEXTS), wanted)
    assert isinstance(tower, TextTower)
    assert (tower.name, tower.width) == (f"hf/{tmp_path}", wanted.shape[1])


@pytest.mark.parametrize("kind", ["Siglip", "Siglip2"])
def test_hf_siglip_texts_are_padded_to_full_length_on_the_right_and_not_masked(tmp_path, kind):
    model, tokenizer = write_hf(tmp_path, kind)
    tower = load_text_tower(f"hf/{tmp_path}")
    numbers = [tokenizer(text)["input_ids"] for text in TEXTS]
    full = torch.tensor([ids + [0] * (12 - len(ids)) for ids in numbers])
    with torch.no_grad():
        torch.testing.assert_close(tower.embed(TEXTS), model.get_text_features(input_ids=full).pooler_output)
    torch.testing.assert_close(tower.embed(TEXTS)[1:2], tower.embed(TEXTS[1:2]))


def test_texts_that_are_too_long_are_cut(tmp_path):
    write_hf(tmp_path, "CLIP")
    assert load_text_tower(f"hf/{tmp_path}").embed(["a cat " * 30]).isfinite().all()


def test_hf_models_that_will_not_do(tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers")
    vision = transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**VISION_CONFIG))
    vision.save_pretrained(tmp_path / "vision")
    write_tokenizer(tmp_path / "vision", "CLIP")
    with pytest.raises(ValueError, match="has no text tower"):
        load_text_tower(f"hf/{tmp_path / 'vision'}")

    model, _ = write_hf(tmp_path / "clip", "CLIP")
    state = model.state_dict()
    del state["text_projection.weight"]
    save_file(state, tmp_path / "clip" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"do not fit CLIPModel: text_projection\.weight"):
        load_text_tower(f"hf/{tmp_path / 'clip'}")

    with pytest.raises(FileNotFoundError, match=r"Bring config\.json, model\.safetensors and the tokenizer's files"):
        load_text_tower(f"hf/{tmp_path / 'nowhere'}")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"pip install 'eyespot\[hf\]'"):
        load_text_tower(f"hf/{tmp_path / 'clip'}")


# ---- python and other specs ----

LETTERS = """
import torch

class Letters:
    name, width = "letters", 26

    def __init__(self, scale=1.0):
        self.scale = scale

    def embed(self, texts):
        counts = [[text.lower().count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts]
        return self.scale * torch.tensor(counts).float()

def number():
    return 3
"""


@pytest.fixture
def letters(tmp_path):
    (tmp_path / "letters.py").write_text(LETTERS)
    return f"python/{tmp_path}/letters.py"


def test_a_tower_of_your_own(letters):
    tower = load_text_tower(f"{letters}:Letters?scale=2.0")
    assert tower.name == f"{letters}:Letters?scale=2.0"
    assert tower.embed(["abba"])[0, :3].tolist() == [4, 4, 0]
    with pytest.raises(ValueError, match="name, width and embed"):
        load_text_tower(f"{letters}:number")
    with pytest.raises(ValueError, match="unexpected keyword argument 'size'"):
        load_text_tower(f"{letters}:Letters?size=2")


@pytest.mark.parametrize("spec", ["timm/test_vit", "clip", "hf/", "hf"])
def test_what_names_no_tower_is_told_what_does(spec):
    with pytest.raises(ValueError, match=r"names no text tower; write open_clip/\.\.\., hf/\.\.\., python/"):
        load_text_tower(spec)


# ---- class embeddings and templates ----


def test_prompt_ensembling_by_hand(letters):
    tower = load_text_tower(f"{letters}:Letters")
    names, templates = ["cat", "dog", "emu"], ["a {}.", "two {}s in a zoo", "{}"]
    given = class_embeddings(tower, names, templates)
    assert given.names == tuple(names) and given.bias is None
    for row, name in zip(given.embeddings, names, strict=True):
        units = [F.normalize(tower.embed([template.format(name)])[0], dim=0) for template in templates]
        torch.testing.assert_close(row, F.normalize(torch.stack(units).mean(0), dim=0))
    torch.testing.assert_close(
        class_embeddings(tower, names, "name").embeddings, F.normalize(tower.embed(names), dim=1)
    )


def test_prompt_ensembling_as_open_clip_does_it(tmp_path):
    model, tokenizer = write_open_clip(tmp_path)
    import open_clip

    templates = open_clip.SIMPLE_IMAGENET_TEMPLATES
    wanted = open_clip.build_zero_shot_classifier(model, tokenizer, ["cat", "dog"], templates).T
    tower = load_text_tower(f"open_clip/local-dir:{tmp_path}")
    given = class_embeddings(tower, ["cat", "dog"], [template("{}") for template in templates])
    torch.testing.assert_close(given.embeddings, wanted)


def test_templates_by_name_from_a_file_or_as_they_are(tmp_path):
    (tmp_path / "mine.txt").write_text("a sketch of a {}\n\nmany {}\n")
    assert read_templates("plain") == ("a photo of a {}.",)
    assert read_templates("name") == ("{}",)
    assert read_templates(str(tmp_path / "mine.txt")) == ("a sketch of a {}", "many {}")
    assert read_templates(("name", str(tmp_path / "mine.txt"), "the {}")) == (
        "{}", "a sketch of a {}", "many {}", "the {}",
    )  # fmt: skip
    assert set(TEMPLATES) == {"plain", "name", "imagenet"}


def test_the_templates_of_imagenet_are_those_of_open_clip(monkeypatch):
    open_clip = pytest.importorskip("open_clip")
    templates = read_templates("imagenet")
    assert len(templates) == 80
    wanted = [template("cat") for template in open_clip.OPENAI_IMAGENET_TEMPLATES]
    assert [template.replace("{}", "cat") for template in templates] == wanted
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(ImportError, match=r"eyespot\[open_clip\]"):
        read_templates("imagenet")


@pytest.mark.parametrize("wrong", ["a photo", "imagnet", "{} and {}", "", ()])
def test_a_template_without_one_place_for_the_name_is_refused(wrong):
    with pytest.raises(ValueError, match=r"templates hold one \{\} for the class name"):
        read_templates(wrong)


# ---- files of embeddings ----


@pytest.mark.parametrize("bias", [None, torch.tensor([0.5, -1.0])])
def test_saved_and_read_again(tmp_path, bias):
    embeddings = torch.randn(2, 5)
    file = save_text_embeddings(tmp_path / "deep" / "names.safetensors", ["cat", "Füße"], embeddings, bias)
    read = load_text_embeddings(file)
    assert read.names == ("cat", "Füße") and torch.equal(read.embeddings, embeddings)
    assert read.bias is None if bias is None else torch.equal(read.bias, bias)
    with pytest.raises(ValueError, match="brings its own names"):
        load_text_embeddings(file, ["cat", "dog"])


NAMES = {
    "names.txt": "cat\n dog \n\nemu\n",
    "names.json": '["cat", "dog", "emu"]',
    "by_id.json": '[{"id": 3, "name": "emu"}, {"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]',
    "dicts.json": '[{"name": "cat"}, {"name": "dog"}, {"name": "emu"}]',
    "names.csv": "3,EMU,emu\n1,CAT,cat\n2,DOG,dog\n",
}


@pytest.mark.parametrize("name", NAMES)
def test_names_beside_an_array(tmp_path, name):
    array = np.arange(12, dtype=np.float16).reshape(3, 4)
    np.save(tmp_path / "a.npy", array)
    (tmp_path / name).write_text(NAMES[name])
    read = load_text_embeddings(tmp_path / "a.npy", tmp_path / name)
    assert read.names == ("cat", "dog", "emu")
    assert read.embeddings.dtype == torch.float32 and read.embeddings.tolist() == array.tolist()
    assert load_text_embeddings(tmp_path / "a.npy", ["cat", "dog", "emu"]).names == read.names


def test_synonyms_of_lvis_go_with_the_name(tmp_path):
    entries = [{"name": "aerosol_can", "synonyms": ["aerosol_can", "spray_can"]}, {"name": "cup"}]
    (tmp_path / "names.json").write_text(json.dumps(entries))
    assert read_names(tmp_path / "names.json") == ("aerosol_can, spray_can", "cup")


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("names.txt", "cat\n", r"1 names do not fit embeddings of shape \(3, 4\)"),
        ("names.json", '{"a": 1}', "a list was expected"),
        ("names.json", '[{"title": "cat"}]', "is not a list of names"),
        ("names.json", "[", "is not a list of names"),
        ("names.csv", "id,name\n1,cat", "is not a list of names"),
        ("names.xml", "", r"from \.txt, \.json or \.csv"),
    ],
)
def test_names_that_will_not_do(tmp_path, name, text, says):
    np.save(tmp_path / "a.npy", np.zeros((3, 4)))
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=says):
        load_text_embeddings(tmp_path / "a.npy", tmp_path / name)


def test_files_that_will_not_do(tmp_path):
    for name in ("a.npy", "a.safetensors"):
        with pytest.raises(FileNotFoundError, match="no text embeddings at"):
            load_text_embeddings(tmp_path / name)
        (tmp_path / name).write_bytes(b"damaged")
        with pytest.raises(ValueError, match="cannot be read"):
            load_text_embeddings(tmp_path / name, ["cat"] if name == "a.npy" else None)
    with pytest.raises(ValueError, match="holds no names; give them too"):
        load_text_embeddings(tmp_path / "a.npy")
    with pytest.raises(FileNotFoundError, match="no file of names"):
        read_names(tmp_path / "none.txt")
    save_file({"embeddings": torch.zeros(1, 2)}, tmp_path / "bare.safetensors")
    with pytest.raises(ValueError, match="needs a tensor `embeddings` and metadata `names`"):
        load_text_embeddings(tmp_path / "bare.safetensors")
    with pytest.raises(ValueError, match=r"to a \.safetensors file"):
        save_text_embeddings(tmp_path / "a.npy", ["cat"], torch.zeros(1, 2))
    with pytest.raises(ValueError, match="do not fit a bias"):
        save_text_embeddings(tmp_path / "new.safetensors", ["cat"], torch.zeros(1, 2), torch.zeros(2))
    (tmp_path / "b.pt").touch()
    with pytest.raises(ValueError, match=r"from \.safetensors or \.npy"):
        load_text_embeddings(tmp_path / "b.pt")


# ---- finding class names ----


def known(*names):
    return TextEmbeddings(names, torch.arange(float(len(names)))[:, None])


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("traffic light", "Traffic_Light"),
        ("TRAFFIC-LIGHT ", "Traffic_Light"),
        ("crab", "crab_(animal)"),
        ("Crab (animal)", "crab_(animal)"),
        ("crab_(food)", None),
        ("bow", None),
        ("bow_(weapon)", "bow_(weapon)"),
        ("tench, Tinca tinca", "Tinca tinca"),
        ("shelf", "Cabinet/shelf"),
        ("cabinet/shelf", "Cabinet/shelf"),
        ("Ruler", "Tape Measure/ Ruler"),
        ("spray can", "aerosol_can, spray_can"),
        ("lamp (a, b/c)", "lamp_(a, b/c)"),
        ("cup", "cup"),
        ("cup (trophy)", "cup"),
        ("emu", None),
        ("twice", None),
    ],
)
def test_a_class_is_found_whatever_its_spelling(asked, found):
    text = known(
        "Traffic_Light", "crab_(animal)", "bow_(weapon)", "bow_(decorative_ribbons)", "Tinca tinca", "Cabinet/shelf",
        "Tape Measure/ Ruler", "aerosol_can, spray_can", "lamp_(a, b/c)", "cup", "mug, cup", "twice", "Twice",
    )  # fmt: skip
    row = text.lookup(asked)
    assert (None if row is None else text.names[row]) == found


def test_matching_gives_the_known_classes_and_their_rows():
    text = TextEmbeddings(("dog", "cat", "emu"), torch.eye(3), torch.tensor([1.0, 2.0, 3.0]))
    indices, rows = text.match(["Emu", "yak", "dog"])
    assert indices == [0, 2] and rows.names == ("Emu", "dog")
    assert torch.equal(rows.embeddings, torch.eye(3)[[2, 0]]) and rows.bias.tolist() == [3, 1]
    indices, rows = text.match(["yak"])
    assert indices == [] and rows.embeddings.shape == (0, 3)


def test_a_row_goes_to_the_class_that_fits_it_best():
    text = known("person, man, woman", "dog")
    assert text.match(["man", "dog", "person"])[0] == [1, 2]
    assert text.match(["man", "dog", "woman"])[0] == [1]


def test_embeddings_and_names_must_fit():
    with pytest.raises(ValueError, match="1 names do not fit"):
        TextEmbeddings(("cat",), torch.zeros(2, 3))
    with pytest.raises(ValueError, match="do not fit a bias"):
        TextEmbeddings(("cat",), torch.zeros(1, 3), torch.zeros(2))


# ---- real embeddings of CLIP ViT-B/32 ----

SETS = {  # file, names, classes, an example in the middle
    "coco": ("coco_clip_a+cname.npy", None, 80, "zebra"),
    "lvis": ("lvis_v1_clip_a+cname.npy", "lvis_v1_train_cat_info.json", 1203, "zebra"),
    "objects365": ("o365_clip_a+cnamefix.npy", "Objects365_names_fix.csv", 365, "Zebra"),
    "openimages": ("oid_clip_a+cname.npy", "oid_names.json", 500, "Zebra"),
}


def read_set(shared, name):
    folder = shared / "data" / "clip_text_nouns"
    file, names, _, _ = SETS[name]
    if names is not None:
        return load_text_embeddings(folder / file, folder / names)
    described = json.loads((shared / "data" / "coco" / "val2017" / "annotations.json").read_text())
    return load_text_embeddings(folder / file, described["classes"][1:])


@pytest.mark.parametrize("name", SETS)
def test_real_embeddings(shared, name):
    if not (shared / "data" / "clip_text_nouns").is_dir():
        pytest.skip("no real text embeddings")
    text = read_set(shared, name)
    assert text.embeddings.shape == (SETS[name][2], 512) and text.embeddings.isfinite().all()
    assert text.lookup(SETS[name][3]) is not None
    assert all(text.lookup(known_name) in (row, None) for row, known_name in enumerate(text.names))
    # rows stand beside the right names: the same word has the same embedding in every set
    indices, rows = read_set(shared, "lvis").match(text.names)
    cosine = F.cosine_similarity(text.embeddings[indices], rows.embeddings)
    assert len(indices) > 60 and cosine.median() > 0.99
