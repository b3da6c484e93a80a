"""The quickstart's parts, and once the whole of it, as small as it gets."""

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import eyespot.quickstart as quickstart_module
from eyespot import load_encoder
from eyespot.config import as_plain, build
from eyespot.data import PictureLoader
from eyespot.data.sets import toybox as evaluation
from eyespot.data.toybox import WORDS
from eyespot.data.toybox.spec import FIRST_EXPERT
from eyespot.encoders.naming import short_names
from eyespot.engine.metrics import read_lines
from eyespot.engine.run import RunMismatchError
from eyespot.engine.trainer import Trainer
from eyespot.evaluate import ResultTable
from eyespot.quickstart import (
    EXPERT_MODELS,
    PICTURE,
    SIZES,
    QuickstartLength,
    direct_config,
    quickstart,
    quickstart_config,
)
from eyespot.quickstart.experts import EXPERTS, ExpertTask, SceneBatches
from eyespot.quickstart.image_text import PhraseMatching, load_phrases, save_phrases
from eyespot.recipes.eupe import EupeConfig
from eyespot.recipes.eupe.config import STAGE_1, STAGE_2, STAGE_3

TINY = QuickstartLength(scenes=32, expert_steps=2, shorten=0.006, test_scenes=20)
SEED = 0


@pytest.fixture(scope="module")
def scenes() -> SceneBatches:
    return SceneBatches(24, 32, 8, SEED)


def config_of(size: QuickstartLength, seed: int = SEED) -> EupeConfig:
    return quickstart_config(Path("runs/quick"), size, seed)


def rows(batch: dict[str, Any]) -> list[bytes]:
    """What identifies each scene of a batch: its picture."""
    return [picture.numpy().tobytes() for picture in batch["images"]]


# Batches of scenes


def test_a_batch_is_a_pure_function_of_the_step(scenes: SceneBatches) -> None:
    again = SceneBatches(24, 32, 8, SEED)
    from_two = again.batches(2)
    for step in (2, 3, 4):
        expected = scenes.batch(step)
        for batch in (next(from_two), again.batch(step)):
            assert batch["step"] == step
            assert batch.keys() == expected.keys()
            assert all(torch.equal(batch[name], expected[name]) for name in batch if name != "step")
    assert scenes.fingerprint() == again.fingerprint() != SceneBatches(24, 32, 8, SEED + 1).fingerprint()


def test_every_epoch_covers_every_scene_once_in_its_own_order(scenes: SceneBatches) -> None:
    epochs = [[row for step in range(first, first + 3) for row in rows(scenes.batch(step))] for first in (0, 3)]
    assert len(set(epochs[0])) == 24
    assert set(epochs[0]) == set(epochs[1])
    assert epochs[0] != epochs[1]
    other_seed = SceneBatches(24, 32, 8, SEED + 1)
    assert rows(other_seed.batch(0)) != rows(scenes.batch(0))


def test_rank_slices_make_up_the_batch(scenes: SceneBatches) -> None:
    parts = [SceneBatches(24, 32, 8, SEED, rank, 2) for rank in (0, 1)]
    for step in (0, 4):
        whole, slices = scenes.batch(step), [part.batch(step) for part in parts]
        for name in whole.keys() - {"step"}:
            assert torch.equal(torch.cat([part[name] for part in slices]), whole[name])


def test_labels_belong_to_their_pictures(scenes: SceneBatches) -> None:
    """The same scene comes with the same labels, wherever in whichever epoch."""
    batches = [scenes.batch(step) for step in range(6)]
    known: dict[bytes, tuple[Any, ...]] = {}
    for batch in batches:
        for place, scene in enumerate(rows(batch)):
            labels = tuple(batch[name][place].tolist() for name in ("shape", "colour", "pattern", "word"))
            assert known.setdefault(scene, labels) == labels
    assert len(known) == 24
    batch = batches[0]
    assert batch["images"].dtype == torch.uint8 and batch["images"].shape == (8, 3, 32, 32)
    assert batch["depth"].shape == batch["semantic"].shape == (8, 32, 32)
    assert (batch["depth"] > 0).all() and batch["word"].max() < len(WORDS)


# Experts


@pytest.mark.parametrize("name", EXPERTS)
def test_experts_have_finite_losses_and_gradients(name: str, scenes: SceneBatches) -> None:
    torch.manual_seed(0)
    encoder = load_encoder(EXPERT_MODELS[name], pretrained=False).train()
    task = ExpertTask(encoder, EXPERTS[name](encoder))
    loss = task(scenes.batch(0))["loss"]
    assert loss.shape == () and loss.isfinite() and loss > 0
    loss.backward()
    gradients = {key: value.grad for key, value in task.named_parameters()}
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients.values()), name
    assert all(gradients[key].abs().sum() > 0 for key in gradients if key.startswith("head."))  # type: ignore[union-attr]
    assert task.students == {"expert": encoder}


