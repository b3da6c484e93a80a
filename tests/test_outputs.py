"""Nothing foreign is overwritten or deleted by what eyespot writes under a name of the user's choice."""

import json
import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from eyespot.audit.run import AUDIT_FOLDER
from eyespot.data import open_source
from eyespot.data.sources.shards import write_shards
from eyespot.data.toybox import contact_sheet
from eyespot.deploy.benchmark.run_benchmark import BENCHMARK_FOLDER
from eyespot.deploy.export import EXPORT_FOLDER, export
from eyespot.deploy.formats import FORMATS
from eyespot.encoders import load_encoder, save_encoder
from eyespot.encoders.saved import MODEL_FOLDER
from eyespot.encoders.sources.eupe import write_eupe_checkpoint
from eyespot.encoders.text.embeddings import save_text_embeddings
from eyespot.locks import LOCK_FILE
from eyespot.outputs import FOLDER_MARK, MARK, FolderKind, check_output_file
from eyespot.report import visualize
from eyespot.report.pages.evaluation_folder import EVALUATION_FOLDER
from eyespot.report.pages.html import Report

TINY = "timm/test_vit?pretrained=false"
WORKED_IN = {"evaluation": EVALUATION_FOLDER, "audit": AUDIT_FOLDER, "benchmark": BENCHMARK_FOLDER}
REPLACED = {"model": MODEL_FOLDER, "export": EXPORT_FOLDER}


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    folder = tmp_path / "precious"
    (folder / "photos").mkdir(parents=True)
    (folder / "thesis.txt").write_text("thesis")
    (folder / "photos/a.jpg").write_text("a")
    return folder


def write_toybox(path: Path) -> None:
    contact_sheet(path, seeds=[0], size=16)


def write_sheet(path: Path) -> None:
    visualize({"tiny": load_encoder(TINY)}, torch.linspace(0, 1, 3072).view(1, 3, 32, 32), path)


def write_embeddings(path: Path) -> None:
    save_text_embeddings(path, ["a", "b"], torch.eye(2))


FILES = {"png of the toybox": write_toybox, "png of features": write_sheet, "safetensors": write_embeddings}


def named(folder: Path, kind: str) -> Path:
    return folder / ("out.safetensors" if kind == "safetensors" else "out.png")


@pytest.mark.parametrize("kind", FILES)
def test_a_file_of_ours_is_replaced(kind: str, tmp_path: Path) -> None:
    path = named(tmp_path, kind)
    FILES[kind](path)
    written = path.stat().st_ino
    FILES[kind](path)
    assert path.stat().st_ino != written and MARK.encode() in path.read_bytes() and os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("kind", FILES)
def test_a_file_of_somebody_else_stays(kind: str, tmp_path: Path) -> None:
    path = named(tmp_path, kind)
    Image.new("RGB", (64, 64), "red").save(path, format="PNG")
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="not written by eyespot"):
        FILES[kind](path)
    assert content(tmp_path) == {path.name: before}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("through", ["folder", "link"])
def test_a_folder_in_place_of_a_file_stays(kind: str, through: str, precious: Path) -> None:
    path = named(precious.parent, kind)
    path.symlink_to(precious) if through == "link" else precious.rename(path)
    before = content(path)
    with pytest.raises(IsADirectoryError, match="is a folder"):
        FILES[kind](path)
    assert content(path) == before and len(before) == 2 and sorted(os.listdir(path.parent))[0] == path.name


def test_a_page_says_who_wrote_it(tmp_path: Path) -> None:
    Report("Title").write(tmp_path / "report.html")
    assert MARK in (tmp_path / "report.html").read_text(encoding="utf-8")
    check_output_file(tmp_path / "report.html")
    (tmp_path / "other.html").write_text("<p>mine")
    with pytest.raises(FileExistsError, match="not written by eyespot"):
        check_output_file(tmp_path / "other.html")


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    for name in ("pipe", "link"):
        with pytest.raises(FileExistsError):
            check_output_file(tmp_path / name)
    check_output_file(tmp_path / "new")


def write_model(path: Path) -> None:
    save_encoder(load_encoder(TINY), path, card="A card.")


def write_export(path: Path) -> None:
    export(TINY, "torch", path, image_size=32, say=lambda line: None)


