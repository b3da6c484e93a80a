"""The table: a row per model, size, batch and runtime; JSON, Markdown and the terminal."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from eyespot.tables import markdown_table

NOTHING = "–"
WIDTH_OF_LOGS = 140
BUSY = 0.1
"""Share of a core that a process may use when it should sleep, before the table says so."""


@dataclass(frozen=True)
class Group:
    """What the rows of one group share, and all their ratios are taken within.

    Attributes:
        model: spec of the model, or of a file of another runtime.
        size: (height, width) in pixels.
        batch: pictures per run.
        parameters: millions; None where a file hides them.
        gmacs: 10^9 multiply-accumulates of one picture (`evaluate.cost.giga_macs`); None where a file hides them.
    """

    model: str
    size: tuple[int, int]
    batch: int
    parameters: float | None = None
    gmacs: float | None = None

    @property
    def label(self) -> str:
        """What tells it from other groups."""
        return f"{self.model}, {self.size[0]}x{self.size[1]} px, batch {self.batch}"

    @property
    def title(self) -> str:
        """The label and what is known of the model."""
        facts = [f"{self.parameters:.1f} M parameters"] if self.parameters is not None else []
        facts += [f"{self.gmacs:.2f} GMACs a picture"] if self.gmacs is not None else []
        return ", ".join([self.label, *facts])


@dataclass(frozen=True)
class Row:
    """One runtime in one group. None is what could not be measured.

    Attributes:
        group: model, size and batch.
        runtime: name of the runtime.
        state: "measured", "skipped" (a library is missing) or "failed".
        reason: why it was skipped or failed.
        precision: in which it computes.
        latency_ms: median milliseconds of a run, over all runs of all rounds.
        p95_ms: milliseconds that 95 % of the runs keep.
        speedup: how many times as fast as eager: ratio within each round, median over rounds.
        speedup_low, speedup_high: quartiles of that over rounds.
        pictures_per_second: batch / latency.
        peak_gops: the machine's matrix peak in that precision, 10^9 operations a second, median over rounds.
        peak_fraction: achieved share of it, in [0, 1]: 2 x GMACs x batch / latency / peak, median over rounds.
        memory_mib: largest resident memory, above what the process held before loading.
        load_s: seconds from opening to the first result.
        file_mib: size of the file, or of the weights for torch.
        joules_per_picture: energy of the processor packages.
        idle: share of a core that the process used while others had their turn; near 0 if it slept then.
        runs: timed runs.
    """

    group: Group
    runtime: str
    state: str
    reason: str = ""
    precision: str | None = None
    latency_ms: float | None = None
    p95_ms: float | None = None
    speedup: float | None = None
    speedup_low: float | None = None
    speedup_high: float | None = None
    pictures_per_second: float | None = None
    peak_gops: float | None = None
    peak_fraction: float | None = None
    memory_mib: float | None = None
    load_s: float | None = None
    file_mib: float | None = None
    joules_per_picture: float | None = None
    idle: float | None = None
    runs: int = 0


@dataclass(frozen=True)
class TimingColumn:
    """A column for people: its title and how a row's value is written."""

    title: str
    text: Callable[[Row], str]


