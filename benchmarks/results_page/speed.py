"""What things cost: steps, caches, teachers, loading; the same beside other libraries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from eyespot.tables import markdown_table
from results_page.numbers import listed, load, made_on, number

PROFILED = "ViT-T, bfloat16, cached teachers"
ALONE = "ready in memory"
LOOKS = {"peers_speed": "first look", "peers_speed_long": "second look", "peers_speed_vit": "third look"}


def speed() -> dict[str, Any]:
    """One row per measurement."""
    rows = [*_engine(), *_caches(), *_teachers(), *_data()]
    used = ("step_overhead", "cached_training", "step_profile", "many_students", "teacher_runtimes", "extraction_speed")
    cached = load("cached_training")["arms"]["bfloat16"]["times_student_alone"]
    quartiles = load("step_overhead")["ratio_quartiles"]
    return {
        "table": markdown_table(["what", "measured", "script"], rows, numbers=False),
        "cache": _cache_table(),
        "engine_adds_nothing": quartiles[0] <= 1 <= quartiles[1],
        "cache_adds_nothing": cached["smallest"] <= 1 <= cached["largest"],
        "made": made_on(*used),
    }


def peers() -> dict[str, Any]:
    """A step with the same losses, beside LightlyTrain and a loop by hand."""
    lines, verdicts = [], []
    for name, look in LOOKS.items():
        for contest, found in load(name)["contests"].items():
            arms = found["arms"]
            if "LightlyTrain, similarity" in arms:
                ours, theirs = (arms[f"{who}, similarity"] for who in ("eyespot", "LightlyTrain"))
                lines.append([f"{contest} ({look})", *map(_ratio, (ours, theirs)), *map(_milliseconds, (ours, theirs))])
                verdicts.append(_verdict(ours, theirs))
    head = ["contest", "eyespot / by hand", "LightlyTrain / by hand", "eyespot, ms", "LightlyTrain, ms"]
    return {
        "table": markdown_table(head, lines),
        "contests": len(verdicts),
        "ahead": verdicts.count(1),
        "behind": verdicts.count(-1),
        "level": verdicts.count(0),
        "in_memory": _in_memory(),
        "made": made_on(*LOOKS),
    }


def quality() -> dict[str, Any]:
    """What a student is worth after equal training, one seed."""
    data = load("peers_quality")
    patches = {f"{teacher} patch": f"patches of *{teacher}*" for teacher in data["settings"]["teachers"]}
    columns = {"knn": "k-NN, %", "segmentation": "mIoU, %", **patches, "cpu seconds": "CPU seconds"}
    lines = []
    for name, seeds in data["rows"].items():
        row = seeds[0]
        shares = [number(row[key] * 100) for key in ("knn", "segmentation")]
        known = [number(row[key], 2) for key in patches]
        lines.append([name, *shares, *known, number(row["cpu seconds"], 0) if "cpu seconds" in row else ""])
    settings = data["settings"]
    seeds = len(settings["seeds"])
    return {
        "table": markdown_table(["student", *columns.values()], lines),
        "steps": settings["steps"],
        "seeds": f"{seeds} seed{'s' if seeds > 1 else ''}",
        "made": made_on("peers_quality"),
    }


def _engine() -> Iterator[list[str]]:
    found = load("step_overhead")
    settings = found["settings"]
    yield [
        "a step of the engine against the same step written by hand (ViT-T from ViT-S, "
        f"{settings['size']} px, batch {settings['batch_size']}, float32)",
        f"{found['ratio_median']:.3f} times (quartiles {_to(found['ratio_quartiles'], 3)})",
        "`step_overhead.py`",
    ]
    probes = load("probe_overhead")
    ratio = probes["ratio_with_a_probe_every_500_steps"]
    yield [
        f"a training with a probe every {probes['settings']['usual']} steps in the background, against none",
        f"{ratio['best']:.3f} to {ratio['worst']:.3f} times",
        "`probe_overhead.py`",
    ]


def _caches() -> Iterator[list[str]]:
    found = load("cached_training")
    arm, experts = found["arms"]["bfloat16"], len(found["settings"]["experts"])
    alone, live = arm["times_student_alone"], arm["times_faster_than_live"]
    yield [
        f"stage 1 with {experts} real experts from the teacher cache: against the student alone; against live experts",
        f"{_median(alone)} times ({_ends(alone)}); {_median(live)} times as fast ({_ends(live)})",
        "`cached_training.py`",
    ]
    before, after = (_profiled(name) for name in ("step_profile_before", "step_profile"))
    parts = after["parts"]
    pictures = sum(parts[key] for key in ("read and decode", "draw view", "view: crop, resize, colour", "collate"))
    yield [
        "a step of stage 1 from the cache in bfloat16 (ViT-T), before and after resizing, cosine and attention became "
        "faster",
        f"{before['plain_ms']:.0f} and {after['plain_ms']:.0f} ms; {_share(parts['backward'], after)} of it is the "
        f"backward pass, {_share(pictures, after)} the pictures",
        "`step_profile.py`",
    ]


def _cache_table() -> str:
    """What the precisions of the teacher cache cost and save."""
    lines = []
    for name, arm in load("cached_training")["arms"].items():
        live, off = arm["times_faster_than_live"], arm["loss_off_live"]
        size = "" if arm["bytes_per_row"] is None else number(sum(arm["bytes_per_row"].values()) / 1000, 0)
        loss = "" if off is None else f"{100 * off['mean']:.2f} ({100 * off['largest']:.2f})"
        ratio = f"{_median(arm['times_student_alone'])} ({_ends(arm['times_student_alone'])})"
        lines.append([ALONE if name == "alone" else name, ratio, f"{_median(live)} ({_ends(live)})", size, loss])
    head = [
        "targets",
        "times the student alone",
        "times as fast as live",
        "kB a row",
        "loss off live, %, mean (largest)",
    ]
    return markdown_table(head, lines)


def _teachers() -> Iterator[list[str]]:
    found = load("many_students")
    own, apart = found["together_over_sum"], found["together_over_separate_runs"]
    yield [
        "ViT-T, ViT-S and ConvNeXt-T from one pass of a ViT-B: against their own steps "
        "and one pass; against separate runs",
        f"{own['median']:.2f} times ({_to(own['quartiles'])}); {apart['median']:.2f} times ({_to(apart['quartiles'])})",
        "`many_students.py`",
    ]
    kinds = ("eager float32", "eager bfloat16", "openvino bfloat16")
    by_kind = load("teacher_runtimes")["results"]["ViT-S, 224 px"]
    yield [
        f"a frozen ViT-S teacher at 224 px: {listed(kinds).replace('openvino', 'OpenVINO')}",
        f"{listed([number(by_kind[kind]['ms_per_picture'], 0) for kind in kinds])} ms of CPU a picture",
        "`teacher_runtimes.py`",
    ]


def _data() -> Iterator[list[str]]:
    yield [
        "data loading: read, decode and augment a JPEG",
        f"{load('step_overhead')['loading_ms_per_picture']:.1f} ms of CPU a picture",
        "`step_overhead.py`",
    ]
    found = load("extraction_speed")
    memory, disk = found["share of the bare forward throughput"].values()
    yield [
        f"extracting features against the bare forward pass (ViT-T, {found['settings']['size']} px): to memory; "
        "to disk",
        f"{_low_high(memory)}; {_low_high(disk)} of its throughput",
        "`extraction_speed.py`",
    ]
    dense = found["dense features of ADE20K-size pictures, ViT-B width at 512 px"]
    yield [
        f"peak memory of dense features of {found['settings']['memory_pictures']:,} pictures at 512 px and ViT-B's "
        f"width ({dense['GiB on disk']:.1f} GiB on disk), with a probe on them",
        f"{dense['GiB at the peak']:.1f} GiB",
        "`extraction_speed.py`",
    ]
    toybox = load("toybox_speed")
    yield [
        f"toybox scenes at {toybox['size']} px with ground truth, {toybox['threads']} threads ({toybox['machine']}, "
        f"torch {toybox['torch'].partition('+')[0]})",
        f"{toybox['pictures_per_second']:.0f} a second",
        "`toybox_speed.py`",
    ]


def _profiled(name: str) -> dict[str, Any]:
    return next(arm for arm in load(name)["arms"] if arm["name"] == PROFILED)


def _share(part: float, arm: dict[str, Any]) -> str:
    return f"{100 * part / arm['sum_ms']:.0f} %"


def _to(ends: Sequence[float], digits: int = 2) -> str:
    return f"{ends[0]:.{digits}f} to {ends[1]:.{digits}f}"


def _median(found: dict[str, float]) -> str:
    return f"{found['median']:.2f}"


def _ends(found: dict[str, float]) -> str:
    return _to((found["smallest"], found["largest"]))


def _low_high(found: dict[str, float]) -> str:
    return f"{_median(found)} ({_to((found['low'], found['high']))})"


def _ratio(arm: dict[str, Any]) -> str:
    return f"{arm['cpu_ratio']:.2f} ({_to(arm['cpu_ratio_quartiles'])})"


def _milliseconds(arm: dict[str, Any]) -> str:
    return number(arm["cpu_ms_per_step"], 0)


def _verdict(ours: dict[str, Any], theirs: dict[str, Any]) -> int:
    """1 if our quartiles lie below theirs, -1 if above, 0 if they overlap: level."""
    one, other = ours["cpu_ratio_quartiles"], theirs["cpu_ratio_quartiles"]
    if one[1] < other[0]:
        return 1
    return -1 if one[0] > other[1] else 0


def _in_memory() -> str:
    """Smallest and largest ratio of ours to the loop by hand where pictures are in memory, over the looks."""
    ratios = [
        arm["cpu_ratio"]
        for name in LOOKS
        for contest, found in load(name)["contests"].items()
        if contest == "small, in memory"
        for who, arm in found["arms"].items()
        if who.startswith("eyespot")
    ]
    return _to((min(ratios), max(ratios)))
