"""The recipes for classifiers: one test case for all three, then what is special to each."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file

from eyespot.config import ConfigError, build, merged
from eyespot.encoders import load_classifier
from eyespot.engine.metrics import read_lines
from eyespot.engine.run import RunMismatchError
from eyespot.recipes import RECIPES
from eyespot.recipes.presets import preset_names, read_settings
from eyespot.runs.classifiers import STAGE
from tiny_engine import TINY_ENGINE

KINDS = ("cross", "disc", "stripes")
TEACHER = "timm/test_resnet?pretrained=false"
STUDENTS = {
    "vanilla_kd": ("timm/test_resnet", "kd"),
    "ofa_kd": ("timm/test_vit", "ofa"),
    "ghostnet_v3": ("timm/test_efficientnet?branches=2", "kd"),
}
RECIPE_NAMES = tuple(STUDENTS)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures of three classes to learn from, and six to be measured on."""
    folder = tmp_path_factory.mktemp("pictures")
    draws = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for kind in KINDS:
            (folder / split / kind).mkdir(parents=True)
            for number in range(count):
                pixels = draws.integers(0, 256, (40, 48, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / kind / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> str:
    """A classifier that was learnt from the labels alone."""
    output = tmp_path_factory.mktemp("teacher") / "run"
    config = tiny("vanilla_kd", pictures, None, student={"model": [TEACHER], "method": ["none"]})
    RECIPES["vanilla_kd"].distill(config, output)
    return f"run/{output}"


def tiny(recipe: str, pictures: Path, teacher: str | None, **changes: Any) -> Any:
    model, method = STUDENTS[recipe]
    settings: dict[str, Any] = {
        "teacher": teacher,
        "data": {"sources": [str(pictures / "train")], "seed": 1},
        "test": str(pictures),
        "student": {"model": [model], "method": [method]},
        "training": {"steps": 4, "batch_size": 4, "learning_rate": 1e-3, "warmup_steps": 1},
        "student_size": 32,
        "teacher_size": 32,
        "engine": TINY_ENGINE,
    }
    return build(RECIPES[recipe].config_class, merged(settings, changes), recipe)


@pytest.fixture(scope="module", params=RECIPE_NAMES)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, pictures: Path, teacher: str) -> Any:
    """(name, configuration, run folder) of a finished run of each recipe."""
    recipe = request.param
    folder = tmp_path_factory.mktemp(recipe) / "run"
    config = tiny(recipe, pictures, teacher)
    RECIPES[recipe].distill(config, folder)
    return recipe, config, folder


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "student/model.safetensors")


def images() -> torch.Tensor:
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_folder_holds_what_the_design_says(made: Any) -> None:
    _, config, run = made
    for name in ("config.yaml", "metrics.jsonl", "report.html", "results.json", f"{STAGE}/model/model.safetensors"):
        assert (run / name).is_file(), name
    assert {path.name for path in (run / "student").iterdir()} == {"model.safetensors", "config.json", "README.md"}
    lines = read_lines(run / "metrics.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert {"loss", "label", "grad_norm", "lr", config.student.method[0].replace("ofa", "kd")} <= set(lines[0])
    rows = json.loads((run / "results.json").read_text())["rows"]
    assert set(rows) == {"teacher", "student"} and 0 <= rows["student"]["classification/top1"] <= 1


def test_student_classifies_with_the_names_of_its_classes(made: Any) -> None:
    _, _, run = made
    student = load_classifier(f"run/{run}")
    assert student.class_names == list(KINDS) and student.num_classes == 3
    logits = student(images()).logits
    assert logits is not None and logits.shape == (2, 3) and logits.isfinite().all()
    facts = json.loads((run / "student/config.json").read_text())
    assert [entry["name"].rpartition("/")[2] for entry in facts["eyespot"]["teachers"]]


def test_card_says_what_the_classes_are(made: Any) -> None:
    card = (made[2] / "student/README.md").read_text()
    assert "| classes | 3: cross, disc, stripes |" in card and "features.logits" in card
    assert "pipeline_tag: image-classification" in card


def test_lost_stage_and_interrupted_run_are_made_again_bit_for_bit(made: Any, tmp_path: Path) -> None:
    recipe, config, run = made
    copied = tmp_path / "run"
    shutil.copytree(run, copied)
    for place in (STAGE + "/model", "student"):
        shutil.rmtree(copied / place)
    checkpoints = sorted((copied / STAGE / "checkpoints").iterdir())
    assert len(checkpoints) == 2
    shutil.rmtree(checkpoints[-1])  # it goes on in the middle
    RECIPES[recipe].distill(config, copied)
    again, first = weights(copied), weights(run)
    assert again.keys() == first.keys()
    assert all(torch.equal(again[name], first[name]) for name in first)


def test_another_configuration_is_refused(made: Any, pictures: Path, teacher: str) -> None:
    recipe, _, run = made
    with pytest.raises(RunMismatchError, match=r"mix\.mixup: 0\.0 -> 0\.5"):
        RECIPES[recipe].distill(tiny(recipe, pictures, teacher, mix={"mixup": 0.5}), run)


def test_ghostnet_is_saved_in_the_form_that_runs(made: Any) -> None:
    recipe, _, run = made
    if recipe != "ghostnet_v3":
        pytest.skip("of GhostNetV3 alone")
    trained, runs = load_classifier(f"run/{run / STAGE}"), load_classifier(f"run/{run}")
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in trained.modules())
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in runs.modules())
    assert sum(p.numel() for p in runs.parameters()) < sum(p.numel() for p in trained.parameters())
    torch.testing.assert_close(runs(images()).logits, trained(images()).logits, rtol=1e-4, atol=1e-5)


