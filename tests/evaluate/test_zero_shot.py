import pytest
import torch
import torch.nn.functional as F
from torch import nn

from eyespot import Encoder, Features
from eyespot.data.labelled.base import ClassificationData, LabelledPictures, TensorPictures
from eyespot.distill.committee import Committee
from eyespot.distill.features.feature_distillation import FeatureDistillation
from eyespot.encoders.text.embeddings import TextEmbeddings
from eyespot.evaluate import evaluate
from eyespot.evaluate.protocols.zero_shot import text_space, zero_shot_scores

CLASSES = ["red", "green", "blue"]


class Colours(Encoder):
    """Its summary is the mean colour (or a fixed rotation of it), so that naming colours is exact."""

    def __init__(self, name="python/colours.py:colours", width=3):
        super().__init__()
        self.name, self.summary_dim, self.patch_dim, self.stride, self.default_size = name, width, 3, 8, (16, 16)
        self.project = nn.Linear(3, width, bias=False)
        nn.init.orthogonal_(self.project.weight)

    def _encode(self, images):
        patches = F.avg_pool2d(images, 8)
        return Features(self.project(patches.mean((2, 3))), patches)


def coloured(count=30, key=0):
    """Noisy pictures of one colour each, their class the strongest channel; every tenth has no label."""
    generator = torch.Generator().manual_seed(key)
    labels = torch.randint(0, 3, (count,), generator=generator)
    images = 0.3 * torch.rand(count, 3, 16, 16, generator=generator)
    images[torch.arange(count), labels] += 0.6
    labels[::10] = -1
    return LabelledPictures(TensorPictures(images), labels)


@pytest.fixture
def data():
    return ClassificationData(coloured(), coloured(40, 1), CLASSES)


class ColourWords:
    """A text tower: the colours' own vectors, in the space of `encoder`, whatever template surrounds the word."""

    name = "words"

    def __init__(self, encoder):
        self.encoder, self.width = encoder, encoder.summary_dim

    def embed(self, texts):
        colours = torch.tensor([[float(name in text) for name in CLASSES] for text in texts])
        with torch.no_grad():
            return self.encoder.project(colours)


def run(encoder, data, **options):
    table = evaluate({"model": encoder}, ["zero_shot"], {"zero_shot": data}, options={"zero_shot": options})
    return {key.partition("/")[2]: value for key, value in table.rows["model"].items() if key.startswith("zero_shot")}


def test_an_image_text_teacher_names_what_it_sees(data):
    encoder = Colours()
    found = run(encoder, data, text=ColourWords(encoder), templates=("a {} thing", "{}"))
    assert found == {"accuracy": 1.0, "top5": 1.0, "classes": 3.0}


def test_a_student_names_through_two_hops_what_only_the_first_teacher_has_words_for(data):
    """Students are trained by their heads alone (their features already hold the colour), a few hundred steps each."""
    teacher, proxy, student = Colours("timm/clip", 5), Colours("timm/proxy", 4), Colours("timm/student", 3)
    for learner, name, watched in ((proxy, "clip", teacher), (student, "proxy", proxy)):
        learner.adapters = taught(learner, name, watched, data)
    words = ColourWords(teacher)
    assert run(student, data, text=words)["accuracy"] == 1.0
    assert run(student, data, text=words, space="proxy/clip")["accuracy"] == 1.0
    assert run(proxy, data, text=words, space="clip")["accuracy"] == 1.0
    student.adapters = {name: value for name, value in student.adapters.items() if not name.endswith(".mean")}
    with pytest.raises(ValueError, match="make no adapter"):  # without the statistics the space would be another
        run(student, data, text=words)


def taught(student, name, teacher, data):
    images = data.train.pictures.read(0, 30, (16, 16))
    committee = Committee({name: teacher})
    task = FeatureDistillation(student, committee, adapter_width=16, student_sizes=(16,), statistics_steps=1)
    task.prepare([{"images": images, "step": 0}])
    optimizer = torch.optim.Adam(task.learners["student"].heads.parameters(), 0.01)
    for step in range(150):
        loss = task({"images": images, "step": step})["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return task.adapters()


def test_scores_are_cosines_or_the_logits_of_a_classifier():
    summaries, rows = torch.randn(4, 6), torch.randn(3, 6)
    cosines = zero_shot_scores(summaries, TextEmbeddings(("a", "b", "c"), rows, None))
    expected = torch.stack([F.cosine_similarity(summaries, row[None], dim=1) for row in rows], dim=1)
    torch.testing.assert_close(cosines, expected)
    bias = torch.randn(3)
    logits = zero_shot_scores(summaries, TextEmbeddings(("a", "b", "c"), rows, bias))
    torch.testing.assert_close(logits, summaries @ rows.T + bias)


def test_only_classes_with_a_name_count(data):
    encoder = Colours()
    words = ColourWords(encoder).embed(["red", "blue"])
    found = run(encoder, data, text=TextEmbeddings(("Red", "blue"), words, None))
    assert found == {"accuracy": 1.0, "top5": 1.0, "classes": 2.0}
    with pytest.raises(ValueError, match="knows 1 of the 3 classes"):
        run(encoder, data, text=TextEmbeddings(("red", "pink"), words, None))


def test_a_model_without_words_gets_no_value_beside_others(data):
    teacher = Colours("timm/clip", 5)
    options = {"zero_shot": {"text": ColourWords(teacher), "space": "clip"}}
    models = {"clip": teacher, "same width": Colours("timm/dino", 5), "other": Colours("timm/depth", 4)}
    table = evaluate(models, ["zero_shot"], {"zero_shot": data}, options=options)
    assert [row["zero_shot/accuracy"] for row in table.rows.values()] == [1.0, None, None]
    assert "–" in table.to_markdown()


def test_spaces_that_do_not_fit_are_refused(data):
    teacher, student = Colours("timm/clip", 5), Colours("timm/student", 3)
    student.adapters = taught(student, "clip", teacher, data)
    with pytest.raises(ValueError, match="no adapters lead to 'dino'; there are clip"):
        text_space(student, 5, "dino")
    with pytest.raises(ValueError, match="has 5 numbers, the text 7"):
        text_space(student, 7, "clip")
    with pytest.raises(ValueError, match=r"0 of its adapters lead to 7 numbers.*There are clip"):
        text_space(student, 7)


def test_a_task_that_lacks_its_text_says_so_before_any_work(data):
    with pytest.raises(ValueError, match=r"zero_shot needs zero_shot\.text="):
        evaluate({"model": Colours()}, ["zero_shot"], {"zero_shot": data})
