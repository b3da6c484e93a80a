"""What eyespot saved: model folders, runs, checkpoints, caches, measured results, embeddings of names, with one file of
them damaged or missing. What is read is what was saved; what a checksum or a shape can tell is told.

Weights in safetensors and in torch's checkpoints have no checksums: there the damage is to length or header.
"""

from __future__ import annotations

import io
import json
import random
import shutil
import tarfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuzzing import Case, Skipped, Wrong, damage, noise, text_page, truncated
from torch import Tensor

from eyespot.distill.cache.store import TeacherCache
from eyespot.encoders import load_encoder
from eyespot.encoders.text.embeddings import load_text_embeddings, save_text_embeddings
from eyespot.engine.checkpoint import Checkpoints, read_into, stored_tensors
from eyespot.engine.processes import Processes
from eyespot.engine.run import RunFolder
from eyespot.evaluate.finished import FinishedMeasurements
from eyespot.report.pages.folders import read_folder

STORED = Path(__file__).resolve().parents[1] / "old_runs"
WEIGHTS = (".safetensors", ".distcp")


def draw(rng: random.Random, folder: Path) -> Case:
    return rng.choice((_model, _report, _run, _cache, _checkpoint, _measured, _embeddings))(rng, folder)


def _damaged(rng: random.Random, files: list[Path]) -> str:
    """Damages or removes one file, or none; says what."""
    if rng.random() < 0.15:
        return ""
    file = rng.choice(sorted(files))
    if rng.random() < 0.1:
        file.unlink()
        return f"{file.name} gone"
    if file.suffix in WEIGHTS:
        kinds = (truncated, truncated, noise, text_page, *([_other_header] if file.suffix == ".safetensors" else []))
        kind = rng.choice(kinds)
        file.write_bytes(kind(file.read_bytes(), rng))
        return f"{file.name} {kind.__name__}"
    return f"{file.name} {damage(file, rng)}"


def _other_header(content: bytes, rng: random.Random) -> bytes:
    """One bit turned in the header of a safetensors file."""
    place = rng.randrange(8 + int.from_bytes(content[:2], "little"))
    return content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :]


def _copy(rng: random.Random, folder: Path, places: tuple[str, ...]) -> Path:
    place = folder / "saved"
    shutil.copytree(STORED / rng.choice(places), place)
    return place


def _equal(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)


MODELS = ("models/vit", "models/resnet", "recipes/eupe/student", "recipes/vanilla_kd/student", "recipes/sak/student")


@cache
def _weights(place: str) -> dict[str, Tensor]:
    return load_encoder(f"run/{place}").state_dict()


def _model(rng: random.Random, folder: Path) -> Case:
    name = rng.choice(MODELS)
    wanted = _weights(str(STORED / name))
    place = _copy(rng, folder, (name,))
    kind = _damaged(rng, [file for file in place.iterdir() if file.name != "README.md"])
    may_differ = "config.json mutated" in kind or "config.json flipped" in kind

    def judge(found: dict[str, Tensor], warned: list[str]) -> None:
        if not _equal(found, wanted) and not may_differ:
            raise Wrong("other weights")

    act = lambda: load_encoder(f"run/{place}").state_dict()  # noqa: E731
    return Case(f"model {name} {kind}", act, [str(place)], judge, may_refuse=bool(kind))


def _report(rng: random.Random, folder: Path) -> Case:
    """A folder as `eyespot report` reads it."""
    place = _copy(rng, folder, ("recipes/eupe", "recipes/ofa_kd", "recipes/vanilla_kd", "evaluation", "cached"))
    files = [file for file in place.rglob("*") if file.name in ("config.yaml", "metrics.jsonl", "results.json")]
    files += [file for file in place.glob("student/*") if file.suffix != ".md"]
    kind = _damaged(rng, files)

    def act() -> Any:
        contents = read_folder(place)
        return contents, contents.table.to_markdown(True) if contents.table else "", contents.run

    return Case(f"report {kind}", act, [str(place)], may_refuse=bool(kind))


def _run(rng: random.Random, folder: Path) -> Case:
    """A run that is continued: the same configuration, or another, or a damaged record of it."""
    place = _copy(rng, folder, ("recipes/eupe", "recipes/sak"))
    config = {"seed": 3, "teachers": ["a", "b"], "data": {"size": 32}}
    (place / "config.yaml").write_text(json.dumps(config))
    kind = _damaged(rng, [place / "config.yaml"])
    return Case(f"run {kind}", lambda: RunFolder(place, config), [str(place)], may_refuse=bool(kind))


def _cache(rng: random.Random, folder: Path) -> Case:
    """All rows of a teacher's cache."""
    name = rng.choice(("what", "where"))
    wanted = _rows(STORED / "cached/cache" / name, STORED / "cached/cache" / name)
    place = _copy(rng, folder, (f"cached/cache/{name}",))
    kind = _damaged(rng, list(place.iterdir())) if rng.random() < 0.5 else _flip_anywhere(rng, place)

    def judge(found: tuple[Tensor, np.ndarray], warned: list[str]) -> None:
        records, there = found
        if not torch.equal(records[there], wanted[0][there]):
            raise Wrong("other records")
        if not there.all():
            if not any(str(place) in text for text in warned) and "gone" not in kind:
                raise Wrong("rows are missing without a word")
            raise Skipped

    act = lambda: _rows(place, STORED / "cached/cache" / name)  # noqa: E731
    return Case(f"cache {kind}", act, [str(place)], judge, may_refuse=bool(kind))