def test_plain_students_load_in_timm_with_their_classifier(made: Any, tmp_path: Path) -> None:
    recipe, _, run = made
    if recipe == "ghostnet_v3":
        pytest.skip("timm does not know the fused form")
    ours, plain = load_classifier(f"run/{run}"), timm.create_model(f"local-dir:{run / 'student'}", pretrained=True)
    normalised = (images() - ours.mean) / ours.std
    torch.testing.assert_close(plain.eval()(normalised), ours(images()).logits, rtol=0, atol=0)


@pytest.mark.slow
def test_several_models_and_methods_become_what_each_becomes_alone(
    pictures: Path, teacher: str, tmp_path: Path
) -> None:
    recipe = RECIPES["ofa_kd"]
    student = {"model": ["timm/test_vit", "timm/test_resnet"], "method": ["kd", "ofa"]}
    folder = recipe.distill(tiny("ofa_kd", pictures, teacher, student=student), tmp_path / "run")
    assert {path.name for path in folder.iterdir()} == {
        f"{model}-{method}" for model in ("test_vit", "test_resnet") for method in ("kd", "ofa")
    }
    alone = recipe.distill(tiny("ofa_kd", pictures, teacher), tmp_path / "alone")
    ours, own = (load_file(place / "model.safetensors") for place in (folder / "test_vit-ofa", alone))
    assert all(torch.equal(ours[name], own[name]) for name in own)


def test_pictures_without_labels_and_a_teacher_without_names(pictures: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for file in (pictures / "train").rglob("*.png"):
        shutil.copy(file, flat / f"{file.parent.name}-{file.name}")
    config = tiny(
        "vanilla_kd",
        pictures,
        f"{TEACHER}&num_classes=7",
        data={"sources": [str(flat)]},
        label={"weight": 0},
        test=None,
    )
    RECIPES["vanilla_kd"].distill(config, tmp_path / "run")
    assert load_classifier(f"run/{tmp_path / 'run'}").num_classes == 7
    assert "label" not in read_lines(tmp_path / "run/metrics.jsonl")[0]
    with pytest.raises(ValueError, match=r"has no labels.*label\.weight to 0"):
        RECIPES["vanilla_kd"].distill(
            tiny("vanilla_kd", pictures, f"{TEACHER}&num_classes=7", data={"sources": [str(flat)]}), tmp_path / "other"
        )


def test_labels_are_found_by_name_in_the_teachers_order(pictures: Path, teacher: str, tmp_path: Path) -> None:
    two = tmp_path / "two"
    for kind in ("disc", "stripes"):
        shutil.copytree(pictures / "train" / kind, two / kind)
    config = tiny("vanilla_kd", pictures, teacher, data={"sources": [str(two)]})
    RECIPES["vanilla_kd"].distill(config, tmp_path / "run")
    assert load_classifier(f"run/{tmp_path / 'run'}").class_names == list(KINDS)


def test_a_method_on_features_asks_for_no_head_of_the_teacher(pictures: Path, tmp_path: Path) -> None:
    config = tiny("vanilla_kd", pictures, TEACHER, student={"model": ["timm/test_resnet"], "method": ["rkd"]})
    RECIPES["vanilla_kd"].distill(config, tmp_path / "run")
    assert load_classifier(f"run/{tmp_path / 'run'}").num_classes == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher": None}, "there is no teacher"),
        ({"student": {"method": ["kdd"]}}, "did you mean 'kd'"),
        ({"student": {"method": ["none"]}, "label": {"weight": 0}}, "learns from labels, but label.weight is 0"),
        ({"training": {"steps": 0, "warmup_steps": 0}}, "nothing would be trained"),
        ({"student": {"model": []}}, "at least one each"),
        ({"student": {"model": ["onnx/file.onnx"]}}, "an ONNX file can teach but not be trained"),
    ],
)
def test_what_cannot_be_run_is_refused(
    changes: dict[str, Any], message: str, pictures: Path, teacher: str, tmp_path: Path
) -> None:
    config = tiny("vanilla_kd", pictures, **{"teacher": teacher, **changes})
    with pytest.raises(ValueError, match=message):
        RECIPES["vanilla_kd"].distill(config, tmp_path / "run")


