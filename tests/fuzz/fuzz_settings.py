"""Configurations, command lines and specs: what is set is what is used, and what cannot be meant is refused by name."""

from __future__ import annotations

import math
import os
import random
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from fuzzing import Case, Skipped, Wrong
from PIL import Image

from eyespot.cli.main import main
from eyespot.config import as_plain, build, merged, settings_of
from eyespot.data import open_source
from eyespot.data.sets import open_multitask
from eyespot.encoders import load_encoder
from eyespot.recipes import RECIPES
from eyespot.recipes.presets import preset_names, read_settings

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, 2, 3, -1, 7, 10**12, 0.0, 0.5, 1.0, -0.5, 1e-30, 1e30, math.nan, math.inf, -math.inf),
    *("", "none", "word", "3", "0.5", "a,b", "timm/test_vit", "ä", "\0", "x" * 300),
    *([], [1], [0], [-1], [32], [32, 64], [0.5, 0.9], ["a"], ["a", "a"], [None], [[]], {}, {"a": 1}, {"model": "x"}),
)
COMPLETE: dict[str, dict[str, Any]] = {
    "eupe": {"teachers": ["timm/a"]},
    "sak": {"teachers": ["timm/a"]},
    "vanilla_kd": {"teacher": "timm/a"},
    "ofa_kd": {"teacher": "timm/a"},
    "ghostnet_v3": {"teacher": "timm/a"},
}
"""What presets leave open."""
WORKING = tuple(name for name, recipe in RECIPES.items() if recipe.config)


def draw(rng: random.Random, folder: Path) -> Case:
    return rng.choice((_configuration, _configuration, _words, _file, _verb, _spec))(rng, folder)


@cache
def _presets(recipe: str) -> list[str]:
    return preset_names(recipe)


@cache
def _names(recipe: str) -> dict[str, Any]:
    return settings_of(RECIPES[recipe].config_class)


def _nested(name: str, value: Any) -> dict[str, Any]:
    for part in reversed(name.split(".")):
        value = {part: value}
    return value


def _configuration(rng: random.Random, folder: Path) -> Case:
    """One or two settings of a preset that are something else."""
    recipe = rng.choice(WORKING)
    preset = rng.choice(_presets(recipe))
    settings = merged(read_settings(recipe, [preset]), COMPLETE[recipe])
    plain = as_plain(build(RECIPES[recipe].config_class, settings, preset))
    names = rng.sample(sorted(_names(recipe)), rng.choice((1, 1, 2)))
    changed = {name: rng.choice((rng.choice(VALUES), _near(rng, _entry(plain, name)))) for name in names}
    if rng.random() < 0.1:
        changed[rng.choice(("sedd", "data.veiw", "engine.devcies", "", "seed.deeper"))] = 1
    for name, value in changed.items():
        settings = merged(settings, _nested(name, value))

    def judge(found: Any, warned: list[str]) -> None:
        plain = as_plain(found)
        for name, value in changed.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise Wrong(f"{name}={value} is taken")
            if len(changed) == 1 and not _is(plain, name, value):
                raise Wrong(f"{name}={value!r} became {_entry(plain, name)!r}")

    act = lambda: build(RECIPES[recipe].config_class, settings, "fuzz.yaml").checked()  # noqa: E731
    names = [part for name in changed for part in (name, name.split(".")[0], name.rpartition(".")[2]) if part]
    return Case(f"{recipe} {preset} {changed}", act, [*names, "configuration"], judge)