@dataclass(frozen=True)
class BenchmarkTable:
    """All that was measured.

    Attributes:
        rows: see `Row`; those of a group follow one another.
        machine: `report.machine_info`, and versions of the runtimes' libraries under "libraries".
        settings: threads, rounds and runs, for the record.
    """

    rows: list[Row]
    machine: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def groups(self) -> dict[Group, list[Row]]:
        """Rows by group, in their order."""
        found: dict[Group, list[Row]] = {}
        for row in self.rows:
            found.setdefault(row.group, []).append(row)
        return found

    def fastest(self, group: Group) -> Row | None:
        """The row of the highest speed-up of a group, or of the lowest latency if it has none."""
        measured = [row for row in self.groups[group] if row.latency_ms is not None]
        return max(measured, key=lambda row: (row.speedup or 0, -(row.latency_ms or 0)), default=None)

    def merged(self, other: BenchmarkTable) -> BenchmarkTable:
        """This table with the groups of another, newer one in place of its own; machine and settings of the newer.

        Raises:
            ValueError: they were measured on machines or with settings that differ, so that they make no one table.
        """
        for kind, ours, theirs in (
            ("machine", _lasting(self.machine), _lasting(other.machine)),
            ("settings", self.settings, other.settings),
        ):
            if ours != theirs:
                raise ValueError(f"two benchmarks of different {kind} make no one table: {ours} and {theirs}")
        new = {_place(group) for group in other.groups}
        kept = [row for row in self.rows if _place(row.group) not in new]
        return BenchmarkTable([*kept, *other.rows], other.machine, other.settings)

    def to_json(self) -> str:
        """Everything; `from_json` reads it back."""
        groups = [
            {**asdict(group), "runtimes": [{k: v for k, v in asdict(row).items() if k != "group"} for row in rows]}
            for group, rows in self.groups.items()
        ]
        content = {"machine": self.machine, "settings": self.settings, "groups": groups}
        return json.dumps(content, indent=1, allow_nan=False) + "\n"

    @staticmethod
    def from_json(text: str) -> BenchmarkTable:
        """Reads what `to_json` wrote."""
        content = json.loads(text)
        rows = []
        for entry in content["groups"]:
            runtimes = entry.pop("runtimes")
            group = Group(**{**entry, "size": tuple(entry["size"])})
            rows += [Row(group=group, **values) for values in runtimes]
        return BenchmarkTable(rows, content["machine"], content["settings"])

    def to_markdown(self) -> str:
        """A GitHub table per group, the fastest runtime in bold, and where it was measured."""
        parts = [f"{self.caption}\n"]
        for group, rows in self.groups.items():
            columns, fastest = _columns(rows), self.fastest(group)
            cells = [
                [f"**{row.runtime}**" if row is fastest else row.runtime, *(column.text(row) for column in columns)]
                for row in rows
            ]
            table = markdown_table(["runtime", *(column.title for column in columns)], cells)
            lines = [f"### {group.title}", "", table]
            remarks = _remarks(rows)
            lines += ["", *(f"- {remark}" for remark in remarks)] if remarks else []
            parts.append("\n".join(lines) + "\n")
        return "\n".join(parts)

    def print(self, console: Console | None = None) -> None:
        """Prints the tables for people, the fastest runtime in bold."""
        console = console or Console()
        console = console if console.is_terminal else Console(width=WIDTH_OF_LOGS, file=console.file)
        for group, rows in self.groups.items():
            columns, fastest = _columns(rows), self.fastest(group)
            table = Table(box=SIMPLE_HEAD)
            table.add_column("runtime", no_wrap=True)
            for column in columns:
                table.add_column(column.title.replace(" ", "\n", 1), justify="right", no_wrap=True)
            for row in rows:
                style = "bold" if row is fastest else None
                table.add_row(row.runtime, *(column.text(row) for column in columns), style=style)
            console.print(f"[bold]{escape(group.title)}[/bold]")
            console.print(table)
            for remark in _remarks(rows):
                console.print(f"  {escape(remark)}")
        console.print(escape(self.caption))

    @property
    def caption(self) -> str:
        """Machine, settings, and what the numbers mean, in a few sentences."""
        machine, libraries = self.machine, self.machine.get("libraries", {})
        where = f"{machine.get('cpu', 'unknown processor')}, {machine.get('cores', '?')} cores, {machine.get('os', '')}"
        versions = {"torch": machine.get("torch"), **libraries}
        with_ = ", ".join(f"{name} {number}" for name, number in versions.items() if number)
        threads = self.settings.get("threads", "?")
        return (
            f"{where}; {threads} threads; {with_}; {machine.get('date', '')}. ms: median of all runs. × eager: ratio "
            "within each round, median and quartiles over rounds. of peak: share of the machine's own matrix-product "
            "peak in the runtime's precision, measured in the same rounds. One multiply-accumulate is two operations."
        )


def _columns(rows: Sequence[Row]) -> list[TimingColumn]:
    """The columns that hold anything."""
    return [column for column in _COLUMNS if any(column.text(row) != NOTHING for row in rows)] or _COLUMNS[:1]


def _number(name: str, digits: int, factor: float = 1.0) -> Callable[[Row], str]:
    def text(row: Row) -> str:
        value = getattr(row, name)
        return NOTHING if value is None else f"{factor * value:.{digits}f}"

    return text


def _speedup(row: Row) -> str:
    if row.speedup is None:
        return NOTHING
    return f"{row.speedup:.2f} ({row.speedup_low:.2f}–{row.speedup_high:.2f})"


_COLUMNS = [
    TimingColumn("ms", _number("latency_ms", 1)),
    TimingColumn("p95 ms", _number("p95_ms", 1)),
    TimingColumn("× eager", _speedup),
    TimingColumn("pictures /s", _number("pictures_per_second", 1)),
    TimingColumn("of peak", _number("peak_fraction", 2)),
    TimingColumn("peak Gop/s", _number("peak_gops", 0)),
    TimingColumn("memory MiB", _number("memory_mib", 0)),
    TimingColumn("load s", _number("load_s", 2)),
    TimingColumn("file MiB", _number("file_mib", 1)),
    TimingColumn("mJ /picture", _number("joules_per_picture", 1, 1000)),
]


def _remarks(rows: Iterable[Row]) -> list[str]:
    """What was not measured and why, and who disturbed the others."""
    remarks = [f"{row.runtime} {row.state}: {row.reason}" for row in rows if row.state != "measured"]
    busy = [f"{row.runtime} {row.idle:.0%}" for row in rows if row.idle is not None and row.idle >= BUSY]
    if busy:
        remarks.append(f"kept a core busy while others ran, so that ratios may be off: {', '.join(busy)}")
    return remarks


def _place(group: Group) -> tuple[str, tuple[int, int], int]:
    return group.model, group.size, group.batch


def _lasting(machine: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in machine.items() if key != "date"}
