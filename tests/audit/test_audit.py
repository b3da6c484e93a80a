"""The committee audit on teachers whose relations are known by construction."""

import itertools
from pathlib import Path

import audit_toys as toys
import pytest
import torch
from torch import nn

from eyespot import Encoder, Features
from eyespot.audit import AuditConfig, CommitteeAudit, audit, similarity
from eyespot.audit.markdown import markdown_of
from eyespot.audit.measure import gradient_cosines, measure_held_out
from eyespot.audit.pictures import open_pictures
from eyespot.audit.result import Interference, judge
from eyespot.audit.similarity import block_as_map, inner_levels
from eyespot.audit.subsets import SubsetDistillation, subsets_of
from eyespot.data import DataConfig
from eyespot.distill.committee import Committee
from eyespot.distill.features.losses import FeatureLoss
from eyespot.distill.features.standardizers import FeatureStandardizer
from eyespot.encoders import load_encoder
from eyespot.engine.trainer import Trainer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toys.write_cells(tmp_path_factory.mktemp("cells"))


@pytest.fixture(scope="module")
def starved(folder: Path) -> CommitteeAudit:
    """Red and green in a student that has room for one number per cell."""
    config = toys.config(student=toys.spec("starved"), steps=120, learning_rate=2e-2)
    return audit([toys.spec("red"), toys.spec("green")], toys.data(folder), config)


