import pytest
import torch
from torchmetrics.functional.retrieval import retrieval_hit_rate

from eyespot import Encoder, Features
from eyespot.data.labelled.base import RetrievalData
from eyespot.data.sets import TensorPictures, ToyboxConfig, ToyboxData
from eyespot.evaluate import evaluate
from eyespot.evaluate.protocols.retrieval import RANKS, recall_at

COUNTS = [3, 1, 2, 5, 1, 2, 4]


class Given(Encoder):
    """Its summary of picture number n, written into the picture as its brightness, is row n of a table."""

    license = None

    def __init__(self, rows, name="timm/given"):
        super().__init__()
        self.rows, self.name = rows, name
        self.summary_dim, self.patch_dim, self.stride, self.default_size = rows.shape[1], 3, 8, (8, 8)

    def _encode(self, images):
        number = (images[:, 0, 0, 0] * 255).round().long().clamp(max=len(self.rows) - 1)
        return Features(self.rows[number], images[:, :, :1, :1])


class Words:
    """A text tower that has a vector for every caption."""

    name = "words"

    def __init__(self, vectors):
        self.vectors, self.width = vectors, len(next(iter(vectors.values())))
        self.read = []

    def embed(self, texts):
        self.read += texts
        return torch.stack([self.vectors[text.removeprefix("a photo of ")] for text in texts])


@pytest.fixture
def made():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(len(COUNTS), 6, generator=generator)
    captions = [[f"{picture}-{number}" for number in range(count)] for picture, count in enumerate(COUNTS)]
    vectors = {
        caption: rows[picture] + 2.5 * torch.randn(6, generator=generator)
        for picture, of_picture in enumerate(captions)
        for caption in of_picture
    }
    numbers = torch.arange(len(COUNTS), dtype=torch.uint8)
    images = numbers[:, None, None, None].expand(-1, 3, 8, 8)
    return Given(rows), RetrievalData(TensorPictures(images), captions), Words(vectors)


def run(encoder, data, **options):
    table = evaluate({"model": encoder}, ["retrieval"], {"retrieval": data}, options={"retrieval": options})
    return {key.partition("/")[2]: value for key, value in table.rows["model"].items() if key.startswith("retrieval")}


def brute_force(rows, captions, vectors):
    """From the definition, one query at a time, in plain Python over cosines."""

    def cosine(a, b):
        return float(a.double() @ b.double() / a.double().norm() / b.double().norm())

    flat = [(caption, picture) for picture, of_picture in enumerate(captions) for caption in of_picture]
    found = {}
    for k in RANKS:
        hits = 0
        for picture, row in enumerate(rows):
            ranked = sorted(flat, key=lambda pair: -cosine(row, vectors[pair[0]]))[:k]
            hits += any(owner == picture for _, owner in ranked)
        found[f"I2T-R@{k}"] = hits / len(rows)
        hits = 0
        for caption, picture in flat:
            ranked = sorted(range(len(rows)), key=lambda index: -cosine(rows[index], vectors[caption]))[:k]
            hits += picture in ranked
        found[f"T2I-R@{k}"] = hits / len(flat)
    return found


def test_equals_brute_force(made):
    encoder, data, words = made
    found, wanted = run(encoder, data, text=words), brute_force(encoder.rows, data.captions, words.vectors)
    assert found == pytest.approx(wanted)
    assert 0 < found["I2T-R@1"] < 1 and 0 < found["T2I-R@1"] < 1  # neither trivial nor hopeless


def test_recall_equals_the_hit_rate_of_torchmetrics(monkeypatch):
    monkeypatch.setattr("eyespot.evaluate.protocols.retrieval.CHUNK", 7)
    generator = torch.Generator().manual_seed(1)
    asked, answers = torch.randn(20, 8, generator=generator), torch.randn(30, 8, generator=generator)
    fitting = torch.rand(20, 30, generator=generator) < 0.1
    fitting[:, 0] |= ~fitting.any(dim=1)
    scores = torch.cosine_similarity(asked[:, None], answers[None], dim=2)
    for k, share in zip(RANKS, recall_at(asked, answers, fitting), strict=True):
        hits = [retrieval_hit_rate(row, right, top_k=k) for row, right in zip(scores, fitting, strict=True)]
        assert share == pytest.approx(float(torch.stack(hits).mean()))


def test_fewer_answers_than_ranks_and_lengths_do_no_harm():
    asked = torch.eye(3) * torch.tensor([[1.0], [1e-3], [1e3]])
    assert recall_at(asked, torch.eye(3), torch.eye(3) > 0) == [1.0, 1.0, 1.0]


def test_templates_stand_around_captions(made):
    encoder, data, words = made
    plain = run(encoder, data, text=words)
    assert run(encoder, data, text=words, templates="a photo of {}") == plain
    assert "a photo of 0-2" in words.read


def test_a_model_without_words_gets_no_value(made):
    _, data, words = made
    assert set(run(Given(torch.randn(7, 5), "timm/dino"), data, text=words).values()) == {None}
    assert set(run(made[0], data, text=words, space="clip").values()) == {None}


def test_a_spec_is_loaded_once_for_all_rows(made, tmp_path):
    encoder, data, words = made
    torch.save(words.vectors, tmp_path / "vectors.pt")
    (tmp_path / "tower.py").write_text(
        "import pathlib, torch\n"
        "here = pathlib.Path(__file__).parent\n"
        "class Tower:\n"
        "    name, width = 'tower', 6\n"
        "    vectors = torch.load(here / 'vectors.pt')\n"
        "    def embed(self, texts):\n"
        "        return torch.stack([self.vectors[text] for text in texts])\n"
        "def make():\n"
        "    with open(here / 'loads', 'a') as log:\n"
        "        log.write('x')\n"
        "    return Tower()\n"
    )
    options = {"retrieval": {"text": f"python/{tmp_path / 'tower.py'}:make"}}
    models = {"one": encoder, "two": Given(encoder.rows, "timm/again")}
    table = evaluate(models, ["retrieval"], {"retrieval": data}, options=options)
    first, second = ({k: v for k, v in row.items() if k.startswith("retrieval")} for row in table.rows.values())
    assert first == second and (tmp_path / "loads").read_text() == "x"


def test_toybox_captions_belong_to_the_pictures():
    data = ToyboxData(ToyboxConfig(train=1, val=60, pairs=1, size=16)).captions()
    assert len(data.pictures) == len(data.captions) == 60
    assert all(len(of_picture) == 1 and of_picture[0].endswith(".") for of_picture in data.captions)
