"""The recipe sak: all forms side by side, what comes out, resuming, a teacher that joins later, presets."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file

from eyespot.config import build, merged
from eyespot.data.sets import open_multitask
from eyespot.encoders import load_encoder, save_encoder
from eyespot.encoders.multitask import MultiTaskEncoder
from eyespot.engine.metrics import read_lines
from eyespot.engine.run import RunMismatchError
from eyespot.recipes import RECIPES
from eyespot.recipes.presets import preset_names, read_settings
from eyespot.recipes.sak import SakConfig, distill
from eyespot.recipes.sak import recipe as sak
from eyespot.recipes.sak.config import FORMS
from eyespot.recipes.sak.recipe import STAGE_1, STAGE_2
from tiny_engine import TINY_ENGINE

STEM = "timm/vit_tiny_patch16_224?embed_dim=24&depth=4&num_heads=2&img_size=32"
NAMES = ("test_vit", "test_resnet")
NEWCOMER = "test_convnext"
TASKS = ("segmentation", "boundary", "depth")
LABELLED = f"toybox:6@48?tasks={'+'.join(TASKS)}"


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of three teachers."""
    folder = tmp_path_factory.mktemp("experts")
    for name in (*NAMES, NEWCOMER):
        save_encoder(load_encoder(f"timm/{name}?pretrained=false"), folder / name)
    return folder


def tiny(experts: Path, **changes: Any) -> SakConfig:
    stage = {"steps": 4, "batch_size": 2, "learning_rate": 1e-3, "warmup_steps": 1}
    settings: dict[str, Any] = {
        "teachers": [f"run/{experts / name}" for name in NAMES],
        "data": {"sources": ["toybox:8@48"]},
        "labelled": {"source": LABELLED, "view": {"size": [32, 48]}},
        "student": {"model": STEM},
        "stage1": {**stage, "student_size": 32},
        "stage2": {**stage, "schedule": "polynomial"},
        "engine": TINY_ENGINE,
    }
    return build(SakConfig, merged(settings, changes), "tiny")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, experts: Path) -> Path:
    """A run of SAK alone."""
    folder = tmp_path_factory.mktemp("sak") / "run"
    assert distill(tiny(experts), folder) == folder / "student"
    return folder


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory, experts: Path) -> Path:
    """A run of all forms."""
    folder = tmp_path_factory.mktemp("compared") / "run"
    assert distill(tiny(experts, student={"form": list(FORMS)}), folder) == folder / "students"
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def model_of(folder: Path) -> MultiTaskEncoder:
    model = load_encoder(f"run/{folder}")
    assert isinstance(model, MultiTaskEncoder)
    return model


def images() -> torch.Tensor:
    return torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))


def test_folder_holds_what_the_design_says(made: Path) -> None:
    for name in ("config.yaml", "report.html", "results.json", f"{STAGE_1}/model/config.json"):
        assert (made / name).is_file(), name
    lines = read_lines(made / "metrics.jsonl")
    first, second = ([line for line in lines if line["stage"] == stage] for stage in (STAGE_1, STAGE_2))
    assert [line["step"] for line in first] == [line["step"] for line in second] == [1, 2, 3, 4]
    # both teachers have inner layers, so each teaches all four levels, in both stages
    taught = {f"{name}/level-{level}" for name in NAMES for level in range(4)}
    assert taught <= set(first[0]) and not any(key.startswith("task/") for key in first[0])
    assert taught | {f"task/{task}" for task in TASKS} <= set(second[0])
    row = json.loads((made / "results.json").read_text())["rows"]["student"]
    assert {"multitask/segmentation mIoU", "multitask/boundary odsF", "multitask/depth RMSE"} <= set(row)


