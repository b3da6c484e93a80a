"""The result of an audit, and what it says about every two teachers."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from statistics import mean, stdev
from typing import Any, Literal

from eyespot.audit.similarity import Matrix, Similarity
from eyespot.audit.subsets import Subset, others

Word = Literal["complement", "indifferent", "fight", "unknown"]


@dataclass(frozen=True)
class MeasuredStudent:
    """One student on the held-out pictures.

    Attributes:
        seed: of its experiment.
        taught_by: its teachers in the committee's order; empty for the untrained student.
        losses: by teacher, {"summary": ..., "patch": ...}: the distillation losses through its own heads, for the
            teachers that it learnt from. The untrained student has them for all, through random heads.
        readout: by teacher, R² of a linear map from its patches to the teacher's; for all teachers.
    """

    seed: int
    taught_by: Subset
    losses: dict[str, dict[str, float]]
    readout: dict[str, float]

    def loss(self, teacher: str) -> float:
        """Summary loss + patch loss against a teacher, as in training (EUPE eq. 7)."""
        return sum(self.losses[teacher].values())


@dataclass(frozen=True)
class Interference:
    """A number that every seed gives once.

    Attributes:
        values: one per seed.
    """

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Over seeds; NaN without any."""
        return mean(self.values) if self.values else math.nan

    @property
    def spread(self) -> float | None:
        """Standard deviation over seeds; None for fewer than two."""
        return stdev(self.values) if len(self.values) > 1 else None


@dataclass(frozen=True)
class PairVerdict:
    """What an audit says about two teachers.

    Attributes:
        first, second: their names.
        word: "fight", "complement", "indifferent"; "unknown" for fewer than two seeds. See `CommitteeAudit.verdicts`.
        interference: mean of what each does to the other, a share of the loss; positive: harm.
        spread: its standard deviation over seeds.
        known: R² by teacher: what a linear map reads out about it from a student of the other alone. High: it brings
            little that the other does not.
    """

    first: str
    second: str
    word: Word
    interference: float
    spread: float | None
    known: dict[str, float]


@dataclass(frozen=True)
class CommitteeAudit:
    """Tables about a committee.

    Attributes:
        teachers: short names, in order.
        similarity: of the teachers as they are.
        students: the measured students of all seeds.
        conflict: cosines of gradients at a student of all teachers, by steps done; mean over seeds.
        tolerance: interference up to this counts as none.
        settings: how it was measured, for the record.
    """

    teachers: tuple[str, ...]
    similarity: Similarity
    students: list[MeasuredStudent]
    conflict: dict[str, Matrix]
    tolerance: float = 0.01
    settings: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def seeds(self) -> list[int]:
        """Seeds whose students were trained."""
        return list(dict.fromkeys(student.seed for student in self.students if student.taught_by))

    @cached_property
    def _found(self) -> dict[tuple[int, Subset], MeasuredStudent]:
        return {(student.seed, student.taught_by): student for student in self.students}

    def student(self, seed: int, taught_by: Sequence[str]) -> MeasuredStudent:
        """The student of one seed that learnt from these teachers; from none: the untrained one.

        Raises:
            KeyError: there is none.
        """
        return self._found[seed, tuple(taught_by)]

    def interference(self, on: str, of: str) -> Interference:
        """What teacher `of` does to teacher `on` when it joins the others, per seed.

        (L_all - L_without) / L_without, where L are the held-out losses against `on` of the student of the whole
        committee and of the one that all but `of` have taught. 0.05: the loss is 5 % higher because of `of`.
        """
        values = []
        for seed in self.seeds:
            without = self.student(seed, others(self.teachers, of)).loss(on)
            values.append(self.student(seed, self.teachers).loss(on) / without - 1)
        return Interference(tuple(values))

    def mutual(self, first: str, second: str) -> Interference:
        """Mean of what two teachers do to each other, per seed."""
        both = zip(self.interference(first, second).values, self.interference(second, first).values, strict=True)
        return Interference(tuple(mean(pair) for pair in both))

    def regret(self, taught_by: Sequence[str], teacher: str) -> Interference:
        """Loss against a teacher relative to that of a student of this teacher alone, minus 1, per seed."""
        return Interference(
            tuple(
                self.student(seed, taught_by).loss(teacher) / self.student(seed, (teacher,)).loss(teacher) - 1
                for seed in self.seeds
            )
        )

    def remaining(self, taught_by: Sequence[str], teacher: str) -> Interference:
        """Loss against a teacher as a share of the untrained student's, per seed; 1: nothing was learnt."""
        return Interference(
            tuple(
                self.student(seed, taught_by).loss(teacher) / self.student(seed, ()).loss(teacher)
                for seed in self.seeds
            )
        )

    def known(self, taught_by: Sequence[str], teacher: str) -> Interference:
        """R² of what can be read out about a teacher, per seed."""
        return Interference(tuple(self.student(seed, taught_by).readout[teacher] for seed in self.seeds))

    @cached_property
    def verdicts(self) -> list[PairVerdict]:
        """A word on every two teachers.

        The rule (ours): the two "fight" if the mean of what they do to each other is harm beyond its standard deviation
        over the seeds, "complement" if it is help beyond that, in either case of more than `tolerance`; otherwise they
        are "indifferent". Empty if no students were trained.
        """
        if not self.seeds:
            return []
        return [self._verdict(first, second) for first, second in itertools.combinations(self.teachers, 2)]

    def _verdict(self, first: str, second: str) -> PairVerdict:
        mutual = self.mutual(first, second)
        known = {first: self.known((second,), first).mean, second: self.known((first,), second).mean}
        word = judge(mutual.mean, mutual.spread, self.tolerance)
        return PairVerdict(first, second, word, mutual.mean, mutual.spread, known)

    def to_json(self) -> str:
        """Everything, with the verdicts and what follows from the students; `from_json` reads it back."""
        pairs = itertools.permutations(self.teachers, 2) if self.seeds else ()
        interference = [{"on": on, "of": of, **_in_words(self.interference(on, of))} for on, of in pairs]
        facts = {
            **asdict(self),
            "verdicts": [asdict(verdict) for verdict in self.verdicts],
            "interference": interference,
        }
        return json.dumps(facts, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> CommitteeAudit:
        """The inverse of `to_json`."""
        facts = json.loads(text)
        similarity = facts["similarity"]
        return cls(
            tuple(facts["teachers"]),
            Similarity(**{**similarity, "grid": tuple(similarity["grid"])}),
            [read_student(entry) for entry in facts["students"]],
            facts["conflict"],
            facts["tolerance"],
            facts["settings"],
        )


def judge(interference: float, spread: float | None, tolerance: float) -> Word:
    """The word for a mean interference, see `CommitteeAudit.verdicts`."""
    if spread is None:
        return "unknown"
    if abs(interference) <= max(spread, tolerance):
        return "indifferent"
    return "fight" if interference > 0 else "complement"


def read_student(entry: dict[str, Any]) -> MeasuredStudent:
    """A measured student as JSON has it."""
    return MeasuredStudent(entry["seed"], tuple(entry["taught_by"]), entry["losses"], entry["readout"])


def _in_words(interference: Interference) -> dict[str, Any]:
    return {"mean": interference.mean, "spread": interference.spread, "values": list(interference.values)}
