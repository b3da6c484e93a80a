"""The EUPE recipe: stages chained, left out when their result is given, and what a run leaves behind."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from huggingface_hub import ModelCard
from pydantic import TypeAdapter, ValidationError
from safetensors.torch import load_file
from torch import Tensor

from eupe_tiny import all_stages, model_bytes, settings, tiny_config, weights
from eyespot import load_encoder
from eyespot.config import as_plain
from eyespot.distill.warm_start import new_encoder
from eyespot.encoders import save_encoder
from eyespot.encoders.licenses import Terms
from eyespot.engine.metrics import read_lines
from eyespot.engine.run import RunMismatchError
from eyespot.engine.trainer import Trainer
from eyespot.recipes.eupe import EupeConfig, distill
from eyespot.recipes.eupe.config import STAGE_1, STAGE_2, STAGE_3


@pytest.fixture(scope="module")
def folder(eupe_folder: Path) -> Path:
    return eupe_folder


@pytest.fixture(scope="module")
def run(eupe_run: Path) -> Path:
    return eupe_run


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, to go on with."""
    return Path(shutil.copytree(run, tmp_path / "copied"))


def stages_trained(run: Path) -> dict[str, int]:
    steps: dict[str, int] = {}
    for line in read_lines(run / "metrics.jsonl"):
        steps[line["stage"]] = line["step"]
    return steps


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a step was trained")

    monkeypatch.setattr(Trainer, "_train_step", refuse)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))


# The whole run


def test_three_stages_and_their_teachers(run: Path) -> None:
    assert stages_trained(run) == {STAGE_1: 4, STAGE_2: 4, STAGE_3: 4}
    terms = {
        stage: {name for line in read_lines(run / "metrics.jsonl") if line["stage"] == stage for name in line}
        for stage in (STAGE_1, STAGE_2, STAGE_3)
    }
    assert {"what/summary", "what/patch", "where/summary", "where/patch", "loss"} < terms[STAGE_1]
    assert {"proxy/summary", "proxy/patch", "loss"} < terms[STAGE_2]
    assert "what/summary" not in terms[STAGE_2] | terms[STAGE_3]


def test_folder_holds_what_the_design_says(run: Path) -> None:
    files = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    stages = {f"{stage}/{name}" for stage in (STAGE_1, STAGE_2, STAGE_3) for name in ("model/model.safetensors",)}
    student = {f"student/{name}" for name in ("model.safetensors", "config.json", "README.md", "adapters.safetensors")}
    assert {"config.yaml", "metrics.jsonl", "report.html"} | stages | student <= files
    assert all(list((run / stage / "checkpoints").glob("step-*.ckpt")) for stage in (STAGE_1, STAGE_2, STAGE_3))
    assert not [name for name in files if name.endswith(".tmp")]


def test_student_is_the_last_stage(run: Path) -> None:
    assert weights(run / "student").keys() == weights(run / STAGE_3 / "model").keys()
    torch.testing.assert_close(weights(run / "student"), weights(run / STAGE_3 / "model"), rtol=0, atol=0)
    for before, after in ((STAGE_1, STAGE_2), (STAGE_2, STAGE_3)):
        left, right = (load_file(run / stage / "model/model.safetensors") for stage in (before, after))
        assert not torch.equal(left["blocks.0.attn.qkv.weight"], right["blocks.0.attn.qkv.weight"])


def test_student_loads_as_a_run_and_in_timm_with_equal_outputs(run: Path, tmp_path: Path, images: Tensor) -> None:
    ours = load_encoder(f"run/{run}")
    shutil.copytree(run / "student", tmp_path / "elsewhere")  # it stands for itself
    moved = load_encoder(f"run/{tmp_path / 'elsewhere'}")
    plain = timm.create_model(f"local-dir:{tmp_path / 'elsewhere'}", pretrained=True).eval()
    with torch.inference_mode():
        features = ours(images)
        assert torch.equal(moved(images).patches, features.patches)
        normalised = (images - ours.mean) / ours.std
        tokens = plain.forward_features(normalised)
        assert torch.equal(tokens[:, plain.num_prefix_tokens :], features.tokens)
        assert torch.equal(plain.forward_head(tokens, pre_logits=True), features.summary)
    config = plain.pretrained_cfg
    assert torch.equal(ours.mean.flatten(), torch.tensor(config["mean"]))
    assert torch.equal(ours.std.flatten(), torch.tensor(config["std"]))