@pytest.fixture(scope="module")
def three(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[CommitteeAudit, Path]:
    """An audit of three teachers with four steps each, and its folder."""
    output = tmp_path_factory.mktemp("audit")
    return audit(
        [toys.spec(name) for name in ("red", "green", "blue")], toys.data(folder), toys.config(), output
    ), output


# Similarity


def looked_at(*teachers: Encoder, folder: Path) -> dict[str, Features]:
    images = open_pictures(toys.data(folder), toys.SIDE, 48).held_out
    return {teacher.name + str(number): teacher(images / 255) for number, teacher in enumerate(teachers)}


@torch.no_grad()
def test_linear_images_of_one_another_are_alike_and_predict_each_other(folder: Path) -> None:
    alike = similarity(looked_at(toys.red(), toys.red_mixed(), folder=folder))
    (first, second) = alike.patches
    assert alike.patches[first][second] == alike.patches[second][first] == pytest.approx(1, abs=1e-4)
    assert alike.summaries[first][second] == pytest.approx(1, abs=1e-4)
    assert min(alike.prediction[first][second], alike.prediction[second][first]) > 0.999
    assert alike.pictures == 48 and alike.grid == (4, 4) and alike.levels == {}


@torch.no_grad()
def test_teachers_of_unrelated_things_are_not(folder: Path) -> None:
    alike = similarity(looked_at(toys.red(), toys.green(), folder=folder))
    (first, second) = alike.patches
    assert abs(alike.patches[first][second]) < 0.03 and abs(alike.summaries[first][second]) < 0.1
    assert max(alike.prediction[first][second], alike.prediction[second][first]) < 0.1


def test_teachers_that_show_inner_layers_are_compared_level_by_level(folder: Path) -> None:
    committee = Committee(
        {
            "vit": load_encoder("timm/test_vit?pretrained=false&depth=4"),
            "cnn": load_encoder("timm/test_resnet?pretrained=false"),
            "red": toys.red(),
        }
    )
    images = open_pictures(toys.data(folder), toys.SIDE, 8).held_out
    levels = inner_levels(committee, images, 4, 32, torch.device("cpu"), (2, 2))
    assert list(levels) == ["vit", "cnn"]
    assert all(level.shape[0] == 8 and level.shape[2:] == (2, 2) for maps in levels.values() for level in maps)
    seen = {name: Features(torch.randn(8, 3), torch.randn(8, 3, 2, 2)) for name in ("vit", "cnn", "red")}
    found = similarity(seen, levels).levels
    assert list(found) == ["1", "2", "3", "4"]
    assert all(matrix["vit"]["cnn"] == matrix["cnn"]["vit"] and "red" not in matrix for matrix in found.values())


def test_tokens_become_maps_without_those_in_front() -> None:
    patches = torch.arange(12.0).view(1, 6, 2)
    tokens = torch.cat([torch.full((1, 5, 2), -1.0), patches], dim=1)
    assert torch.equal(block_as_map(tokens, (2, 3)), patches.transpose(1, 2).view(1, 2, 2, 3))
    assert block_as_map(torch.zeros(1, 4 * 6, 2), (2, 3)).shape == (1, 2, 4, 6)  # an earlier stage of a Swin
    assert block_as_map(torch.zeros(1, 2, 5, 5), (2, 3)).shape == (1, 2, 5, 5)


# The experiment


def test_parts_of_a_committee() -> None:
    assert subsets_of(("a", "b")) == {"all": ("a", "b"), "only-a": ("a",), "only-b": ("b",)}
    parts = subsets_of(("a", "b", "c"))
    assert parts["without-b"] == ("a", "c") and len(parts) == 7


def test_contradicting_teachers_of_a_starved_student_fight(starved: CommitteeAudit) -> None:
    (verdict,) = starved.verdicts
    for on, of in itertools.permutations(("red", "green")):
        assert min(starved.interference(on, of).values) > 0.2
        assert starved.regret(("red", "green"), on).values == starved.interference(on, of).values
        assert starved.regret((on,), on).values == (0, 0)
        assert starved.remaining((on,), on).mean < 0.8  # something was learnt
    assert verdict.word == "fight" and verdict.spread is not None and verdict.interference > verdict.spread


def test_a_student_knows_its_teacher_and_not_the_one_it_never_met(starved: CommitteeAudit) -> None:
    assert starved.known(("red",), "red").mean > starved.known(("red",), "green").mean + 0.3
    assert starved.verdicts[0].known == {
        "red": starved.known(("green",), "red").mean,
        "green": starved.known(("red",), "green").mean,
    }


def test_the_students_of_a_seed_differ_in_nothing_but_their_teachers() -> None:
    teachers = {"red": toys.red(), "green": toys.green()}
    task = make_task(teachers)
    students = [task.learner(name).encoder.state_dict() for name in ("all", "only-red", "only-green")]
    assert all(torch.equal(students[0][key], other[key]) for key in students[0] for other in students[1:])
    full = task.learner("all").heads.state_dict()
    assert list(task.learner("only-green").heads) == ["green"] == list(task.learner("only-green").taught_by)
    assert all(
        torch.equal(full[f"{key}"], value) for key, value in task.learner("only-green").heads.state_dict().items()
    )


def test_each_student_learns_from_its_own_teachers_only() -> None:
    losses = make_task({"red": toys.red(), "green": toys.green()})({"images": torch.rand(4, 3, 32, 32), "step": 0})
    terms = {name for name in losses if name.startswith("only-red/")}
    assert terms == {"only-red/loss", "only-red/red/summary", "only-red/red/patch"}
    assert {"all/red/patch", "all/green/patch", "only-green/green/summary"} < losses.keys()


def make_task(teachers: dict[str, Encoder]) -> SubsetDistillation:
    parts = subsets_of(tuple(teachers))
    students = {}
    for name in parts:
        torch.manual_seed(0)
        students[name] = toys.student()
    torch.manual_seed(1)
    scales = {name: FeatureStandardizer("none", (6, 6)) for name in teachers}
    return SubsetDistillation(students, parts, Committee(teachers), scales, adapter_width=8, size=32)


def test_gradients_are_compared_at_the_student_and_leave_no_trace(folder: Path) -> None:
    task = make_task({"red": toys.red(), "green": toys.green()})
    learner = task.learner("all")
    images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
    targets = task.committee({"images": images})
    before, state = {key: value.clone() for key, value in learner.state_dict().items()}, torch.get_rng_state()
    found = gradient_cosines(learner, images, 32, targets, batch_size=8)
    assert all(torch.equal(value, before[key]) for key, value in learner.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state) and all(weight.grad is None for weight in learner.parameters())

    gradients = []
    for name in ("red", "green"):
        learner.zero_grad()
        losses = learner(images / 255, 32, targets)
        (losses[f"{name}/summary"] + losses[f"{name}/patch"]).backward()
        gradients.append(torch.cat([weight.grad.flatten() for weight in learner.encoder.parameters()]))
    cosine = float(nn.functional.cosine_similarity(*gradients, dim=0))
    assert found["red"]["green"] == found["green"]["red"] == pytest.approx(cosine, abs=1e-5)


def test_held_out_losses_are_those_of_all_pictures_at_once() -> None:
    task = make_task({"red": toys.red(), "green": toys.green()})
    learner = task.learner("only-red")
    images = torch.randint(0, 256, (10, 3, 32, 32), dtype=torch.uint8)
    targets = task.committee({"images": images})
    losses, features = measure_held_out(learner, images, 32, targets, batch_size=4)
    wanted = FeatureLoss()(learner.heads["red"](features), targets["red"])
    assert list(losses) == ["red"] and len(features) == 10
    assert list(losses["red"].values()) == pytest.approx([loss.item() for loss in wanted], rel=1e-5)


# The whole audit


def test_three_teachers_make_all_tables(three: tuple[CommitteeAudit, Path]) -> None:
    found, output = three
    assert found.teachers == ("red", "green", "blue") and found.seeds == [0, 1]
    assert len(found.students) == 2 * 8
    assert set(found.conflict) == {"0", "2"}
    cosines = [value for matrix in found.conflict.values() for row in matrix.values() for value in row.values()]
    assert len(cosines) == 2 * 6 and all(-1 <= value <= 1 for value in cosines)
    assert [(verdict.first, verdict.second) for verdict in found.verdicts] == [
        ("red", "green"),
        ("red", "blue"),
        ("green", "blue"),
    ]
    without = [found.student(seed, ("red", "blue")).loss("red") for seed in (0, 1)]
    whole = [found.student(seed, found.teachers).loss("red") for seed in (0, 1)]
    assert found.interference("red", "green").values == pytest.approx(
        [a / b - 1 for a, b in zip(whole, without, strict=True)]
    )
    text = (output / "audit.md").read_text()
    assert text == markdown_of(found)
    assert all(f"| {row} |" in text for row in ("without-green", "only-blue", "untrained", "red, green"))
    assert all(f"**{verdict.word}**" in text for verdict in found.verdicts)


def test_json_holds_everything(three: tuple[CommitteeAudit, Path]) -> None:
    found, output = three
    again = CommitteeAudit.from_json((output / "audit.json").read_text())
    assert again == found and again.verdicts == found.verdicts


def test_equal_seeds_give_equal_audits_and_finished_ones_are_not_trained_again(
    three: tuple[CommitteeAudit, Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, output = three
    specs = [toys.spec(name) for name in ("red", "green", "blue")]
    fresh = audit(specs, toys.data(folder), toys.config(seeds=(1,)))
    assert fresh.students == [student for student in found.students if student.seed == 1]
    assert fresh.similarity == found.similarity
    assert {verdict.word for verdict in fresh.verdicts} == {"unknown"}  # no spread

    monkeypatch.setattr(Trainer, "_train_step", lambda *_: pytest.fail("a step was trained"))
    lines: list[str] = []
    assert audit(specs, toys.data(folder), toys.config(), output, lines.append) == found
    assert lines[-1] == "seed 1: measured before"


def test_without_steps_only_the_teachers_are_compared(folder: Path) -> None:
    found = audit({"red": toys.red(), "green": toys.green()}, toys.data(folder), toys.config(steps=0, seeds=(0,)))
    assert found.verdicts == [] and found.seeds == [] and set(found.conflict) == {"0"}
    text = markdown_of(found)
    assert "## Verdicts" not in text and "## Similarity" in text and "## Gradients" in text
    assert CommitteeAudit.from_json(found.to_json()) == found


def test_the_rule() -> None:
    assert judge(0.05, 0.02, 0.01) == "fight" and judge(-0.05, 0.02, 0.01) == "complement"
    assert judge(0.05, 0.06, 0.01) == judge(0.005, 0.001, 0.01) == "indifferent"
    assert judge(0.5, None, 0.01) == "unknown"
    assert Interference((1.0, 3.0)).mean == 2 and Interference((1.0, 3.0)).spread == pytest.approx(2**0.5)


# Pictures


def test_held_out_pictures_are_not_learnt_from(folder: Path) -> None:
    pictures = open_pictures(toys.data(folder), toys.SIDE, 32)
    (training,) = pictures.training
    every = {str(path) for path in folder.iterdir()}
    kept = {training.picture_name(number) for number in range(len(training))}
    assert pictures.held_out.shape == (32, 3, 32, 32) and len(training) == 64
    assert len(kept) == 64 and kept < every
    loader = pictures.loader(64, seed=5)
    learnt = {image.numpy().tobytes() for image in loader.batch(0)["images"]}
    assert not learnt & {image.numpy().tobytes() for image in pictures.held_out} and len(learnt) == 64
    assert len({image.numpy().tobytes() for image in pictures.held_out}) == 32


def test_several_sources_are_held_out_alike(folder: Path, tmp_path: Path) -> None:
    more = toys.write_cells(tmp_path / "more", 32)
    pictures = open_pictures(DataConfig(sources=[str(folder), str(more)]), 16, 32)
    assert [len(part) for part in pictures.training] == [72, 24]
    assert pictures.held_out.shape == (32, 3, 16, 16)


# Mistakes


@pytest.mark.parametrize("teachers", [["timm/test_vit"], [], "timm/test_vit"])
def test_one_teacher_cannot_be_compared(teachers: list[str], folder: Path) -> None:
    with pytest.raises(ValueError, match="name at least two"):
        audit(teachers, toys.data(folder), toys.config())


def test_missing_and_too_few_pictures_are_named(folder: Path, tmp_path: Path) -> None:
    teachers = {"red": toys.red(), "green": toys.green()}
    with pytest.raises(FileNotFoundError, match="nowhere"):
        audit(teachers, str(tmp_path / "nowhere"), toys.config())
    with pytest.raises(ValueError, match="no pictures"):
        audit(teachers, str(tmp_path), toys.config())
    with pytest.raises(ValueError, match=r"96 pictures are too few: 64 are held out.*at most 48"):
        audit(teachers, str(folder), toys.config(held_out=64))


def test_a_teacher_that_is_not_finite_is_named(folder: Path) -> None:
    broken = toys.green()
    broken.mix.data.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"teacher 'green'.*NaN"):
        audit({"red": toys.red(), "green": broken}, toys.data(folder), toys.config())


def test_a_seed_named_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="0 1 0 name one seed twice"):
        AuditConfig(seeds=(0, 1, 0))
