"""Labels, words, captions and answers against what stands in the picture."""

import pytest
import torch

from eyespot.data.toybox import COLOURS, PATTERNS, SHAPES, WORDS, render
from eyespot.data.toybox.cards import draw_word
from eyespot.data.toybox.place import CARD, SOLIDS
from eyespot.data.toybox.scenes import sample_scenes

SEEDS = range(1000, 1400)
NUMBERS = ["no", "one", "two", "three", "four"]


@pytest.fixture(scope="module")
def scenes():
    return render(SEEDS, 40, antialias=False)


@pytest.fixture(scope="module")
def world():
    return sample_scenes(SEEDS)


def test_labels_are_balanced():
    many = sample_scenes(range(3000))
    for labels, names in ((many.shape[:, 0], SHAPES), (many.colour[:, 0], COLOURS), (many.pattern[:, 0], PATTERNS)):
        counts = labels.bincount(minlength=len(names)).float()
        assert (counts / counts.mean() - 1).abs().max() < 0.2
    words = (many.word + 1).bincount(minlength=len(WORDS) + 1).float()
    assert 0.07 < words[0] / len(many) < 0.13
    assert (words[1:] / words[1:].mean() - 1).abs().max() < 0.25


def test_two_to_four_solids_that_do_not_touch():
    many = sample_scenes(range(3000))
    counts = many.present[:, :SOLIDS].sum(1).bincount(minlength=5)
    assert counts[0] == counts[1] == 0 and (counts[2:] > 300).all()
    assert many.present[:, 0].all()
    x, y, _ = many.half.unbind(-1)
    square = (many.shape == SHAPES.index("box")) | (many.shape == SHAPES.index("pyramid"))
    reach = torch.where(square, (x * x + y * y).sqrt(), x)
    for a in range(SOLIDS):
        for b in range(a):
            both = many.present[:, a] & many.present[:, b]
            gap = (many.centre[:, a, :2] - many.centre[:, b, :2]).norm(dim=-1) - reach[:, a] - reach[:, b]
            assert gap[both].min() > 0.04
    torch.testing.assert_close(many.centre[..., 2], many.half[..., 2])


def test_the_main_object_is_in_full_view_of_both_cameras():
    for camera in (0, 1):
        scenes = render(range(2000, 2300), 64, camera=camera, antialias=False)
        sizes = torch.stack([(scenes.instances == number).flatten(1).sum(1) for number in range(6)], 1)
        assert sizes[:, 1].min() >= 60
        assert (sizes[:, 1] > sizes[:, 2:5].amax(1)).float().mean() > 0.99
        assert sizes[scenes.word >= 0, 5].min() >= 200
        assert (sizes[scenes.word < 0, 5] == 0).all()
        card = scenes.instances == CARD + 1
        assert not (card[:, 0].any() | card[:, -1].any() | card[:, :, 0].any() | card[:, :, -1].any())


def test_captions_name_every_solid_and_the_word(scenes, world):
    for index, caption in enumerate(scenes.captions):
        assert caption.endswith(".") and caption[0] == "A"
        for shape in SHAPES:
            shown = sum(
                bool((scenes.instances[index] == slot + 1).any()) and SHAPES[int(world.shape[index, slot])] == shape
                for slot in range(SOLIDS)
            )
            assert caption.count(f" {shape}") == shown
        assert COLOURS[int(scenes.colour[index])] in caption.split(",")[0]
        if scenes.word[index] >= 0:
            assert caption.endswith(f"a card that says {WORDS[int(scenes.word[index])]}.")
        else:
            assert "card" not in caption


def test_answers_follow_from_the_masks(scenes, world):
    kinds = {"yes": 0, "no": 0, "left": 0, "right": 0}
    for index, pairs in enumerate(scenes.questions):
        answers = dict(pairs)
        instances = scenes.instances[index]
        shown = [number for number in range(1, 5) if (instances == number).any()]
        assert answers["What shape is the largest solid?"] == SHAPES[int(scenes.shape[index])]
        assert answers["What colour is the largest solid?"] == COLOURS[int(scenes.colour[index])]
        assert answers["What pattern has the largest solid?"] == PATTERNS[int(scenes.pattern[index])]
        assert answers["How many solids are there?"] == NUMBERS[len(shown)]
        word = int(scenes.word[index])
        assert answers["What does the card say?"] == (WORDS[word] if word >= 0 else "there is no card")
        for question, answer in pairs:
            if answer in kinds:
                kinds[answer] += 1
            if question.startswith("Is there a "):
                kind = SHAPES.index(question.removeprefix("Is there a ").removesuffix("?"))
                assert (answer == "yes") == bool((scenes.semantic[index] == 3 + kind).any())
            if question.startswith("Is the card"):
                card, main = ((instances == number).nonzero()[:, 1].float().mean() for number in (5, 1))
                assert answer == ("left" if card < main else "right")
            if " closer than the " in question:
                other, main = (scenes.depth[index][instances == number] for number in (shown[-1], 1))
                gap = main.median() - other.median()
                assert abs(gap) < 0.4 or (answer == "yes") == (gap > 0)
    assert kinds["left"] / kinds["right"] == pytest.approx(1, abs=0.35)
    assert 0.5 < kinds["yes"] / kinds["no"] < 3


def test_the_printed_word_can_be_read_off_the_picture():
    """Each card, straightened by the camera's geometry, correlates best with the drawing of its own word."""
    seeds = range(60)
    scenes, world = render(seeds, 64), sample_scenes(seeds)
    columns, rows = 48, 24
    u, v = torch.meshgrid((torch.arange(columns) + 0.5) / columns, (torch.arange(rows) + 0.5) / rows, indexing="xy")
    drawn = torch.stack(
        [torch.nn.functional.adaptive_avg_pool2d(draw_word(w, 192)[None], (rows, columns)) for w in WORDS]
    )
    drawn = drawn.flatten(1)[:, None] - drawn.flatten(1).mean(1)[:, None, None]
    read = right = 0
    for index in range(len(scenes)):
        if scenes.word[index] < 0:
            continue
        (hx, hy, hz), (c, s) = world.half[index, CARD], world.turn[index, CARD]
        x, y, z = (2 * u - 1) * hx, -hy, (1 - 2 * v) * hz
        points = torch.stack([c * x - s * y, s * x + c * y, z], -1) + world.centre[index, CARD]
        pose = scenes.camera_to_world[index]
        seen = (points - pose[:3, 3]) @ pose[:3, :3] @ scenes.intrinsics[index].T
        xy = seen[..., :2] / seen[..., 2:] / 32 - 1
        grey = scenes.images[index].mean(0)[None, None]
        strip = torch.nn.functional.grid_sample(grey, xy[None], align_corners=False).flatten()
        strip = strip - strip.mean()
        match = (drawn[:, 0] * strip).sum(1).abs() / drawn[:, 0].norm(dim=1)
        read += 1
        right += int(match.argmax() == scenes.word[index])
    assert read > 40
    assert right / read > 0.95


def test_words_have_three_or_four_letters_and_differ_on_the_card():
    cards = torch.stack([draw_word(word, 64).flatten() for word in WORDS])
    assert all(3 <= len(word) <= 4 for word in WORDS)
    assert cards.min() == 0 and cards.max() == 1
    assert torch.cdist(cards, cards).add(torch.eye(len(WORDS)) * 99).min() > 5
