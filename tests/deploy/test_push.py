"""Pushing a student to the hub and reading it back, against a stand-in of the hub on this machine."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from hub_stand_in import READER, WRITER, Hub, Repository, hub_stand_in
from huggingface_hub import ModelCard
from huggingface_hub.utils import HFValidationError

from eyespot.deploy import push
from eyespot.encoders import load_encoder, save_encoder
from eyespot.report import describe, model_card

SOURCE = str(Path(__file__).resolve().parents[2] / "src")


def write_student(folder: Path, licences: list[str | None], adapters: bool = True, seed: int = 0) -> Path:
    """A run folder with a finished student in it."""
    torch.manual_seed(seed)
    student = load_encoder("timm/test_vit?pretrained=false")
    teachers = [{**describe(student), "name": f"onnx/{n}.onnx", "licence": one} for n, one in enumerate(licences)]
    save_encoder(
        student,
        folder / "student",
        license="mit",
        adapters={"heads.a.summary.0.weight": torch.ones(2, 2)} if adapters else None,
        details={"teachers": teachers},
        card=model_card(student, title="tiny", summary="Tiny.", teachers=teachers),
    )
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_student(tmp_path / "run", ["mit"])


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The stand-in, reached by everything that asks huggingface_hub, with a token that may write."""
    for name in ("HF_HUB_OFFLINE", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_TOKEN", WRITER)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    with hub_stand_in() as stand_in:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", stand_in.url)
        yield stand_in


def elsewhere(hub: Hub, code: str, tmp_path: Path) -> dict[str, Any]:
    """What another machine prints as JSON: a new process with an empty cache, since addresses are read at import."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONPATH": SOURCE,
    }
    environment.pop("HF_HUB_OFFLINE", None)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


# What arrives


def test_a_student_arrives_whole_in_one_commit(hub: Hub, run: Path) -> None:
    address = push(run, "me/tiny", message="First")
    assert address == f"{hub.url}/me/tiny"
    commits = hub.repositories["me/tiny"].branches["main"]
    assert [commit.message for commit in commits] == ["initial commit", "First"]
    files = hub.files("me/tiny")
    assert files.keys() == {"README.md", "config.json", "model.safetensors", "adapters.safetensors"}
    for name in files.keys() - {"README.md"}:
        assert files[name] == (run / "student" / name).read_bytes()


def test_the_card_names_the_repository_and_the_folder_is_left_alone(hub: Hub, run: Path) -> None:
    before = (run / "student/README.md").read_bytes()
    push(run, "tiny")  # of one's own
    card = hub.files("me/tiny")["README.md"].decode()
    assert 'eyespot.load_encoder("hf/me/tiny")' in card and 'timm.create_model("hf-hub:me/tiny"' in card
    assert "USER/REPO" not in card and ModelCard(card).data.license == "mit"
    assert (run / "student/README.md").read_bytes() == before


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # huggingface_hub's own
def test_large_files_go_their_own_way(hub: Hub, run: Path) -> None:
    hub.lfs = "*.safetensors"
    push(run, "me/tiny")
    assert len(hub.large) == 2
    assert hub.files("me/tiny")["model.safetensors"] == (run / "student/model.safetensors").read_bytes()


@pytest.mark.slow
def test_another_machine_reads_it_back_in_timm_and_eyespot(hub: Hub, run: Path, tmp_path: Path) -> None:
    push(run, "me/tiny")
    push(write_student(tmp_path / "second", ["gemma"], seed=1), "me/tiny", revision="second", say=str)
    code = """
import json, timm, torch
from eyespot import load_encoder

