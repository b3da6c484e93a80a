"""The verb that computes teacher features before training: parses, calls the Python API, prints."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from eyespot.cli.settings import RecipeArguments

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from eyespot.data import PictureLoader
    from eyespot.distill.cache import CachedCommittee, Estimate, Verification

SHOWN = 20
"""Differences and unreadable pictures that are printed one by one."""


def cache(arguments: Sequence[str]) -> None:
    """Compute teacher features ahead of training, say what that will take, or check what is there.

    eyespot cache eupe [settings as for distill] --cache.folder FOLDER [--estimate | --verify N] [--part K/N]
    """
    own = RecipeArguments("cache", cache.__doc__ or "")
    own.add("--estimate", "print rows, size and time, and write nothing", action="store_true")
    own.add("--verify", "N: read all that is stored, and compute N rows again to compare", type=int)
    own.add("--part", "K/N: only the K-th of N parts, from 1/N to N/N; each may run elsewhere", default="1/1")
    read = own.read(arguments)
    if read is None:
        return
    recipe, config, known = read
    if known.estimate and known.verify is not None:
        raise ValueError("--estimate and --verify are two questions; ask one at a time")
    named_part = _part(known.part)
    from eyespot.distill.cache import estimate, verify
    from eyespot.engine.strategy import start_fabric
    from eyespot.runs.cached import open_cached

    config = config.checked()
    committee, loader = open_cached(
        recipe.outline(config), config.data, config.cache, config.engine.precision, known.verify is not None
    )
    fabric = start_fabric(config.engine)
    if known.verify is not None:
        _say_what_was_found(verify(committee, loader, fabric, known.verify))
        return
    part, parts = _shared(named_part, fabric)
    if known.estimate:
        _say_what_it_takes(estimate(committee, loader, fabric, part=part, parts=parts), committee)
        return
    _build(committee, loader, fabric, part, parts)


def _part(words: str) -> tuple[int, int]:
    """The number of a part from 0, and how many there are: 2/8 is (1, 8)."""
    found = re.fullmatch(r"(\d+)/(\d+)", words)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise ValueError(f"--part takes K/N with K from 1 to N, e.g. 2/8, not {words!r}")
    return int(found[1]) - 1, int(found[2])


def _shared(part: tuple[int, int], fabric: Fabric) -> tuple[int, int]:
    """The share of this process, if several were started for one part (torchrun, engine.devices)."""
    return part[0] * fabric.world_size + fabric.global_rank, part[1] * fabric.world_size


def _build(committee: CachedCommittee, loader: PictureLoader, fabric: Fabric, part: int, parts: int) -> None:
    from eyespot.distill.cache import build_cache
    from eyespot.evaluate.progress import shown_progress

    with shown_progress() as progress:
        built = build_cache(
            committee,
            loader,
            fabric,
            part=part,
            parts=parts,
            progress=lambda done, of: progress("rows of teacher features", done, of),
        )
    of = "" if parts == 1 else f" of part {part + 1}/{parts}"
    print(f"{built.rows:,} rows{of} in {committee.folder}: {built.computed:,} computed, the others were there.")
    for name, teacher in committee.caches.items():
        if teacher.kept_variance is not None:
            print(f"{name}: the principal components keep {teacher.kept_variance:.2%} of the patches' variance.")
    _say_some("pictures cannot be read and are left out", [f"{name} ({why})" for name, why in built.unreadable.items()])


def _say_what_it_takes(found: Estimate, committee: CachedCommittee) -> None:
    table = Table("teacher", "bytes per row", "ms per picture", "rows to do", "on disk", box=None)
    for name, teacher in found.teachers.items():
        cells = (f"{teacher.record_bytes:,}", f"{1000 * teacher.seconds:.1f}", f"{teacher.missing:,}")
        table.add_row(name, *cells, _size(teacher.bytes))
    Console().print(table)
    views = committee.rows.views
    print(f"{found.rows:,} rows ({views} views of each picture). Reading one: {1000 * found.picture_seconds:.1f} ms.")
    print(f"On disk: {_size(found.bytes)}, of {_size(found.free)} free. Time here: about {_time(found.seconds)}.")
    if found.bytes > found.free:
        print("It does not fit. --cache.store int8 and --cache.rank make it smaller, and so do fewer --data.views.")


def _say_what_was_found(found: Verification) -> None:
    print(f"{found.stored:,} rows of every teacher, {found.shards:,} shards with the right checksums.")
    compared = (
        f"{found.compared:,} rows computed again: {found.identical:,} of {found.features:,} features equal to the bit"
    )
    print(f"{compared}, the largest relative difference {found.largest:.2g}.")
    _say_some("damaged shards were removed; the same command without --verify builds them again", found.removed)
    _say_some("features are not what their teachers say; delete the folder to build it again", found.different)
    if not found.ok:
        raise SystemExit(1)


def _say_some(heading: str, names: Sequence[str]) -> None:
    if names:
        print(f"{len(names):,} {heading}:")
    for name in names[:SHOWN]:
        print(f"  {name}")
    if len(names) > SHOWN:
        print(f"  and {len(names) - SHOWN:,} more")


def _size(count: int) -> str:
    """Bytes for people, in powers of 1000."""
    size, units = float(count), iter(("kB", "MB", "GB", "TB", "PB"))
    unit = "bytes"
    while size >= 1000:
        size, unit = size / 1000, next(units)
    return f"{size:.3g} {unit}"


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
