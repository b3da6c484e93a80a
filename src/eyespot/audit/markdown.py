"""An audit as tables for people."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from eyespot.audit.result import CommitteeAudit, Interference
from eyespot.audit.similarity import Matrix
from eyespot.audit.subsets import subsets_of
from eyespot.tables import markdown_table

UNKNOWN = "–"


def markdown_of(audit: CommitteeAudit) -> str:
    """The whole audit: verdicts first, then what they rest on."""
    parts = [f"# Committee audit: {', '.join(audit.teachers)}"]
    if audit.seeds:
        parts += [_verdicts(audit), _interference(audit), _losses(audit), _known(audit)]
    parts += [*_similarity(audit), *_conflict(audit)]
    return "\n\n".join(parts) + "\n"


def _verdicts(audit: CommitteeAudit) -> str:
    rows = []
    for verdict in audit.verdicts:
        known = ", ".join(f"{name} {value:.2f}" for name, value in verdict.known.items())
        change = share(Interference((verdict.interference,)), verdict.spread)
        cka = _number(audit.similarity.patches[verdict.first][verdict.second])
        rows.append([f"{verdict.first}, {verdict.second}", f"**{verdict.word}**", change, cka, known])
    header = ["teachers", "verdict", "interference", "CKA of patches", "known from the other alone (R²)"]
    rule = (
        "Interference: how much higher a teacher's loss is because the other one is in the committee, mean of both "
        f"directions ± standard deviation over {_seeds(audit)}. Harm beyond that and beyond {audit.tolerance:.1%} is "
        "a fight, as much help complements, the rest is indifferent."
    )
    return f"## Verdicts\n\n{markdown_table(header, rows)}\n\n{rule}"


def _interference(audit: CommitteeAudit) -> str:
    table = _square(audit.teachers, lambda on, of: share(audit.interference(on, of)))
    about = "Row: whose loss; column: because of whom. Positive is harm."
    return f"## Interference\n\n{markdown_table(['', *audit.teachers], table)}\n\n{about}"


def _losses(audit: CommitteeAudit) -> str:
    rows = []
    for name, taught_by in subsets_of(audit.teachers).items():
        cells = [
            f"{share(audit.regret(taught_by, teacher))} ({audit.remaining(taught_by, teacher).mean:.2f})"
            if teacher in taught_by
            else UNKNOWN
            for teacher in audit.teachers
        ]
        rows.append([name, *cells])
    about = (
        "Held-out distillation loss against each teacher, relative to a student of this teacher alone (regret); in "
        "brackets, as a share of the untrained student's loss."
    )
    return f"## What sharing costs\n\n{markdown_table(['student', *audit.teachers], rows)}\n\n{about}"


def _known(audit: CommitteeAudit) -> str:
    students = {"untrained": (), **subsets_of(audit.teachers)}
    rows = [
        [name, *(_spread(audit.known(taught_by, teacher), teacher in taught_by) for teacher in audit.teachers)]
        for name, taught_by in students.items()
    ]
    about = (
        "R² of a linear map from the student's patches to each teacher's, on held-out pictures; in bold, teachers that "
        "it learnt from. A teacher that students of the others know anyway brings little."
    )
    return f"## What a student knows of each teacher\n\n{markdown_table(['student', *audit.teachers], rows)}\n\n{about}"


def _similarity(audit: CommitteeAudit) -> list[str]:
    alike = audit.similarity
    rows, columns = alike.grid
    tables: list[tuple[str, Matrix]] = [("Summaries", alike.summaries), ("Patches", alike.patches)]
    tables += [(f"Patches of level {level}", matrix) for level, matrix in alike.levels.items()]
    parts = ["## Similarity of the teachers", f"Linear CKA, debiased, on {alike.pictures} held-out pictures."]
    if alike.levels:
        parts[-1] += " Levels: the ends of the four stages, among teachers that show them."
    parts += [f"{title}:\n\n{_named(matrix)}" for title, matrix in tables]
    parts.append(
        f"Patches of the row predict those of the column (ridge regression on a grid of {rows} x {columns}, R² on "
        f"pictures it was not fitted on):\n\n{_named(alike.prediction)}"
    )
    return parts


def _conflict(audit: CommitteeAudit) -> list[str]:
    if not audit.conflict:
        return []
    tables = [f"After {steps} steps:\n\n{_named(matrix)}" for steps, matrix in audit.conflict.items()]
    about = "Cosine between the gradients of two teachers' losses at a student of all. Negative: they pull apart."
    return ["## Gradients", about, *tables]


def share(value: Interference, spread: float | None = None) -> str:
    """A share in percent with its sign: +3.1 ± 0.4 %."""
    spread = value.spread if spread is None else spread
    return f"{100 * value.mean:+.1f}" + (f" ± {100 * spread:.1f}" if spread is not None else "") + " %"


def _spread(value: Interference, bold: bool) -> str:
    text = f"{value.mean:.2f}" + (f" ± {value.spread:.2f}" if value.spread is not None else "")
    return f"**{text}**" if bold else text


def _named(matrix: Matrix) -> str:
    names = list(matrix)
    return markdown_table(["", *names], _square(names, lambda row, column: _number(matrix[row].get(column))))


def _square(names: Sequence[str], cell: Callable[[str, str], str]) -> list[list[str]]:
    return [[row, *(UNKNOWN if row == column else cell(row, column) for column in names)] for row in names]


def _number(value: float | None) -> str:
    return UNKNOWN if value is None or value != value else f"{value:.2f}"


def _seeds(audit: CommitteeAudit) -> str:
    return "one seed" if len(audit.seeds) == 1 else f"{len(audit.seeds)} seeds"