@pytest.mark.parametrize("name", EXPERTS)
def test_heads_prefer_the_truth(name: str, scenes: SceneBatches) -> None:
    """A few steps on one batch bring its loss down."""
    torch.manual_seed(0)
    encoder = load_encoder(EXPERT_MODELS[name], pretrained=False).train()
    task = ExpertTask(encoder, EXPERTS[name](encoder))
    optimizer = torch.optim.AdamW(task.parameters(), lr=2e-3)
    losses = []
    for _ in range(6):
        optimizer.zero_grad()
        loss = task(scenes.batch(0))["loss"]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_experts_differ_in_what_they_look_like() -> None:
    assert EXPERTS.keys() == EXPERT_MODELS.keys()
    encoders = [load_encoder(spec, pretrained=False) for spec in EXPERT_MODELS.values()]
    assert len({(encoder.stride, encoder.patch_dim) for encoder in encoders}) == len(encoders)
    assert all(PICTURE % encoder.stride == 0 for encoder in encoders)


def test_phrases_and_pictures_meet_in_one_space(tmp_path: Path) -> None:
    """The loss by hand, and a text tower that survives its file."""
    torch.manual_seed(0)
    matching = PhraseMatching(8)
    phrases, summaries = ["a red box", "a dotted blue cone", "a red box"], torch.randn(3, 8)
    texts = F.normalize(matching.tower.embed(phrases), dim=1)
    logits = 10 * F.normalize(summaries, dim=1) @ texts.T
    targets = torch.tensor([[0.5, 0.0, 0.5], [0.0, 1.0, 0.0], [0.5, 0.0, 0.5]])
    by_hand = [-(targets * table.log_softmax(1)).sum(1).mean() for table in (logits, logits.T)]
    torch.testing.assert_close(matching(summaries, phrases), (by_hand[0] + by_hand[1]) / 2)
    save_phrases(matching.tower, tmp_path / "text.safetensors")
    tower = load_phrases(str(tmp_path / "text.safetensors"))
    assert tower.width == 8 and torch.equal(tower.embed(phrases), matching.tower.embed(phrases))
    torch.testing.assert_close(tower.embed(["a box, red!"]), tower.embed(["A RED BOX"]))
    with pytest.raises(ValueError, match="none of the words in 'the zebra' is known; there are a, an, striped"):
        tower.embed(["the zebra"])
    with pytest.raises(FileNotFoundError, match="no text tower at"):
        load_phrases(str(tmp_path / "none.safetensors"))


# Scenes


