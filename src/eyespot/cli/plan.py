"""The verb that says what a training will cost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from eyespot.cli.settings import RecipeArguments


def plan(arguments: Sequence[str]) -> None:
    """Say what a training will cost before it is paid for: operations, memory, storage, device hours per stage.

    eyespot plan eupe [settings as for distill] [--hardware h100] [--gpus N] [--output plan.json]
    """
    own = RecipeArguments("plan", plan.__doc__ or "")
    own.add("--hardware", "NAME: of the device, cpu for this processor, or a YAML FILE (docs/plan.md)", default="h100")
    own.add("--gpus", "N: devices that train side by side", type=int, default=1)
    own.add("--pictures", "N: different pictures, where the data are elsewhere", type=int)
    own.add("--picture-bytes", "N: mean size of a picture's file, likewise", type=float)
    own.add(
        "--stand-in", "SPEC=OTHER ...: models of the same shape for those that are elsewhere", nargs="+", default=[]
    )
    own.add("--output", "FILE.json: where to write all numbers", type=Path)
    read = own.read(arguments)
    if read is None:
        return
    recipe, config, known = read
    from eyespot.files import atomic_write_text
    from eyespot.outputs import MARK, check_output_file
    from eyespot.plan import find_hardware, make_plan, show_plan

    if known.output is not None:
        check_output_file(known.output)
    made = make_plan(
        recipe.outline(config.checked()),
        config.data,
        config.engine,
        hardware=find_hardware(known.hardware),
        gpus=known.gpus,
        standardizer=config.standardizer,
        cache=config.cache,
        pictures=known.pictures,
        picture_bytes=known.picture_bytes,
        stand_ins=dict(_pair(words) for words in known.stand_in),
    )
    show_plan(made)
    if known.output is not None:
        atomic_write_text(known.output, json.dumps({"generator": MARK, **made.as_json()}, indent=1))
        print(f"written: {known.output}")


def _pair(words: str) -> tuple[str, str]:
    """SPEC=OTHER; both may hold options with "=" in them, so the last one before a source's name counts."""
    from eyespot.encoders import SOURCES

    for place, letter in enumerate(words):
        if letter == "=" and words[place + 1 :].partition("/")[0] in SOURCES:
            return words[:place], words[place + 1 :]
    raise ValueError(f"--stand-in takes SPEC=OTHER, e.g. hf/ORG/NAME=timm/vit_large_patch14_dinov2; got {words!r}")