def test_adapters_are_saved_with_their_teachers_widths(run: Path) -> None:
    proxy = load_file(run / STAGE_1 / "model/adapters.safetensors")
    assert proxy["heads.what.patch.3.weight"].shape == (6, 16)
    assert proxy["heads.where.summary.0.weight"].shape == (16, 64)
    assert proxy["standardizers.what.summary.mean"].shape == (4,)
    student = load_file(run / "student/adapters.safetensors")
    assert {name.split(".")[1] for name in student} == {"proxy"}
    assert all(value.isfinite().all() for value in (*proxy.values(), *student.values()))


def test_lineage_and_licences_reach_the_student_through_the_proxy(run: Path) -> None:
    for place in (f"{STAGE_1}/model", f"{STAGE_2}/model", f"{STAGE_3}/model", "student"):
        teachers = json.loads((run / place / "config.json").read_text())["eyespot"]["teachers"]
        assert [teacher["name"].rpartition(":")[2] for teacher in teachers] == ["what", "where"], place
        assert [teacher["licence"] for teacher in teachers] == ["mit", "cc-by-nc-4.0"], place
    card = (run / "student/README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["license"] == "cc-by-nc-4.0"
    assert "may not be used commercially" in card
    assert "teachers.py:what" in card and "teachers.py:where" in card
    assert load_encoder(f"run/{run}").license == "cc-by-nc-4.0"


def test_the_strictest_licence_of_mixed_teachers_decides(run: Path) -> None:
    """Through the proxy: header and text of the card, the report, and what the loaded student says."""
    sentence = "The student may not be used commercially: cc-by-nc-4.0 allows non-commercial use only."
    card = ModelCard.load(run / "student/README.md")
    assert card.data.license == "cc-by-nc-4.0" and sentence in card.text
    assert sentence in (run / "report.html").read_text()
    for place in (run / STAGE_1, run / STAGE_2, run / STAGE_3, run / "student"):
        assert load_encoder(f"run/{place}").terms is Terms.NON_COMMERCIAL


def test_a_student_that_starts_from_released_weights_inherits_their_licence_too(folder: Path, tmp_path: Path) -> None:
    free = f"python/{folder}/teachers.py:what"
    released = save_encoder(load_encoder("timm/test_vit?pretrained=false"), tmp_path / "released", license="gemma")
    changes = {"teachers": [free], "proxy": None, "student": {"model": f"run/{released}"}, "stage3": {"steps": 0}}
    student = distill(tiny_config(folder, **changes), tmp_path / "run")
    card = ModelCard.load(student / "README.md")
    assert card.data.license == "gemma" and "custom terms of gemma" in card.text
    assert load_encoder(f"run/{student}").terms is Terms.CUSTOM
    with pytest.raises(ValueError, match="released: custom terms"):
        distill(tiny_config(folder, **changes, permissive_only=True), tmp_path / "refused")


def test_a_student_that_starts_from_weights_of_unknown_licence_is_not_taken_for_free(
    folder: Path, tmp_path: Path
) -> None:
    found = tmp_path / "found.pt"
    torch.save(new_encoder("timm/test_vit", 0, "student").model.state_dict(), found)
    student = {"model": f"timm/test_vit?weights={found}"}
    changes = {"teachers": [f"python/{folder}/teachers.py:what"], "proxy": None, "student": student}
    made = distill(tiny_config(folder, **changes, stage3={"steps": 0}), tmp_path / "run")
    assert ModelCard.load(made / "README.md").data.license == "unknown"
    assert load_encoder(f"run/{made}").terms is Terms.UNKNOWN


def test_report_tells_the_run(run: Path) -> None:
    report = (run / "report.html").read_text()
    assert "distilled by EUPE" in report
    assert report.count("data:image/") + report.count("<svg") >= 3
    assert all(name in report for name in (STAGE_1, STAGE_2, STAGE_3, "cc-by-nc-4.0", "broken.png"))


def test_config_is_complete_and_makes_the_same_configuration(folder: Path, run: Path) -> None:
    config = tiny_config(folder)
    stored = yaml.safe_load((run / "config.yaml").read_text())
    assert stored == as_plain(config)
    assert TypeAdapter(EupeConfig).validate_python(stored) == config
    assert stored["stage2"]["final_learning_rate"] == 0.0  # defaults filled in


# The same command again


def test_finished_run_is_not_trained_again(folder: Path, run: Path, copied: Path, no_training: None) -> None:
    assert distill(tiny_config(folder), copied) == copied / "student"
    assert model_bytes(copied) == model_bytes(run)
    assert (copied / "metrics.jsonl").read_bytes() == (run / "metrics.jsonl").read_bytes()
    assert "broken.png" in (copied / "report.html").read_text()  # met by an earlier process


def test_settings_that_do_not_touch_the_result_may_change(folder: Path, copied: Path, no_training: None) -> None:
    engine = {"log_every": 7, "checkpoint_every": 9, "keep_checkpoints": 1}
    changed = tiny_config(folder, data={"workers": 2, "keep_decoded": True}, engine=engine)
    assert distill(changed, copied) == copied / "student"


def test_another_configuration_is_refused_with_every_difference(folder: Path, run: Path) -> None:
    other = tiny_config(folder, seed=1, stage2={"learning_rate": 1.0}, data={"view": {"flip": 0.0}})
    before = (run / "config.yaml").read_bytes()
    with pytest.raises(RunMismatchError) as refused:
        distill(other, run)
    shown = str(refused.value).splitlines()[1:-1]
    assert shown == ["  data.view.flip: 0.5 -> 0.0", "  seed: 0 -> 1", "  stage2.learning_rate: 0.002 -> 1.0"]
    assert (run / "config.yaml").read_bytes() == before


def test_a_folder_of_something_else_is_refused(folder: Path) -> None:
    with pytest.raises(FileExistsError, match="holds no run"):
        distill(tiny_config(folder), folder / "pictures")


def test_a_lost_stage_is_made_again_bit_for_bit(folder: Path, run: Path, copied: Path) -> None:
    """Another process order, too: stage 3 is the first that this process reads pictures for."""
    shutil.rmtree(copied / STAGE_3)
    shutil.rmtree(copied / "student")
    distill(tiny_config(folder), copied)
    assert model_bytes(copied) == model_bytes(run)


def test_a_moved_run_goes_on_in_the_middle_of_a_stage(folder: Path, run: Path, copied: Path) -> None:
    for stage in (STAGE_2, STAGE_3):
        shutil.rmtree(copied / stage / "model")
        shutil.rmtree(copied / stage / "checkpoints/step-00000004.ckpt")
    distill(tiny_config(folder), copied)
    assert model_bytes(copied) == model_bytes(run)


# Other ways through the stages


def test_finished_proxy_leaves_stage_1_out(folder: Path, run: Path, tmp_path: Path) -> None:
    student = distill(tiny_config(folder, teachers=[], proxy=f"run/{run / STAGE_1}"), tmp_path / "run")
    assert stages_trained(tmp_path / "run") == {STAGE_2: 4, STAGE_3: 4}
    assert (student / "model.safetensors").read_bytes() == (run / "student/model.safetensors").read_bytes()
    teachers = json.loads((student / "config.json").read_text())["eyespot"]["teachers"]
    assert [teacher["licence"] for teacher in teachers] == ["mit", "cc-by-nc-4.0"]


def test_finished_stage_2_leaves_it_out(folder: Path, run: Path, tmp_path: Path) -> None:
    changes = {"proxy": f"run/{run / STAGE_1}", "student": {"start": f"run/{run / STAGE_2}"}, "stage2": {"steps": 0}}
    student = distill(tiny_config(folder, **changes), tmp_path / "run")
    assert stages_trained(tmp_path / "run") == {STAGE_3: 4}
    assert (student / "model.safetensors").read_bytes() == (run / "student/model.safetensors").read_bytes()


def test_no_proxy_distils_the_teachers_directly(folder: Path, tmp_path: Path) -> None:
    student = distill(tiny_config(folder, proxy=None, stage3={"steps": 0}), tmp_path)
    assert stages_trained(tmp_path) == {STAGE_2: 4}
    assert {name.split(".")[1] for name in load_file(student / "adapters.safetensors")} == {"what", "where"}
    assert "directly" in (student / "README.md").read_text()


def test_same_start_whichever_way(folder: Path) -> None:
    first, second = (new_encoder("timm/test_vit", 0, "student") for _ in range(2))
    other_role, other_seed = new_encoder("timm/test_vit", 0, "proxy"), new_encoder("timm/test_vit", 1, "student")
    name = "model.patch_embed.proj.weight"
    assert torch.equal(first.state_dict()[name], second.state_dict()[name])
    assert not torch.equal(first.state_dict()[name], other_role.state_dict()[name])
    assert not torch.equal(first.state_dict()[name], other_seed.state_dict()[name])


def test_steps_override_every_stage_and_its_warmup(folder: Path, tmp_path: Path) -> None:
    config = tiny_config(folder, **all_stages(steps=100, warmup_steps=10), steps=20)
    resolved = config.resolved()
    assert [stage.steps for stage in (resolved.stage1, resolved.stage2, resolved.stage3)] == [20, 20, 20]
    assert resolved.stage1.warmup_steps == 2
    assert resolved.steps is None and resolved.resolved() == resolved
    left_out = replace(config, stage3=replace(config.stage3, steps=0)).resolved()
    assert left_out.stage3.steps == 0
    distill(tiny_config(folder, proxy=None, stage3={"steps": 0}, steps=2), tmp_path)
    assert stages_trained(tmp_path) == {STAGE_2: 2}


def test_moving_average_is_what_is_saved(folder: Path, tmp_path: Path) -> None:
    student = distill(
        tiny_config(folder, proxy=None, stage2={"ema_decay": 0.5}, stage3={"steps": 0}), tmp_path / "averaged"
    )
    plain = distill(tiny_config(folder, proxy=None, stage3={"steps": 0}), tmp_path / "plain")
    name = "patch_embed.proj.weight"
    assert not torch.equal(load_file(student / "model.safetensors")[name], load_file(plain / "model.safetensors")[name])
    saved = load_file(student / "model.safetensors")
    averages = {f"ema/student.model.{key}": torch.empty_like(value) for key, value in saved.items()}
    checkpoint = tmp_path / "averaged" / STAGE_2 / "checkpoints/step-00000004.ckpt"
    torch.distributed.checkpoint.load(averages, checkpoint_id=checkpoint, no_dist=True)
    assert all(torch.equal(averages[f"ema/student.model.{key}"], value) for key, value in saved.items())


def test_python_student_stands_for_itself(folder: Path, tmp_path: Path, images: Tensor) -> None:
    spec = f"python/{folder / 'teachers.py'}:student"
    student = distill(tiny_config(folder, proxy=None, student={"model": spec}), tmp_path / "run")
    expected = load_encoder(f"run/{student}")(images)
    shutil.copytree(student, tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "run")
    assert torch.equal(load_encoder(f"run/{tmp_path / 'elsewhere'}")(images).patches, expected.patches)


@pytest.mark.slow
def test_cached_teachers_cold_and_warm_give_the_same(folder: Path, tmp_path: Path) -> None:
    changes = {"data": {"views": 2}, "cache": {"folder": str(tmp_path / "cache")}}
    cold = distill(tiny_config(folder, **changes), tmp_path / "cold")
    warm = distill(tiny_config(folder, **changes), tmp_path / "warm")
    assert model_bytes(warm.parent) == model_bytes(cold.parent)
    assert list((tmp_path / "cache").rglob("*.safetensors"))
    live = distill(tiny_config(folder, data={"views": 2}), tmp_path / "live")
    first, second = (read_lines(place.parent / "metrics.jsonl")[0] for place in (cold, live))
    assert first["loss"] == pytest.approx(second["loss"], rel=1e-2)  # but for bfloat16
    # so it cannot be switched in the middle of a run
    with pytest.raises(RunMismatchError, match=r"cache.folder: .* -> None"):
        distill(tiny_config(folder, data={"views": 2}), tmp_path / "cold")


# Several students


@pytest.mark.slow
def test_several_students_become_what_each_becomes_alone(folder: Path, tmp_path: Path) -> None:
    models = {"test_vit": "timm/test_vit", "test_vit2": "timm/test_vit2"}
    made = distill(tiny_config(folder, student={"model": list(models.values())}), tmp_path / "run")
    assert made == tmp_path / "run/students"
    proxy = f"run/{tmp_path / 'run' / STAGE_1}"
    for name, model in models.items():
        alone = distill(tiny_config(folder, proxy=proxy, student={"model": model}), tmp_path / name)
        for file in ("model.safetensors", "adapters.safetensors"):
            assert (made / name / file).read_bytes() == (alone / file).read_bytes(), (name, file)
        assert f"# {name}, distilled by EUPE" in (made / name / "README.md").read_text()
        assert load_encoder(f"run/{made / name}").lineage
    report = (tmp_path / "run/report.html").read_text()
    assert "2 students, distilled together" in report and "test_vit, test_vit2" in report
    with pytest.raises(FileNotFoundError, match=r"students/test_vit, run/.*students/test_vit2"):
        load_encoder(f"run/{tmp_path / 'run'}")


@pytest.mark.slow
def test_several_students_go_on_in_the_middle_and_start_from_finished_stages(
    folder: Path, run: Path, tmp_path: Path
) -> None:
    changes = {"proxy": f"run/{run / STAGE_1}", "student": {"model": ["timm/test_vit", "timm/test_vit2"]}}
    whole = distill(tiny_config(folder, **changes), tmp_path / "whole")
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "whole", copy)
    shutil.rmtree(copy / STAGE_2 / "test_vit2")  # a kill between the two
    shutil.rmtree(copy / STAGE_3)
    again = distill(tiny_config(folder, **changes), copy)
    starts = [f"run/{whole.parent / STAGE_2 / name}" for name in ("test_vit", "test_vit2")]
    from_second = {**changes, "student": {**changes["student"], "start": starts}, "stage2": {"steps": 0}}
    third = distill(tiny_config(folder, **from_second), tmp_path / "third")
    for name in ("test_vit", "test_vit2"):
        expected = (whole / name / "model.safetensors").read_bytes()
        assert (again / name / "model.safetensors").read_bytes() == expected
        assert (third / name / "model.safetensors").read_bytes() == expected