def _flip_anywhere(rng: random.Random, place: Path) -> str:
    """Shards have checksums of every row."""
    file = rng.choice(sorted(place.glob("*.safetensors")))
    content = bytearray(file.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    file.write_bytes(content)
    return "shard flipped"


def _rows(place: Path, like: Path) -> tuple[Tensor, np.ndarray]:
    setting = json.loads((like / "cache.json").read_text())["setting"]
    rows, store, rank = (setting.pop(key) for key in ("rows", "store", "rank"))
    return TeacherCache(place, setting, np.zeros(rows, np.int64), "teacher", store, rank, comparing=True).read(
        np.arange(rows)
    )


@cache
def _processes() -> Processes:
    return Processes()


@cache
def _archive() -> bytes:
    return (STORED / "interrupted/eupe.tar.xz").read_bytes()


def _checkpoint(rng: random.Random, folder: Path) -> Case:
    with tarfile.open(fileobj=io.BytesIO(_archive())) as archive:
        archive.extractall(folder, filter="data")
    place = sorted(folder.rglob("step-*.ckpt"))[-1]
    signature = json.loads((place / "training.json").read_text())["signature"]
    wanted = _tensors(place.parent, signature)
    kind = _damaged(rng, [file for file in place.iterdir() if file.is_file()])

    def judge(found: dict[str, Tensor], warned: list[str]) -> None:
        if not _equal(found, wanted) and ".metadata flipped" not in kind and ".metadata zeroed" not in kind:
            raise Wrong("other tensors")

    act = lambda: _tensors(place.parent, signature)  # noqa: E731
    return Case(f"checkpoint {kind}", act, [str(place)], judge, may_refuse=bool(kind))


def _tensors(folder: Path, signature: dict[str, Any]) -> dict[str, Tensor]:
    found = Checkpoints(folder).find(_processes(), signature)
    assert found is not None
    path, _ = found
    tensors = {name: torch.zeros(size, dtype=kind) for name, (size, kind) in stored_tensors(path).items()}
    read_into(path, tensors, _processes())
    return tensors


def _measured(rng: random.Random, folder: Path) -> Case:
    """One number that was measured before: it is that, or it is measured again."""
    finished = FinishedMeasurements(folder)
    values = {"accuracy": rng.random(), "best": None}
    finished.keep("key", "model", "knn", values)
    file = folder / "key.json"
    kind = _damaged(rng, [file])

    def judge(found: Any, warned: list[str]) -> None:
        if found is None and "gone" not in kind:
            if not any(str(file) in text for text in warned):
                raise Wrong("measured again without a word")
            raise Skipped
        if found is not None and not all(value is None or isinstance(value, float | int) for value in found.values()):
            raise Wrong(f"{found}")
        if found not in (values, None) and not kind.endswith(("flipped", "mutated", "zeroed")):
            raise Wrong(f"{found} in place of {values}")

    return Case(f"measured {kind}", lambda: finished.find("key"), [str(file)], judge, may_refuse=False)


def _embeddings(rng: random.Random, folder: Path) -> Case:
    """Embeddings of class names: our own file, or .npy with names beside it."""
    names = [f"class {number}, ä" for number in range(rng.randrange(1, 5))]
    vectors = torch.randn(len(names), 4, generator=torch.Generator().manual_seed(rng.randrange(2**31)))
    if rng.random() < 0.4:
        file = save_text_embeddings(folder / "names.safetensors", names, vectors)
        kind = _damaged(rng, [file])
        options: dict[str, Any] = {}
    else:
        file = folder / "names.npy"
        np.save(file, vectors.numpy())
        listed, write = rng.choice(_NAME_FILES)
        (folder / listed).write_text(write(names), encoding=rng.choice(("utf-8", "utf-8-sig", "utf-16")))
        options = {"names": folder / listed}
        kind = _damaged(rng, [file, folder / listed])

    def judge(found: Any, warned: list[str]) -> None:
        if found.embeddings.ndim != 2 or len(found.names) != len(found.embeddings) or "" in found.names:
            raise Wrong(f"{found}")
        if not all(isinstance(name, str) for name in found.names):
            raise Wrong(f"names {found.names}")
        if not kind and (list(found.names) != names or not torch.equal(found.embeddings, vectors)):
            raise Wrong(f"{found}")

    act = lambda: load_text_embeddings(file, **options)  # noqa: E731
    return Case(f"embeddings {kind}", act, [str(folder)], judge, may_refuse=bool(kind))


_NAME_FILES: tuple[tuple[str, Callable[[list[str]], str]], ...] = (
    ("names.txt", "\n".join),
    ("names.json", json.dumps),
    ("names.json", lambda names: json.dumps([{"id": place, "name": name} for place, name in enumerate(names)])),
    ("names.csv", lambda names: "\n".join(f'{place},"{name}"' for place, name in enumerate(names))),
)
