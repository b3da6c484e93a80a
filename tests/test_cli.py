"""The command line: verbs, their answers to mistakes, and the contract that others script against."""

import json
import runpy
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from eupe_tiny import model_bytes, write_pictures, write_teachers
from eyespot import __version__, load_encoder
from eyespot.cli import VERBS, main
from eyespot.engine.metrics import read_lines
from eyespot.engine.trainer import Trainer
from eyespot.evaluate import TASKS
from eyespot.recipes.eupe import STAGE_1, STAGE_2, STAGE_3

TINY = [
    *("--student.model", "timm/test_vit", "--steps", "2"),
    *("--stage1.batch-size", "4", "--stage1.student-sizes", "32", "--stage1.adapter-width", "8"),
    *("--stage2.batch-size", "4", "--stage2.student-sizes", "32", "--stage2.adapter-width", "8"),
    *("--stage3.batch-size", "4", "--stage3.student-sizes", "16", "32", "--stage3.adapter-width", "8"),
    *("--engine.accelerator", "cpu", "--engine.precision", "32-true", "--engine.log-every", "1"),
    *("--engine.no-tensorboard", "--engine.no-progress"),
]
SMALL_PROXY = ["--proxy", "timm/test_vit2", "--stage2.teacher-sizes", "32", "--stage3.teacher-sizes", "32", "48"]


class Answer:
    """What a command printed and how it ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err
        self.words = " ".join((out + err).replace("│", " ").split())


@pytest.fixture
def eyespot(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a command in this process."""
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.delenv("EYESPOT_DEBUG", raising=False)

    def run(*arguments: Any) -> Answer:
        capsys.readouterr()
        code: Any = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code or 0
        return Answer(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    write_pictures(folder / "pictures", 12)
    write_teachers(folder)
    return folder


@pytest.fixture(scope="module")
def command(folder: Path) -> list[str]:
    """The whole recipe with two tiny teachers, without --output."""
    teachers = [f"python/{folder}/teachers.py:{name}" for name in ("what", "where")]
    return ["distill", "eupe", "--teachers", *teachers, "--data", str(folder / "pictures"), *SMALL_PROXY, *TINY]


@pytest.fixture(scope="module")
def run(folder: Path, command: list[str]) -> Path:
    """Its finished run."""
    main([*command, "--output", str(folder / "run")])
    return folder / "run"


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a step was trained")

    monkeypatch.setattr(Trainer, "_train_step", refuse)


def stages_trained(run: Path) -> dict[str, int]:
    return {line["stage"]: line["step"] for line in read_lines(run / "metrics.jsonl")}


def config_of(run: Path) -> dict[str, Any]:
    return yaml.safe_load((run / "config.yaml").read_text())


# The front door


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_usage_names_every_verb_and_every_source_of_models(eyespot: Any, arguments: list[str]) -> None:
    answer = eyespot(*arguments)
    assert answer.code == 0
    assert all(f"eyespot {verb}" in answer.out for verb in VERBS)
    assert all(f"{prefix}/" in answer.out for prefix in ("timm", "onnx", "run", "python"))


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_version(eyespot: Any, flag: str) -> None:
    assert eyespot(flag).out.strip() == __version__


def test_module_is_the_command_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["eyespot", "--version"])
    runpy.run_module("eyespot", run_name="__main__")
    assert capsys.readouterr().out.strip() == __version__


@pytest.mark.parametrize(
    ("verb", "hint"), [("distil", "did you mean 'distill'?"), ("qqq", "there are quickstart, recipes")]
)
def test_unknown_verb_is_answered_with_the_nearest(eyespot: Any, verb: str, hint: str) -> None:
    answer = eyespot(verb, "eupe")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.startswith(f"eyespot: no verb {verb!r}") and hint in answer.err


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(eyespot: Any, verb: str) -> None:
    answer = eyespot(verb, "--help")
    assert answer.code == 0
    assert (VERBS[verb].__doc__ or "").split("\n")[0].split(":")[0] in answer.words


def test_help_of_a_recipe_shows_presets_settings_and_defaults(eyespot: Any) -> None:
    answer = eyespot("distill", "eupe", "--preset", "paper", "--help")
    assert answer.code == 0
    assert "--preset {direct, laptop, no_multires, paper, permissive, quickstart}" in answer.words
    assert "--stage2.steps INT" in answer.words and "(default: 390000)" in answer.words


def test_errors_can_be_seen_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EYESPOT_DEBUG", "1")
    with pytest.raises(ValueError, match="no verb"):
        main(["distil"])


# recipes