def test_student_answers_all_tasks_without_teachers_and_aligners(made: Path) -> None:
    model = model_of(made)
    assert model.path_names == NAMES and tuple(model.tasks) == TASKS and model.router == "mor"
    answers = model.predict(images())
    assert {task: answer.shape[1] for task, answer in answers.items()} == {
        name: task.channels for name, task in model.tasks.items()
    }
    assert all(answer.shape[2:] == (32, 48) and answer.isfinite().all() for answer in answers.values())
    assert not any("align" in name or "committee" in name for name in weights(made / "student"))
    assert any(name.startswith("aligners.test_vit.0") for name in load_file(made / "student/adapters.safetensors"))
    assert {Path(entry["name"]).name for entry in model.lineage} == set(NAMES)


def test_second_stage_starts_from_the_first(made: Path) -> None:
    before, after = model_of(made / STAGE_1), model_of(made)
    assert not before.tasks and before.path_names == NAMES
    shared = before.state_dict()
    moved = {name for name in shared if not torch.equal(shared[name], after.state_dict()[name])}
    assert moved and all((shared[name] - after.state_dict()[name]).abs().max() < 0.05 for name in moved)


def test_lost_stage_and_interrupted_run_are_made_again_bit_for_bit(made: Path, experts: Path, tmp_path: Path) -> None:
    copied = tmp_path / "run"
    shutil.copytree(made, copied)
    for place in (f"{STAGE_2}/model", "student"):
        shutil.rmtree(copied / place)
    shutil.rmtree(sorted((copied / STAGE_2 / "checkpoints").iterdir())[-1])  # it goes on in the middle
    distill(tiny(experts), copied)
    again, first = weights(copied / "student"), weights(made / "student")
    assert again.keys() == first.keys() and all(torch.equal(again[name], first[name]) for name in first)


def test_another_configuration_is_refused(made: Path, experts: Path) -> None:
    with pytest.raises(RunMismatchError, match=r"alpha: 1\.0 -> 0\.5"):
        distill(tiny(experts, alpha=0.5), made)


@pytest.mark.slow
def test_all_forms_side_by_side(compared: Path) -> None:
    names = {path.name for path in (compared / "students").iterdir()}
    single = {f"single_task-{task}" for task in TASKS}
    assert names == {"sak", "no_router", "many_to_one", "multi_task", *single}
    models = {name: model_of(compared / "students" / name) for name in names}
    assert models["sak"].path_names == models["no_router"].path_names == NAMES
    assert models["no_router"].router == "sum" and not list(models["no_router"].routers)
    assert all(not models[name].path_names for name in names - {"sak", "no_router"})
    assert all(tuple(models[name].tasks) == (name.removeprefix("single_task-"),) for name in single)
    assert not models["multi_task"].lineage and models["many_to_one"].lineage
    # stage 1 is there for those that teachers teach
    assert {path.name for path in (compared / STAGE_1).iterdir() if (path / "model").is_dir()} == {"paths", "shared"}


def test_delta_m_is_against_the_single_task_models(compared: Path) -> None:
    rows = json.loads((compared / "results.json").read_text())["rows"]
    assert all(rows[f"single_task-{task}"]["multitask/Delta_m"] is None for task in TASKS)
    keys = ("segmentation mIoU", "boundary odsF", "depth RMSE")
    single = {key: rows[f"single_task-{key.partition(' ')[0]}"][f"multitask/{key}"] for key in keys}
    if not all(single.values()):
        assert rows["sak"]["multitask/Delta_m"] is None
        return
    gains = [(rows["sak"][f"multitask/{key}"] - base) / base for key, base in single.items()]
    expected = 100 * (gains[0] + gains[1] - gains[2]) / 3
    assert rows["sak"]["multitask/Delta_m"] == pytest.approx(expected)


def test_side_by_side_is_as_good_as_alone(made: Path, compared: Path) -> None:
    alone, together = weights(made / "student"), weights(compared / "students/sak")
    assert alone.keys() == together.keys()
    assert all(torch.equal(alone[name], together[name]) for name in alone)