@pytest.mark.parametrize(
    ("test", "message"), [("others", "not horse, tree"), ("nowhere", "nowhere/test"), ("two", r"have 2 classes")]
)
def test_other_classes_of_the_test_are_refused_before_the_training(
    test: str, message: str, pictures: Path, teacher: str, tmp_path: Path
) -> None:
    """At the end of a training of days it would be too late."""
    places = {"others": tmp_path / "others", "nowhere": Path("nowhere/test"), "two": tmp_path / "two"}
    for split in ("train", "val"):
        shutil.copytree(pictures / split, tmp_path / "others" / split)
        for name in ("horse", "tree"):
            shutil.copytree(pictures / split / KINDS[0], tmp_path / "others" / split / name)
            shutil.copytree(pictures / split / KINDS[0], tmp_path / "two" / split / name)
    from_labels: dict[str, Any] = {"student": {"method": ["none"]}, "num_classes": 5} if test == "two" else {}
    config = tiny("vanilla_kd", pictures, None if from_labels else teacher, test=str(places[test]), **from_labels)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        RECIPES["vanilla_kd"].distill(config, tmp_path / "run")
    assert not (tmp_path / "run" / "config.yaml").exists()


# Presets


@pytest.mark.parametrize(("recipe", "preset"), [(name, one) for name in RECIPE_NAMES for one in preset_names(name)])
def test_presets_are_whole_configurations(recipe: str, preset: str) -> None:
    config = build(RECIPES[recipe].config_class, read_settings(recipe, [preset]), preset)
    assert config.training.warmup_steps < config.training.steps
    if config.teacher is not None:
        config.checked()
    for spec in config.student.model:
        architecture = spec.removeprefix("timm/").partition("?")[0]
        assert timm.is_model(architecture), spec
    if config.teacher and config.teacher.startswith("timm/"):
        assert timm.is_model_pretrained(config.teacher.removeprefix("timm/")), config.teacher


PARAMETERS = {
    # VanillaKD (h): with the classifier of ImageNet-1k
    "resnet50": 25_557_032,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet152": 60_192_808,
    "vit_tiny_patch16_224": 5_717_416,
    "vit_small_patch16_224": 22_050_664,
    "convnextv2_tiny": 28_635_496,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_students_of_the_paper_have_its_parameters(name: str) -> None:
    with torch.device("meta"):
        student = timm.create_model(name, num_classes=1000)
    assert sum(weight.numel() for weight in student.parameters()) == PARAMETERS[name]


def test_strategies_a1_and_a2_differ_in_four_numbers() -> None:
    """VanillaKD (c): epochs, weight decay, smoothing, mixup."""
    first, second = (read_settings("vanilla_kd", [name]) for name in ("a1", "a2"))
    ours = {
        "epochs": [settings["training"]["steps"] / 625 for settings in (first, second)],
        "weight decay": [settings["training"]["weight_decay"] for settings in (first, second)],
        "smoothing": [settings["mix"].get("label_smoothing", 0) for settings in (first, second)],
        "mixup": [settings["mix"]["mixup"] for settings in (first, second)],
    }
    published = {"epochs": [600, 300], "weight decay": [0.01, 0.02], "smoothing": [0.1, 0], "mixup": [0.2, 0.1]}
    assert ours == published
    for settings in (first, second):
        settings["training"] = {**settings["training"], "steps": 0, "weight_decay": 0}
        settings["mix"] = {}
    assert first == second


def test_misspelt_settings_are_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'mixup'"):
        build(
            RECIPES["vanilla_kd"].config_class,
            merged(read_settings("vanilla_kd", ["laptop"]), {"mix": {"mixpu": 1}}),
            "x",
        )


def test_plans_and_caches_say_what_they_are_for() -> None:
    with pytest.raises(ValueError, match="know recipes that distil features"):
        _ = RECIPES["vanilla_kd"].outline


def test_every_recipe_is_its_method_without_a_preset() -> None:
    """Built in Python from what must be given, each minimises its paper's terms."""
    given = {"teacher": "onnx/expert.onnx", "data": {}, "training": {"steps": 1, "batch_size": 1, "learning_rate": 1.0}}
    loss = {"vanilla_kd": ("kd", "bce"), "ofa_kd": ("ofa", "ce"), "ghostnet_v3": ("kd", "ce")}
    for name, (method, label) in loss.items():
        config = build(RECIPES[name].config_class, {**given, "student": {"model": "timm/test_vit"}}, name)
        assert (config.student.method, config.label.loss, config.label.weight) == ([method], label, 1.0)
        assert (config.method.weight, config.method.temperature, config.method.ofa_stage_weight) == (1.0, 1.0, 1.0)