images = torch.linspace(0, 1, 3 * 64 * 96).view(1, 3, 64, 96)
model = timm.create_model("hf-hub:me/tiny", pretrained=True, dynamic_img_size=True).eval()
told = {"mean": model.pretrained_cfg["mean"], "std": model.pretrained_cfg["std"]}
normalised = (images - torch.tensor(told["mean"]).view(3, 1, 1)) / torch.tensor(told["std"]).view(3, 1, 1)
with torch.inference_mode():
    told["tokens"] = model.forward_features(normalised).tolist()
    for name in ("hf/me/tiny", "hf/me/tiny?revision=second"):
        encoder = load_encoder(name)
        features = encoder(images)
        told[name] = {
            "features": [features.summary.tolist(), features.patches.tolist()],
            "licence": [encoder.license, encoder.terms.label],
            "adapters": sorted(encoder.adapters),
            "teachers": [teacher["name"] for teacher in encoder.lineage],
        }
print(json.dumps(told))
"""
    answer = elsewhere(hub, code, tmp_path)
    images = torch.linspace(0, 1, 3 * 64 * 96).view(1, 3, 64, 96)
    for place, spec, terms in (
        (run, "hf/me/tiny", "commercial use"),
        (tmp_path / "second", "hf/me/tiny?revision=second", "custom terms"),
    ):
        student, read = load_encoder(f"run/{place}"), answer[spec]
        with torch.inference_mode():
            features = student(images)
        for values, expected in zip(read["features"], (features.summary, features.patches), strict=True):
            assert torch.equal(torch.tensor(values), expected)
        assert read["licence"] == [student.license, terms]
        assert (read["adapters"], read["teachers"]) == (["heads.a.summary.0.weight"], ["onnx/0.onnx"])
    with torch.inference_mode():
        student = load_encoder(f"run/{run}")
        expected = student.model.forward_features((images - student.mean) / student.std)
    assert torch.equal(torch.tensor(answer["tokens"]), expected)


# Repositories that are there already


def test_pushing_again_adds_a_commit_and_removes_what_no_longer_belongs(hub: Hub, run: Path, tmp_path: Path) -> None:
    push(run, "me/tiny")
    push(write_student(tmp_path / "second", ["mit"], adapters=False, seed=1), "me/tiny", message="Second")
    assert [commit.message for commit in hub.repositories["me/tiny"].branches["main"]][2:] == ["Second"]
    assert hub.files("me/tiny").keys() == {"README.md", "config.json", "model.safetensors"}
    assert hub.files("me/tiny")["model.safetensors"] == (tmp_path / "second/student/model.safetensors").read_bytes()


def test_a_branch_leaves_the_main_one_alone(hub: Hub, run: Path) -> None:
    assert push(run, "me/tiny", revision="trial") == f"{hub.url}/me/tiny/tree/trial"
    assert hub.files("me/tiny") == {} and len(hub.files("me/tiny", "trial")) == 4
    push(run, "me/tiny", revision="trial", message="again")  # the branch is there by now


def test_private_repositories_are_made_and_kept(hub: Hub, run: Path) -> None:
    push(run, "me/tiny", private=True)
    assert hub.repositories["me/tiny"].private
    push(run, "me/tiny", message="again")
    assert hub.repositories["me/tiny"].private


def test_what_should_be_private_is_not_put_into_a_public_repository(hub: Hub, run: Path) -> None:
    hub.repositories["me/tiny"] = Repository()
    with pytest.raises(PermissionError, match="me/tiny is there already and is public"):
        push(run, "me/tiny", private=True)
    assert hub.files("me/tiny") == {}


# What the student may be used for


@pytest.mark.parametrize(
    ("licences", "private", "words"),
    [
        (["mit", "cc-by-nc-4.0"], False, "me/tiny is public. The student may not be used commercially: cc-by-nc-4.0"),
        ([None], False, "me/tiny is public. It is not known whether the student may be used commercially"),
        (["gemma"], False, "me/tiny is public. The student may be used commercially only within the custom terms"),
        (["mit", "cc-by-nc-4.0"], True, None),
        (["mit"], False, None),
    ],
)
def test_the_verdict_is_shown_where_the_public_can_take_the_student(
    hub: Hub, tmp_path: Path, licences: list[str | None], private: bool, words: str | None
) -> None:
    said: list[str] = []
    push(write_student(tmp_path / "run", licences), "me/tiny", private=private, say=said.append)
    assert len(said) == (words is not None)
    assert not words or said[0].startswith(words)
    assert hub.files("me/tiny")


# What goes wrong


def test_without_a_token_nothing_is_asked(hub: Hub, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(PermissionError, match=r"no token.*hf auth login.*HF_TOKEN"):
        push(run, "me/tiny")
    assert hub.requests == []


@pytest.mark.parametrize(
    ("token", "name", "message"),
    [
        ("hf_wrong", "me/tiny", "does not accept the token: run `hf auth login`"),
        (READER, "me/tiny", "the token may not write to me/tiny"),
        (WRITER, "you/tiny", "the token may not write to you/tiny: take a name of your own"),
    ],
)
@pytest.mark.parametrize("there", [False, True])
def test_tokens_that_may_not(
    hub: Hub, run: Path, monkeypatch: pytest.MonkeyPatch, token: str, name: str, message: str, there: bool
) -> None:
    if there:
        hub.repositories[name] = Repository()
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(PermissionError, match=message):
        push(run, name)
    assert (name in hub.repositories) == there
    assert not there or hub.files(name) == {}


@pytest.mark.parametrize("setting", [{"ENDPOINT": "http://127.0.0.1:9"}, {"HF_HUB_OFFLINE": True}])
def test_offline(hub: Hub, run: Path, monkeypatch: pytest.MonkeyPatch, setting: dict[str, Any]) -> None:
    for name, value in setting.items():
        monkeypatch.setattr(huggingface_hub.constants, name, value)
    with pytest.raises(ConnectionError, match=r"could not be reached .* Nothing was uploaded; run the same"):
        push(run, "me/tiny")


def test_a_connection_cut_at_the_commit_leaves_nothing_half_done(hub: Hub, run: Path) -> None:
    hub.broken = "POST /api/models/me/tiny/commit/*"
    with pytest.raises(ConnectionError, match="Nothing was uploaded"):
        push(run, "me/tiny")
    assert hub.files("me/tiny") == {}
    hub.broken = None
    push(run, "me/tiny")
    assert len(hub.files("me/tiny")) == 4


@pytest.mark.parametrize("name", ["a/b/c", "me/ti ny", "me/-tiny", ""])
def test_names_that_the_hub_does_not_take(hub: Hub, run: Path, name: str) -> None:
    with pytest.raises(HFValidationError):
        push(run, name)
    assert hub.requests == []


@pytest.mark.parametrize("missing", ["README.md", "model.safetensors"])
def test_an_unfinished_student_is_refused_by_the_file_it_lacks(hub: Hub, run: Path, missing: str) -> None:
    (run / "student" / missing).unlink()
    with pytest.raises(FileNotFoundError, match=f"not a finished student: {missing} missing"):
        push(run, "me/tiny")
    with pytest.raises(FileNotFoundError, match="no model in"):
        push(run / "nowhere", "me/tiny")
    assert hub.requests == []


def test_weights_that_do_not_fit_are_refused(hub: Hub, run: Path, tmp_path: Path) -> None:
    other = save_encoder(load_encoder("timm/test_resnet?pretrained=false"), tmp_path / "other")
    shutil.copy(other / "model.safetensors", run / "student/model.safetensors")
    with pytest.raises(ValueError, match="does not fit"):
        push(run, "me/tiny")
    assert hub.requests == []


@pytest.mark.parametrize("card", ["---\nlicense: [mit\n---\n# x\n", "---\n- a\n---\n"])
def test_a_card_that_is_no_yaml_is_refused(hub: Hub, run: Path, card: str) -> None:
    (run / "student/README.md").write_text(card)
    with pytest.raises(ValueError, match=r"the header of .* is not valid YAML"):
        push(run, "me/tiny")
    assert hub.requests == []