def _near(rng: random.Random, value: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return rng.choice((value + 1, 2 * value, value / 2, value // 2, -value))
    return value * 2 if isinstance(value, list) else value


def _entry(plain: Any, name: str) -> Any:
    for part in name.split("."):
        plain = plain[part] if isinstance(plain, dict) else None
    return plain


def _is(plain: dict[str, Any], name: str, value: Any) -> bool:
    """Whether a setting has a value, or what that is short for; stages take over what `steps` says."""
    found = _entry(plain, name)
    if isinstance(value, dict) or name == "steps" or found == value or str(found) == str(value):
        return True
    if isinstance(value, str) and isinstance(found, int | float):
        return float(value) == found
    if isinstance(found, list):
        return found == [value] or (value is None and found == []) or sorted(map(str, found)) == sorted(map(str, value))
    return name == "data" or value in ("none", "")


def _words(rng: random.Random, folder: Path) -> Case:
    """The same as words of a command line; without --output the training ends where it would begin."""
    recipe = rng.choice(WORKING)
    name = rng.choice(sorted(_names(recipe)))
    value = rng.choice([value for value in VALUES if not isinstance(value, list | dict) and value not in ("", "\0")])
    option = f"--{name.replace('_', '-')}"
    complete = [word for name, value in COMPLETE[recipe].items() for word in (f"--{name}", str(value).strip("[]'"))]
    words = ["distill", recipe, *complete, *([option] if rng.random() < 0.1 else [option, str(value)])]
    words += rng.choice(([], [], ["--presett", "laptop"], ["--preset", "nope"], ["stray"], ["--seed"]))
    return Case(" ".join(words), lambda: _run(words), [option, *name.split("."), "--output", *words[-2:]])


def _run(words: list[str]) -> None:
    os.environ["EYESPOT_DEBUG"] = "1"  # errors as they are raised, so that their kind can be seen
    main(words)


def _file(rng: random.Random, folder: Path) -> Case:
    """A configuration file, sound or cut somewhere."""
    recipe = rng.choice(WORKING)
    path = folder / "fuzz.yaml"
    text = yaml.safe_dump(read_settings(recipe, [rng.choice(_presets(recipe))]), sort_keys=False)
    kind = rng.choice(("sound", "cut", "tabs", "list", "empty", "latin"))
    content = {
        "sound": text.encode(rng.choice(("utf-8", "utf-8-sig", "utf-16"))),
        "cut": text[: rng.randrange(len(text))].encode(),
        "tabs": text.replace("  ", "\t", 1).encode(),
        "list": b"- a\n- b\n",
        "empty": b"",
        "latin": "seed: 3 # \xe4".encode("latin-1"),
    }[kind]
    path.write_bytes(content)
    act = lambda: build(RECIPES[recipe].config_class, read_settings(recipe, [], path), str(path))  # noqa: E731
    return Case(f"{recipe} file {kind}", act, [str(path)], may_refuse=kind != "sound")


def _verb(rng: random.Random, folder: Path) -> Case:
    """Command lines of the other verbs that cannot be meant."""
    picture, broken = folder / "a.png", folder / "broken.png"
    Image.new("RGB", (40, 40)).save(picture)
    broken.write_bytes(b"\x89PNG\r\n\x1a\n")
    model, number = "timm/test_vit?pretrained=false", rng.choice(("0", "-3", "1e9", "x", "", "nan", "2.5"))
    wrong = rng.choice(
        ("nope", "tim/test_vit", "timm/nope", "onnx/nope.onnx", "run/nope", "python/nope.py:x", "eupe/", "/")
    )
    lines: list[tuple[list[str], list[str]]] = [
        (["evaluate", wrong], [wrong, wrong.partition("/")[0], wrong.partition("/")[2]]),
        (["evaluate", model, "--tasks", "knnn"], ["knnn"]),
        (["evaluate", model, "--size", number], ["size"]),
        (["evaluate", model, "--limit", number], ["limit", "toybox"]),
        (["evaluate", model, "--data", wrong], [wrong]),
        (["evaluate", model, "--data", f"knn={wrong}"], [wrong]),
        (["evaluate", model, "--tasks", "knn", "--options", f"knn.kk={number}"], ["kk"]),
        (["evaluate", model, "--tasks", "knn", "--options", wrong], [wrong]),
        (["evaluate", model, "--data", f"knn=toybox:{number}"], ["toybox"]),
        (["evaluate"], ["model"]),
        (["report", str(folder)], [str(folder)]),
        (["report", wrong, "--output", str(folder)], [wrong, str(folder)]),
        (["visualize", model, str(broken), "--output", str(folder / "x.png")], [str(broken)]),
        (["visualize", model, str(picture), "--size", number, "--output", str(folder / "x.png")], ["size"]),
        (["visualize", wrong, str(picture), "--output", str(folder / "x.png")], [wrong, wrong.partition("/")[2]]),
        (["export", model, "--format", "onx", "--output", str(folder / "e")], ["onx", "format"]),
        (["export", wrong, "--output", str(folder / "e")], [wrong, wrong.partition("/")[0], wrong.partition("/")[2]]),
        (["benchmark", wrong], [wrong, wrong.partition("/")[0], wrong.partition("/")[2]]),
        (["toybox", "--output", str(folder)], [str(folder)]),
        (["audit", "--teachers", wrong], [wrong, "teachers", "--data"]),
        (["recipes", wrong], [wrong]),
        (["plan", wrong], [wrong]),
        (["plan", "eupe", "--gpus", number], ["gpus", "devices", "teachers"]),
        (["plan", "eupe", "--pictures", number, "--picture-bytes", number], ["picture", "teachers"]),
        (["cache", wrong], [wrong, "cache"]),
        ([wrong], [wrong]),
    ]
    words, names = rng.choice(lines)
    names = [*names, "nope.py"] if wrong.startswith("python/") else names
    return Case(" ".join(words), lambda: _run(words), names)


PIECES = (
    "timm/",
    "test_vi",
    "onnx/",
    "run/",
    "eupe/",
    "?",
    "&",
    "=",
    "pretrained",
    "false",
    "img_size",
    "64",
    "%zz",
    "+",
)
SOURCES = (
    "toybox",
    ":",
    "@",
    "12",
    "32",
    "-1",
    "/",
    "x",
    ".tar",
    "{0..2}",
    "*",
    "datasets/",
    "nyud:",
    "?tasks=",
    "depth",
)


def _spec(rng: random.Random, folder: Path) -> Case:
    """Specs of models, pictures and labelled sets, put together at random."""
    openers: list[tuple[Callable[[str], Any], tuple[str, ...]]] = [
        (load_encoder, PIECES),
        (open_source, SOURCES),
        (lambda spec: open_multitask(spec, "train"), SOURCES),
    ]
    opened, pieces = rng.choice(openers)
    spec = "".join(rng.choice(pieces) for _ in range(rng.randrange(1, 6)))
    if opened is load_encoder and rng.random() < 0.7:
        spec = f"timm/test_vit?pretrained=false&{rng.choice(('img_size', 'num_classes', 'patch_size', 'x', 'mean'))}="
        spec += rng.choice(("", "0", "-1", "64", "x", "1,2,3", "true", "1e9", "0.5,0.5"))

    def judge(found: Any, warned: list[str]) -> None:
        if opened is open_source and not len(found):
            raise Wrong("no pictures, and no word")
        if opened is load_encoder and not found.summary_dim > 0:
            raise Skipped

    bare = [spec.partition("?")[0].partition("/")[2].strip("/")]
    parts = bare + [part for part in re.split(r"[?&= ]", spec) if len(part) > 1]
    return Case(spec, lambda: opened(spec), [spec, spec.partition("?")[0] or spec, *parts], judge)
