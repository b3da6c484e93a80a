"""A plan for people: one table, a column per stage."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from eyespot.plan.estimate import CacheFacts, Plan, StagePlan
from eyespot.plan.memory import RESERVE

UNKNOWN = "unknown"

_Row = tuple[str, Callable[[StagePlan], str]]


def show_plan(plan: Plan, console: Console | None = None) -> None:
    """Prints the tables of a plan and what they rest on."""
    console = console or Console()
    devices = f"{plan.gpus} x {plan.hardware.name}"
    peak = plan.hardware.peak(plan.precision == "bf16-mixed")
    console.print(f"[bold]{escape(devices)}[/], {plan.precision}, peak {amount(peak)}FLOP/s each\n")
    for title, rows in _sections(plan):
        console.print(_table(title, plan.stages, rows))
    console.print(_total(plan))
    console.print("\nAssumed and unknown:")
    for note in plan.notes:
        console.print(f"  - {escape(note)}", highlight=False)


def _table(title: str, stages: Sequence[StagePlan], rows: Sequence[_Row]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("")
    for stage in stages:
        table.add_column(stage.name, justify="right")
    for label, value in rows:
        table.add_row(label, *(escape(value(stage)) for stage in stages))
    return table


def _sections(plan: Plan) -> list[tuple[str, list[_Row]]]:
    rest: list[tuple[str, list[_Row]]] = [
        ("What is computed", _computing()),
        (f"Memory of each device ({size(plan.hardware.memory_bytes)})", _memory(plan)),
        ("Time", _time(plan)),
        ("Pictures", _pictures(plan)),
    ]
    if any(stage.cache for stage in plan.stages):
        rest.append(("Keeping the teachers' features", _cache()))
    return rest


def _computing() -> list[_Row]:
    return [
        ("steps x pictures", lambda stage: f"{stage.config.steps:,} x {stage.config.batch_size:,}"),
        ("teachers", lambda stage: _models(stage, "teachers")),
        ("students", lambda stage: _models(stage, "students")),
        ("adapter heads", lambda stage: f"{amount(stage.head_parameters)} parameters"),
        ("FLOPs each: teachers", lambda stage: amount(stage.teacher_flops)),
        ("  students, forward", lambda stage: amount(stage.forward_flops)),
        ("  students, backward", lambda stage: amount(stage.backward_flops)),
        ("FLOPs of the stage", lambda stage: amount(stage.flops)),
    ]


def _models(stage: StagePlan, kind: str) -> str:
    lines = []
    for name, facts in getattr(stage, kind).items():
        sides = "/".join(str(height) if height == width else f"{height}x{width}" for height, width in facts.sizes)
        lines.append(f"{name} {amount(facts.parameters)} @{sides}")
    return "\n".join(lines)


def _memory(plan: Plan) -> list[_Row]:
    def stays(stage: StagePlan) -> str:
        memory = stage.memory
        return size(memory.weights + memory.gradients + memory.moments + memory.average + memory.exchange)

    return [
        ("micro-batch", lambda stage: f"{stage.memory.pictures:,} pictures"),
        ("what is trained", stays),
        ("teachers' weights", lambda stage: size(stage.memory.teachers)),
        ("activations", lambda stage: size(stage.memory.activations)),
        ("peak", lambda stage: size(stage.memory.needed)),
        ("largest that fits", lambda stage: _fitting(stage, plan)),
    ]


def _fitting(stage: StagePlan, plan: Plan) -> str:
    if stage.fitting is None:
        more = "" if plan.gpus > 1 else "more devices with "
        return f"does not fit;\ntry {more}fsdp, shard_teachers,\nactivation_checkpointing"
    return f"{stage.fitting.pictures:,} ({size(stage.fitting.needed)}): accumulate {stage.accumulate}"


def _time(plan: Plan) -> list[_Row]:
    return [
        ("device hours: teachers", lambda stage: hours(stage.teacher_hours)),
        ("  students and heads", lambda stage: hours(stage.student_hours)),
        ("  together", lambda stage: hours(stage.hours)),
        (f"on {plan.gpus} devices", lambda stage: duration(stage.hours / plan.gpus)),
        ("a step", lambda stage: f"{stage.step_seconds:.3g} s"),
    ]


def _pictures(plan: Plan) -> list[_Row]:
    def speed(stage: StagePlan) -> float:
        return stage.config.batch_size / stage.step_seconds / plan.gpus

    def bandwidth(stage: StagePlan) -> str:
        mean = plan.pictures.mean_bytes
        return UNKNOWN if mean is None else f"{size(speed(stage) * mean)}/s"

    return [
        ("read over the stage", lambda stage: f"{amount(stage.pictures_read)} pictures"),
        ("", lambda stage: UNKNOWN if stage.picture_bytes is None else size(stage.picture_bytes)),
        ("each device needs", lambda stage: f"{speed(stage):,.0f} pictures/s"),
        ("", bandwidth),
    ]


def _cache() -> list[_Row]:
    def of(value: Callable[[CacheFacts], str]) -> Callable[[StagePlan], str]:
        return lambda stage: "" if stage.cache is None else value(stage.cache)

    return [
        ("configured", lambda stage: _configured(stage.cache)),
        ("bytes per view", of(lambda facts: size(sum(facts.plan.row_bytes.values())))),
        ("on disk", of(lambda facts: UNKNOWN if facts.plan.bytes is None else size(facts.plan.bytes))),
        ("per million pictures", of(lambda facts: size(1e6 * facts.plan.views * sum(facts.plan.row_bytes.values())))),
        ("device hours: live", of(lambda facts: hours(facts.live_hours))),
        ("  to fill it", of(lambda facts: UNKNOWN if facts.fill_hours is None else hours(facts.fill_hours))),
        ("  saved", of(lambda facts: UNKNOWN if facts.saved_hours is None else hours(facts.saved_hours))),
        ("reading, each device", of(lambda facts: f"{size(facts.read_bytes_per_second)}/s")),
    ]


def _configured(facts: CacheFacts | None) -> str:
    if facts is None:
        return "cannot be kept"
    return "yes" if facts.used else "no"


def _total(plan: Plan) -> str:
    together = f"{amount(plan.flops)}FLOP, {hours(plan.hours)} device hours, {duration(plan.hours / plan.gpus)} on them"
    worst = max(plan.stages, key=lambda stage: stage.memory.needed)
    fits = "every stage fits" if plan.fits else "[bold red]not every stage fits into a device[/]"
    return (
        f"[bold]Total:[/] {together}; {fits}; the most memory as configured is {size(worst.memory.needed)} in "
        f"{worst.name}, of {size(plan.hardware.memory_bytes * (1 - RESERVE))} usable"
    )


def amount(value: float) -> str:
    """A number with a unit prefix: 1.8 G."""
    for power, prefix in ((24, "Y"), (21, "Z"), (18, "E"), (15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if value >= 10**power:
            return f"{value / 10**power:.3g} {prefix}"
    return f"{value:.3g} "


def size(value: float) -> str:
    """Bytes in binary units: 1.5 GiB."""
    power = min(5, int(math.log(value, 1024))) if value >= 1 else 0
    return f"{value / 1024**power:.3g} {('B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB')[power]}"


def hours(value: float) -> str:
    """Hours, with as many digits as mean something."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def duration(value: float) -> str:
    """Hours as people say them."""
    if value >= 48:
        return f"{value / 24:.3g} days"
    return f"{value:.3g} h" if value >= 1 else f"{value * 60:.3g} min"