def test_a_teacher_joins_later_and_nothing_else_changes(made: Path, experts: Path, tmp_path: Path) -> None:
    teachers = [f"run/{experts / name}" for name in (*NAMES, NEWCOMER)]
    changes = {"teachers": teachers, "student": {"start": f"run/{made}"}, "stage2": {"steps": 0}}
    distill(tiny(experts, **changes), tmp_path / "run")
    before, after = model_of(made), model_of(tmp_path / "run")
    assert after.path_names == (*NAMES, NEWCOMER)
    old = before.state_dict()
    same = {name for name in old if old[name].shape == after.state_dict()[name].shape}
    assert all(torch.equal(old[name], after.state_dict()[name]) for name in same)
    assert {name.split(".")[0] for name in old.keys() - same} == {"routers"}  # one more expert
    # the newcomer learnt, but hardly counts yet
    first, last = (line for line in read_lines(tmp_path / "run/metrics.jsonl") if line["step"] in (1, 4))
    assert all(key.startswith(f"{NEWCOMER}/") for key in last if "/level-" in key)
    assert last["loss"] < first["loss"]
    after.active = NAMES
    torch.testing.assert_close(after.predict(images()), before.predict(images()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teachers": []}, "teachers is empty"),
        ({"student": {"form": []}}, "student.form is empty"),
        ({"student": {"form": ["sak", "multi_task"], "start": "run/x"}}, "continues one model with paths"),
        ({"stage1": {"steps": 0}, "stage2": {"steps": 0}}, "nothing would be trained"),
        ({"student": {"model": "timm/test_resnet"}}, "no plain vision transformer"),
    ],
)
def test_what_cannot_be_run_is_refused(changes: dict[str, Any], message: str, experts: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        distill(tiny(experts, **changes), tmp_path / "run")


def test_validation_pictures_are_opened_before_the_training(
    experts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are looked at when all is trained."""

    def opened(source: str, split: Any) -> Any:
        if split == "val":
            raise FileNotFoundError(f"{source} has no val")
        return open_multitask(source, split)

    monkeypatch.setattr(sak, "open_multitask", opened)
    with pytest.raises(FileNotFoundError, match="has no val"):
        distill(tiny(experts), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_started_run_needs_all_its_teachers(made: Path, experts: Path, tmp_path: Path) -> None:
    config = tiny(experts, teachers=[f"run/{experts / NAMES[0]}"], student={"start": f"run/{made}"})
    with pytest.raises(ValueError, match="has a path for test_resnet"):
        distill(config, tmp_path / "run")


# Presets


@pytest.mark.parametrize("preset", preset_names("sak"))
def test_presets_are_whole_configurations(preset: str) -> None:
    config = build(RECIPES["sak"].config_class, read_settings("sak", [preset]), preset)
    assert config.stage1.warmup_steps < config.stage1.steps and config.stage2.steps > 0
    assert timm.is_model(config.student.model.removeprefix("timm/").partition("?")[0])
    for spec in config.teachers:
        assert timm.is_model_pretrained(spec.removeprefix("timm/")), spec


def test_presets_of_the_paper() -> None:
    """Section (c) of the paper notes."""
    base = build(SakConfig, read_settings("sak", ["vit_base"]), "vit_base")
    first, second = base.stage1, base.stage2
    assert first.steps == 30 * (1_281_167 // 128) and first.warmup_steps == 2 * (1_281_167 // 128)
    assert (first.learning_rate, first.final_learning_rate, first.weight_decay) == (1e-3, 1e-5, 0.01)
    assert (second.steps, second.batch_size, second.learning_rate) == (40_000, 4, 2e-5)
    assert (second.schedule, second.power, second.clip_norm, second.weight_decay) == ("polynomial", 0.9, 10.0, 1e-6)
    assert base.labelled.view.size == (448, 576) and base.alpha == 1 and base.inputs == "as_published"
    other = build(SakConfig, read_settings("sak", ["vit_large", "pascal_context"]), "large")
    assert other.labelled.view.size == (512, 512) and "large" in other.student.model