def test_recipes_lists_all_with_their_status(eyespot: Any) -> None:
    answer = eyespot("recipes")
    rows = {cells[0].strip(): cells for line in answer.out.splitlines() if len(cells := line.split("│")[1:]) > 4}
    status = {name: cells[3].strip() for name, cells in rows.items() if name}
    assert status.pop("eupe") == "working"
    assert len(status) == 10 and set(status.values()) == {"planned"}
    assert "laptop" in answer.out and "paper" in answer.out


@pytest.mark.parametrize("preset", ["laptop", "paper", "quickstart", "direct", "no_multires"])
def test_recipes_prints_what_config_takes_again(eyespot: Any, tmp_path: Path, preset: str) -> None:
    printed = eyespot("recipes", "eupe", "--preset", preset).out
    file = tmp_path / "mine.yaml"
    file.write_text(printed)
    # Read, then stopped by what is missing, so nothing is trained.
    answer = eyespot("distill", "eupe", "--config", file)
    assert answer.code == 1 and "--output RUN is missing" in answer.err
    assert yaml.safe_load(printed)["stage2"]["betas"] == [0.9, 0.999]  # defaults filled in


def test_recipes_prints_the_laptop_unless_told_otherwise(eyespot: Any) -> None:
    laptop = yaml.safe_load(eyespot("recipes", "eupe").out)
    assert laptop == yaml.safe_load(eyespot("recipes", "eupe", "--preset", "laptop").out)
    paper = yaml.safe_load(eyespot("recipes", "eupe", "--preset", "paper").out)
    assert paper["stage2"]["steps"] == 390_000 != laptop["stage2"]["steps"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("recipes", "sak"), "the recipe 'sak' is planned, not built yet"),
        (("distill", "sak", "--output", "x"), "the recipe 'sak' is planned, not built yet"),
        (("recipes", "epue"), "no recipe 'epue'; did you mean 'eupe'?"),
        (("distill", "epue", "--output", "x"), "no recipe 'epue'; did you mean 'eupe'?"),
        (("recipes", "eupe", "--preset", "papper"), "no preset 'papper'; did you mean 'paper'?"),
        (("distill", "eupe", "--preset", "labtop"), "no preset 'labtop'; did you mean 'laptop'?"),
        (("distill", "eupe", "--preset", "laptop", "drect"), "no preset 'drect'; did you mean 'direct'?"),
        (("distill", "eupe", "--config", "nowhere.yaml"), "nowhere.yaml"),
        (("distill", "eupe", "--teachers", "timm/test_vit"), "--output RUN is missing"),
        (("distill", "eupe", "--output", "x"), "teachers is empty: name the experts to distil, e.g. --teachers"),
    ],
)
def test_what_is_missing_or_unknown_is_named(
    eyespot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = eyespot(*arguments)
    assert (answer.code, answer.out) == (1, "")
    assert message in answer.err and "Traceback" not in answer.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--techers", "timm/test_vit"), "--teachers"),
        (("--stage1.stepz", "3"), "--stage1.steps"),
        (("--data.view.flipp", "0"), "--data.view.flip"),
        (("--stage1.steps", "many"), "Error parsing --stage1.steps: invalid literal for int"),
        (("--stage1.steps", "-3"), "greater than or equal to 0"),
        (("--standardizer", "whiten"), "Expected one of ('channel', 'none', 'ema', 'phi_s')"),
        (("--engine.precision", "fp16"), "Expected one of ('32-true', 'bf16-mixed')"),
        (("--data.weights", "1", "2"), "2 weights for 1 sources; give one per source"),
    ],
)
def test_wrong_flags_and_values_are_answered_with_the_right_ones(
    eyespot: Any, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    answer = eyespot("distill", "eupe", "--teachers", "timm/test_vit", *arguments, "--output", tmp_path / "run")
    assert answer.code == 2
    assert message in answer.words and "Traceback" not in answer.err
    assert not (tmp_path / "run").exists()


def test_config_file_with_faults_lists_them_all(eyespot: Any, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("extends: laptop\nstage1: {stepz: 3, batch_size: 0}\n")
    answer = eyespot("distill", "eupe", "--config", file, "--output", tmp_path / "run")
    assert answer.code == 1
    assert "stage1.stepz: no such setting; did you mean 'steps'?" in answer.err
    assert "stage1.batch_size: Input should be greater than 0 (got 0)" in answer.err


# The contract


def test_distill_trains_every_stage_for_that_many_steps(run: Path, folder: Path) -> None:
    assert stages_trained(run) == {STAGE_1: 2, STAGE_2: 2, STAGE_3: 2}
    config = config_of(run)
    assert config["proxy"] == "timm/test_vit2" and config["data"]["sources"] == [str(folder / "pictures")]
    assert config["data"]["view"]["scale"] == [0.3, 1.0]  # the laptop's, by default
    assert config["stage1"]["warmup_steps"] == 0  # shortened with the steps
    images = torch.rand(2, 3, 32, 32)
    features = load_encoder(f"run/{run}")(images)
    assert torch.equal(load_encoder(f"run/{run}/student")(images).summary, features.summary)


def test_same_command_continues_and_trains_nothing_twice(
    eyespot: Any, run: Path, command: list[str], no_training: None
) -> None:
    before, metrics = model_bytes(run), (run / "metrics.jsonl").read_bytes()
    answer = eyespot(*command, "--output", run)
    assert answer.code == 0
    assert str(run / "student") in answer.out and f'load_encoder("run/{run}")' in answer.out
    assert model_bytes(run) == before and (run / "metrics.jsonl").read_bytes() == metrics


def test_the_runs_own_config_continues_it_too(eyespot: Any, run: Path, no_training: None) -> None:
    assert eyespot("distill", "eupe", "--config", run / "config.yaml", "--output", run).code == 0


def test_another_configuration_is_refused_with_the_difference(eyespot: Any, run: Path, command: list[str]) -> None:
    before = (run / "config.yaml").read_bytes()
    answer = eyespot(*command, "--seed", "1", "--standardizer", "phi_s", "--output", run)
    assert answer.code == 1
    told = [line.strip() for line in answer.err.splitlines()[1:-1]]
    assert sorted(told) == ["seed: 0 -> 1", "standardizer: 'channel' -> 'phi_s'"]
    assert (run / "config.yaml").read_bytes() == before


def test_several_presets_are_laid_over_one_another(eyespot: Any, folder: Path, command: list[str]) -> None:
    at = command.index("--proxy")
    without_proxy = command[:at] + command[at + len(SMALL_PROXY) :]
    answer = eyespot(*without_proxy, "--preset", "laptop", "direct", "--output", folder / "direct")
    assert answer.code == 0
    assert stages_trained(folder / "direct") == {STAGE_2: 2}
    config = config_of(folder / "direct")
    assert config["proxy"] is None and config["stage3"]["steps"] == 0 and config["max_grid"] == 14


def test_a_finished_proxy_is_taken_by_relative_and_absolute_path(
    eyespot: Any, run: Path, folder: Path, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    for place in (f"run/run/{STAGE_1}", f"run/{run}/{STAGE_1}"):
        output = folder / f"from-{'absolute' if '//' in place else 'relative'}"
        assert eyespot(*command, "--proxy", place, "--output", output).code == 0
        assert stages_trained(output) == {STAGE_2: 2, STAGE_3: 2}
        assert (output / "student/model.safetensors").read_bytes() == (run / "student/model.safetensors").read_bytes()


def test_onnx_and_python_teachers_by_relative_and_absolute_path(
    eyespot: Any, folder: Path, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_onnx(folder / "expert.onnx")
    monkeypatch.chdir(folder)
    specs = ["onnx/expert.onnx", f"onnx/{folder}/expert.onnx", "python/teachers.py:what"]
    short = ["--preset", "laptop", "direct", "--proxy", "none", "--stage2.teacher-sizes", "32"]
    answer = eyespot(*command, *short, "--teachers", *specs, "--data", "pictures", "--output", "relative")
    assert answer.code == 0, answer.err
    terms = read_lines(folder / "relative/metrics.jsonl")[0].keys()
    assert {"expert/patch", "expert-2/patch", "what/patch"} < terms
    assert config_of(folder / "relative")["teachers"] == specs


def write_onnx(file: Path) -> None:
    """An expert of the contract: one convolution with stride 8, native size 32."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    kernel = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0)).numpy()
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Conv", ["images", "kernel"], ["patches"], strides=[8, 8]),
            onnx.helper.make_node("ReduceMean", ["patches", "axes"], ["summary"], keepdims=0),
        ],
        "expert",
        [onnx.helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["batch", 3, 32, 32])],
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ("summary", "patches")],
        [
            onnx.numpy_helper.from_array(kernel, "kernel"),
            onnx.numpy_helper.from_array(torch.tensor([2, 3]).numpy(), "axes"),
        ],
    )
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9), file)


@pytest.mark.parametrize(
    ("flags", "path", "value"),
    [
        (["--standardizer", "none"], "standardizer", "none"),
        (["--standardizer=none"], "standardizer", "none"),
        (["--stage1.clip-norm", "none"], "stage1.clip_norm", None),
        (["--stage1.clip-norm=null"], "stage1.clip_norm", None),
        (["--proxy=null"], "proxy", None),
        (["--permissive-only"], "permissive_only", True),
        (["--preset", "laptop", "permissive", "--no-permissive-only"], "permissive_only", False),
        (["--data=a"], "data.sources", ["a"]),
        (["--data", "a", "b"], "data.sources", ["a", "b"]),
        (["--data.sources", "a", "b"], "data.sources", ["a", "b"]),
        (["--stage3.student-sizes", "16", "48"], "stage3.student_sizes", (16, 48)),
        (["--teachers", "onnx/a.onnx?mean=0.5,0.5,0.5&size=32"], "teachers", ["onnx/a.onnx?mean=0.5,0.5,0.5&size=32"]),
    ],
)
def test_flags_become_settings(
    eyespot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], path: str, value: Any
) -> None:
    given: list[Any] = []
    monkeypatch.setattr("eyespot.recipes.eupe.distill", lambda config, output: given.append(config) or output)
    answer = eyespot("distill", "eupe", "--teachers", "timm/test_vit", *flags, "--output", tmp_path)
    assert answer.code == 0, answer.err
    assert follow(given[0], path.split(".")) == value


def follow(config: Any, names: Iterable[str]) -> Any:
    for name in names:
        config = getattr(config, name)
    return config


# Looking and measuring


def test_visualize_writes_a_picture(eyespot: Any, run: Path, folder: Path, tmp_path: Path) -> None:
    pictures = [folder / "pictures/00.jpg", folder / "pictures/01.png"]
    answer = eyespot("visualize", f"run/{run}", *pictures, "--output", tmp_path / "seen.png", "--size", "64")
    assert answer.code == 0 and "seen.png" in answer.out
    with Image.open(tmp_path / "seen.png") as sheet:
        assert sheet.format == "PNG" and min(sheet.size) > 100


def test_visualize_puts_several_models_side_by_side(eyespot: Any, run: Path, folder: Path, tmp_path: Path) -> None:
    widths = []
    for name, more in (("one", []), ("two", ["--models", f"run/{run}/{STAGE_1}"])):
        file = tmp_path / f"{name}.png"
        eyespot("visualize", f"run/{run}", folder / "pictures/00.jpg", *more, "--output", file, "--size", "32")
        with Image.open(file) as sheet:
            widths.append(sheet.width)
    assert widths[1] > widths[0]


@pytest.mark.parametrize(
    ("picture", "output", "message"),
    [("nowhere.jpg", "seen.png", "nowhere.jpg"), ("pictures/00.jpg", "seen.jpg", "should end in .png")],
)
def test_visualize_refuses(eyespot: Any, run: Path, folder: Path, picture: str, output: str, message: str) -> None:
    answer = eyespot("visualize", f"run/{run}", folder / picture, "--output", folder / output, "--size", "32")
    assert answer.code == 1 and message in answer.err
    assert not (folder / output).exists()


def test_evaluate_prints_a_table_and_writes_three_files(eyespot: Any, run: Path, tmp_path: Path) -> None:
    models = [f"run/{run}", "timm/test_vit?pretrained=false"]
    arguments = ["--tasks", "knn", "--data", "toybox:20@32", "--size", "32", "--output", tmp_path / "results"]
    answer = eyespot("evaluate", *models, *arguments)
    assert answer.code == 0
    assert "knn" in answer.out and all(model in answer.out for model in models)
    results = json.loads((tmp_path / "results/results.json").read_text())
    assert list(results["rows"]) == models
    assert all(0 <= row["knn/accuracy"] <= 1 for row in results["rows"].values())
    assert results["settings"]["data"] == {"knn": "toybox:20@32"}
    assert len((tmp_path / "results/results.csv").read_text().splitlines()) == 3
    assert len((tmp_path / "results/results.md").read_text().splitlines()) == 4


def test_evaluate_takes_a_folder_for_each_task(eyespot: Any, tmp_path: Path) -> None:
    for split in ("train", "val"):
        for name, colour in (("red", (250, 10, 10)), ("blue", (10, 10, 250))):
            place = tmp_path / "colours" / split / name
            place.mkdir(parents=True)
            for number in range(4):
                Image.new("RGB", (32, 32), tuple(value - number for value in colour)).save(place / f"{number}.png")
    model = "timm/test_vit?pretrained=false"
    answer = eyespot("evaluate", model, "--data", f"knn={tmp_path / 'colours'}", "--size", "32", "--output", tmp_path)
    assert answer.code == 0, answer.err
    row = json.loads((tmp_path / "results.json").read_text())["rows"][model]
    assert {key.partition("/")[0] for key in row} == {"cost", "knn"}  # only the task that has data


def test_help_names_every_task(eyespot: Any) -> None:
    words = eyespot("evaluate", "--help").out.replace("│", " ").replace(",", " ").replace(".", " ").split()
    assert set(TASKS) <= set(words)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tasks", "kn"], "no task 'kn'; did you mean 'knn'?"),
        (["--data", "toybox:20@32", "knn=x"], "data takes one source for all tasks, or TASK=FOLDER for each"),
        (["--data", "somewhere"], "give each task its own folder"),
        (["--data", "knn=nowhere"], "nowhere"),
    ],
)
def test_evaluate_refuses(eyespot: Any, arguments: list[str], message: str) -> None:
    answer = eyespot("evaluate", "timm/test_vit?pretrained=false", *arguments)
    assert answer.code == 1 and message in answer.err


def test_report_shows_runs_and_evaluations_on_one_page(eyespot: Any, run: Path, folder: Path, tmp_path: Path) -> None:
    measured = ["--tasks", "knn", "--data", "toybox:20@32", "--size", "32", "--output", tmp_path / "measured"]
    assert eyespot("evaluate", f"run/{run}", "timm/test_vit?pretrained=false", *measured).code == 0
    page = tmp_path / "report.html"
    seen = ["--pictures", folder / "pictures/00.jpg", folder / "pictures/01.png", "--size", "32"]
    answer = eyespot("report", run, tmp_path / "measured", "--output", page, *seen)
    assert answer.code == 0, answer.err
    assert str(page) in answer.out
    text = page.read_text()
    assert all(f'id="{section}"' in text for section in ("results", "figures", "training", "licences", "config"))


def test_report_refuses_what_is_neither(eyespot: Any, tmp_path: Path) -> None:
    answer = eyespot("report", tmp_path, "--output", tmp_path / "report.html")
    assert answer.code == 1 and "neither a training run" in answer.err and "eyespot evaluate --output" in answer.err
    assert list(tmp_path.iterdir()) == []


def test_push_hands_its_arguments_on_and_says_where_the_student_is(
    eyespot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []

    def upload(*arguments: Any, say: Any, **options: Any) -> str:
        given.append((arguments, options))
        say("me/tiny is public.")
        return "https://hub/me/tiny"

    monkeypatch.setattr("eyespot.deploy.push", upload)
    answer = eyespot("push", tmp_path, "me/tiny", "--private", "--revision", "trial", "--message", "First")
    assert given == [((tmp_path, "me/tiny"), {"private": True, "revision": "trial", "message": "First"})]
    assert answer.out.splitlines() == ["me/tiny is public.", "The student is at https://hub/me/tiny"]


def test_push_refuses_what_is_no_run_and_names_the_way_to_a_token(
    eyespot: Any, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eyespot.deploy.hub.get_token", lambda: None)
    for place, message in ((tmp_path, "has the run finished?"), (run, "hf auth login")):
        answer = eyespot("push", place, "me/tiny")
        assert answer.code == 1 and message in answer.err and "Traceback" not in answer.err


def test_permissive_only_refuses_from_the_command_line(eyespot: Any, folder: Path, command: list[str]) -> None:
    answer = eyespot(*command, "--permissive-only", "--output", folder / "permissive")
    assert answer.code == 1 and "teachers.py:where: non-commercial (cc-by-nc-4.0)" in answer.err
    assert not (folder / "permissive").exists()


def test_toybox_writes_a_sheet(eyespot: Any, tmp_path: Path) -> None:
    answer = eyespot("toybox", "--count", "3", "--size", "32", "--first", "5", "--output", tmp_path / "scenes.png")
    assert answer.code == 0 and "scenes.png" in answer.out
    with Image.open(tmp_path / "scenes.png") as sheet:
        assert sheet.format == "PNG" and sheet.width >= 3 * 32


def test_quickstart_hands_its_arguments_on(eyespot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    class Table:
        def print(self) -> None:
            print("the table")

    monkeypatch.setattr("eyespot.quickstart.quickstart", lambda *arguments: given.append(arguments) or Table())
    answer = eyespot("quickstart", "--preset", "short", "--output", tmp_path / "quick")
    assert given == [(tmp_path / "quick", "short")]
    assert "the table" in answer.out and str(tmp_path / "quick/report.html") in answer.out
    assert eyespot("quickstart", "--preset", "shorter").code == 2 and len(given) == 1