FOLDERS = {"model": write_model, "export": write_export}


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_folder_of_ours_is_replaced_whole(kind: str, tmp_path: Path) -> None:
    FOLDERS[kind](tmp_path / "out")
    names = set(content(tmp_path / "out"))
    (tmp_path / "out" / sorted(names - {"config.json", "export.json"})[0]).write_text("older")
    FOLDERS[kind](tmp_path / "out")
    assert set(content(tmp_path / "out")) == names and b"older" not in content(tmp_path / "out").values()
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("kind", FOLDERS)
@pytest.mark.parametrize("foreign", ["thesis.txt", ".git/HEAD", "photos/a.jpg"])
def test_what_was_put_into_it_is_not_lost(kind: str, foreign: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    FOLDERS[kind](out)
    (out / foreign).parent.mkdir(exist_ok=True)
    (out / foreign).write_text("mine")
    before = content(tmp_path)
    with pytest.raises(FileExistsError, match=foreign.partition("/")[0]):
        FOLDERS[kind](out)
    assert content(tmp_path) == before


@pytest.mark.parametrize("kind", FOLDERS)
@pytest.mark.parametrize("place", ["folder", "link", "."])
def test_a_folder_of_somebody_else_stays(
    kind: str, place: str, precious: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (precious.parent / "link").symlink_to(precious)
    monkeypatch.chdir(precious)
    before = content(precious.parent)
    with pytest.raises(FileExistsError, match="photos, thesis"):
        FOLDERS[kind]({"folder": precious, "link": precious.parent / "link", ".": Path(".")}[place])
    assert content(precious.parent) == before


def test_a_model_of_somebody_else_stays(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "vit_tiny_patch16_224"}))
    (tmp_path / "model.safetensors").write_text("weights")
    before = content(tmp_path)
    with pytest.raises(FileExistsError, match="config"):
        write_model(tmp_path)
    assert content(tmp_path) == before


def test_what_comes_while_the_work_goes_on_is_not_lost(tmp_path: Path) -> None:
    write_model(tmp_path / "out")
    with pytest.raises(FileExistsError, match="thesis"), MODEL_FOLDER.replace(tmp_path / "out") as new:
        (tmp_path / "out/thesis.txt").write_text("mine")
        (new / "config.json").write_text("{}")
    assert "thesis.txt" in content(tmp_path / "out") and os.listdir(tmp_path) == ["out"]


def test_through_a_link_the_folder_behind_it_is_replaced(tmp_path: Path) -> None:
    write_model(tmp_path / "disk")
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    (tmp_path / "disk/README.md").write_text("older")
    write_model(tmp_path / "out")
    assert (tmp_path / "out").is_symlink() and (tmp_path / "disk/README.md").read_text() == "A card."


def test_a_run_is_not_the_target_of_an_export_of_itself(eupe_run: Path) -> None:
    before = content(eupe_run)
    for place in (eupe_run, eupe_run / "student", eupe_run.parent):
        with pytest.raises(FileExistsError):
            export(f"run/{eupe_run}", "torch", place, image_size=32)
    assert content(eupe_run) == before


@pytest.mark.parametrize("format", FORMATS)
def test_a_format_knows_its_own_files(format: str) -> None:
    assert FORMATS[format].files[0] == FORMATS[format].file and set(FORMATS[format].files) <= set(EXPORT_FOLDER.entries)


def enter(kind: FolderKind, path: Path) -> None:
    with kind.work_in(path):
        assert (path / LOCK_FILE).is_file()


@pytest.mark.parametrize("kind", WORKED_IN)
def test_a_folder_to_work_in(kind: str, precious: Path, tmp_path: Path) -> None:
    folder = WORKED_IN[kind]
    before = content(precious)
    with pytest.raises(FileExistsError, match="photos, thesis"):
        enter(folder, precious)
    with pytest.raises(NotADirectoryError, match="is a file"):
        enter(folder, precious / "thesis.txt")
    assert content(precious) == before
    enter(folder, tmp_path / "new")
    (tmp_path / "new/notes.txt").write_text("of the user, who knows what the folder is")
    enter(folder, tmp_path / "new")
    assert set(content(tmp_path / "new")) == {FOLDER_MARK, "notes.txt"}
    for other in WORKED_IN.keys() - {kind}:
        with pytest.raises(FileExistsError, match=f"something else than an? {other}"):
            enter(WORKED_IN[other], tmp_path / "new")


def test_shards_are_neither_overwritten_nor_mixed(tmp_path: Path) -> None:
    write_shards(open_source("toybox:3@16"), tmp_path, per_shard=2)
    before = content(tmp_path)
    with pytest.raises(FileExistsError, match="shard-000000"):
        write_shards(open_source("toybox:1@16"), tmp_path)
    assert content(tmp_path) == before and len(before) == 2


def test_an_official_file_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_text("mine")
    with pytest.raises(FileExistsError, match="not overwritten"):
        write_eupe_checkpoint(load_encoder(TINY), tmp_path / "a.pth")
    assert (tmp_path / "a.pth").read_text() == "mine"