@pytest.mark.parametrize("preset", SIZES)
def test_scenes_of_experts_distillation_and_evaluation_are_disjoint(
    preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the numbers that each of the three really renders."""
    size = SIZES[preset]
    rendered: dict[str, set[int]] = {"experts": set()}

    class Stop(Exception):
        pass

    def note(numbers: Any, *_: Any, **__: Any) -> None:
        rendered["experts"] |= set(numbers)
        raise Stop

    monkeypatch.setattr("eyespot.quickstart.experts.render", note)
    with pytest.raises(Stop):
        SceneBatches(size.scenes, PICTURE, 64, SEED)
    (source,) = PictureLoader(config_of(size).data, 1).sources
    rendered["distillation"] = {source.scene_seed(index) for index in range(len(source))}  # type: ignore[attr-defined]
    data = evaluation.ToyboxData(
        evaluation.ToyboxConfig(2 * size.test_scenes, size.test_scenes, min(200, size.test_scenes), PICTURE)
    )
    rendered["probe training"] = set(data.scenes("train"))
    rendered["measuring"] = set(data.scenes("val"))
    assert min(rendered["experts"]) == FIRST_EXPERT
    assert len(rendered["experts"]) == len(rendered["distillation"]) == size.scenes
    assert len(set.union(*rendered.values())) == sum(len(numbers) for numbers in rendered.values())


# Configurations


@pytest.mark.parametrize("preset", SIZES)
def test_quickstart_config_is_a_whole_run(preset: str) -> None:
    size = SIZES[preset]
    config = config_of(size).checked()
    assert build(EupeConfig, as_plain(config), "again") == config
    assert config.data.sources == [f"toybox:{size.scenes}@{config.data.size}"]
    assert short_names(config.teachers) == list(EXPERTS)
    for stage in (config.stage1, config.stage2, config.stage3):
        assert stage.steps > stage.warmup_steps > 0
    student = load_encoder(config.student.model[0], pretrained=False)
    for side in {*config.stage2.student_sizes, *config.stage3.student_sizes, PICTURE}:
        assert student.size_error(side, side) is None


def test_shorter_sizes_shorten_every_stage() -> None:
    full, short = config_of(SIZES["full"]), config_of(SIZES["short"])
    for name in ("stage1", "stage2", "stage3"):
        long, brief = getattr(full, name), getattr(short, name)
        assert brief.steps == round(long.steps * SIZES["short"].shorten)
        assert replace(brief, steps=long.steps, warmup_steps=long.warmup_steps) == long


@pytest.mark.parametrize("preset", SIZES)
def test_direct_student_has_the_same_steps_and_no_proxy(preset: str) -> None:
    full = config_of(SIZES[preset])
    direct = direct_config(full).checked()
    assert direct.proxy is None and direct.stage3.steps == 0
    assert direct.stage2.steps == full.stage2.steps + full.stage3.steps
    assert direct.stage2.batch_size == full.stage2.batch_size == full.stage3.batch_size
    assert direct.stage2.student_sizes == full.stage2.student_sizes
    assert (direct.student, direct.data, direct.seed) == (full.student, full.data, full.seed)
    assert direct.teachers == full.teachers


def test_seed_is_part_of_the_run() -> None:
    assert config_of(TINY, 3).seed == 3
    assert config_of(TINY, 3) != config_of(TINY, 4)


def test_unknown_preset_is_answered_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no preset 'ful'; there are full, short"):
        quickstart(tmp_path / "run", "ful")
    assert not (tmp_path / "run").exists()


# The whole


@pytest.mark.slow
def test_the_whole_quickstart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quickstart_module, "SIZES", {"short": TINY})
    run = tmp_path / "run"
    table = quickstart(run, "short", SEED)

    models = [*EXPERTS, "proxy", "student", "student, direct", "student, untrained"]
    tasks = ["cost", "knn", "segmentation", "depth", "correspondence", "reading", "zero_shot"]
    assert list(table.rows) == models
    assert list(dict.fromkeys(column.task for column in table.columns)) == tasks
    for model, row in table.rows.items():
        speaks = model in ("what", "proxy", "student", "student, direct")  # the others have no way to the words
        for column in table.columns:
            value = row[column.key]
            known = (column.task != "zero_shot" or speaks) and column.metric.name != "PCK@0.1/category"
            assert (value is not None and math.isfinite(value)) if known else value is None, (model, column.key)
    sizes = {model: row["cost/params"] for model, row in table.rows.items()}
    assert sizes["student"] == sizes["student, direct"] == sizes["student, untrained"]
    assert ResultTable.from_json((run / "results.json").read_text()) == table

    report = (run / "report.html").read_text()
    assert all(model in report for model in models)
    assert "data:image/" in report
    trained = steps_by_stage(run)
    stages = {f"expert-{name}": TINY.expert_steps for name in EXPERTS} | {STAGE_1: 3, STAGE_2: 2, STAGE_3: 1}
    assert trained == stages
    assert steps_by_stage(run / "direct") == {STAGE_2: 3}
    card = (run / "student/README.md").read_text()
    assert all(f"experts/{name}" in card for name in EXPERTS) and "apache-2.0" in card

    check_student(run, tmp_path / "elsewhere")

    def refuse(*_: Any) -> None:
        raise AssertionError("a step was trained")

    monkeypatch.setattr(Trainer, "_train_step", refuse)
    weights = {path: path.read_bytes() for path in run.rglob("*.safetensors")}
    assert quickstart(run, "short", SEED).rows == table.rows
    assert {path: path.read_bytes() for path in run.rglob("*.safetensors")} == weights
    with pytest.raises(RunMismatchError, match="seed: 0 -> 1"):
        quickstart(run, "short", SEED + 1)


def steps_by_stage(run: Path) -> dict[str, int]:
    return {line["stage"]: line["step"] for line in read_lines(run / "metrics.jsonl")}


def check_student(run: Path, elsewhere: Path) -> None:
    """It stands for itself, in eyespot and in timm, with equal outputs."""
    shutil.copytree(run / "student", elsewhere)
    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    ours = load_encoder(f"run/{run}")
    plain: nn.Module = timm.create_model(f"local-dir:{elsewhere}", pretrained=True).eval()
    with torch.inference_mode():
        features = ours(images)
        assert torch.equal(load_encoder(f"run/{elsewhere}")(images).patches, features.patches)
        forward: Callable[[Tensor], Tensor] = plain.forward_features
        patches = forward((images - ours.mean) / ours.std)
        assert torch.equal(patches, features.patches)
        assert torch.equal(plain.forward_head(patches, pre_logits=True), features.summary)