# Permissive licences only


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({}, "teachers.py:where: non-commercial (cc-by-nc-4.0)"),
        ({"teachers": [], "proxy": "run/RUN/stage-1-proxy"}, "stage-1-proxy: non-commercial (cc-by-nc-4.0)"),
        ({"teachers": ["WHAT"], "proxy": None, "student": {"model": "python/FOLDER/teachers.py:student"}}, "unknown"),
        ({"teachers": ["WHAT"], "student": {"start": "run/RUN/stage-2-student"}}, "stage-2-student: non-commercial"),
        ({"teachers": ["WHAT"], "proxy": "timm/vit_tiny_patch16_dinov3_qkvb?pretrained=true"}, "fair-noncommercial"),
    ],
)
def test_permissive_only_refuses_before_anything_is_made(
    folder: Path, run: Path, tmp_path: Path, no_training: None, changes: dict[str, Any], named: str
) -> None:
    places = {"WHAT": f"python/{folder}/teachers.py:what", "FOLDER": str(folder), "RUN": str(run)}
    text = json.dumps(changes)
    for word, place in places.items():
        text = text.replace(word, place)
    with pytest.raises(ValueError, match="permissive_only") as refused:
        distill(tiny_config(folder, **json.loads(text), permissive_only=True), tmp_path / "run")
    assert named in str(refused.value) and "teachers.py:what" not in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_permissive_only_admits_permissive_teachers_and_random_weights(folder: Path, tmp_path: Path) -> None:
    config = tiny_config(
        folder, teachers=[f"python/{folder}/teachers.py:what"], permissive_only=True, stage3={"steps": 0}
    )
    student = distill(config, tmp_path / "run")
    assert ModelCard.load(student / "README.md").data.license == "mit"
    distill(replace(config, permissive_only=False), tmp_path / "run")  # it does not touch the result


# What is refused


def test_onnx_student_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="can teach but not be trained"):
        distill(tiny_config(folder, proxy=None, student={"model": "onnx/some.onnx"}), tmp_path)
    assert stages_trained(tmp_path) == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teachers": []}, "teachers is empty"),
        ({"teachers": [], "proxy": None}, "teachers is empty"),
        ({"cache": {"folder": "cache"}}, "set data.views"),
        ({"stage2": {"steps": 0}}, "stage2.steps is 0"),
        ({"student": {"start": "run/somewhere"}, "stage3": {"steps": 0}}, "nothing would be trained"),
        ({"student": {"model": []}}, "student.model is empty"),
        ({"student": {"model": ["timm/test_vit"] * 2, "start": "run/somewhere"}}, "one per model"),
        ({"data": {"sources": ["nowhere"]}}, "nowhere"),
        ({"teachers": ["timm/no_such_model_at_all"]}, "no_such_model_at_all"),
        ({"student": {"model": "tim/test_vit"}, "proxy": None}, "did you mean timm"),
    ],
)
def test_what_cannot_be_run_is_refused(folder: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        distill(tiny_config(folder, **changes), tmp_path / "run")


@pytest.mark.parametrize(
    "changes",
    [
        {"techers": ["timm/test_vit"]},
        {"stage1": {"step": 3}},
        {"engine": {"gpus": 3}},
        {"data": {"view": {"flipp": 1}}},
        {"standardizer": "whiten"},
        {"stage2": {"student_sizes": []}},
        {"stage2": {"batch_size": 0}},
    ],
)
def test_unknown_keys_and_wrong_values_are_refused(folder: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        tiny_config(folder, **changes)


def test_yaml_round_trip(folder: Path) -> None:
    config = tiny_config(folder, seed=3, standardizer="phi_s", stage1={"ema_decay": 0.999})
    text = yaml.safe_dump(as_plain(config))
    assert TypeAdapter(EupeConfig).validate_python(yaml.safe_load(text)) == config
    assert TypeAdapter(EupeConfig).validate_python(settings(folder)) == tiny_config(folder)


def test_sizes_are_rounded_to_the_students_stride(folder: Path, tmp_path: Path) -> None:
    coarse = "timm/test_resnet"  # stride 32: 48 becomes 64
    config = tiny_config(
        folder, proxy=None, student={"model": coarse}, stage2={"student_sizes": [48]}, stage3={"steps": 0}
    )
    assert load_encoder(f"run/{distill(config, tmp_path / 'run').parent}").stride == 32
