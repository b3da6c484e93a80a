"""What the licences of the teachers mean for the student."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum


class Terms(IntEnum):
    """Kinds of terms, the strictest last."""

    PERMISSIVE = 0
    CUSTOM = 1
    UNKNOWN = 2
    NON_COMMERCIAL = 3

    @property
    def label(self) -> str:
        """The kind in plain words: "permissive", "custom terms", "unknown" or "non-commercial"."""
        return ("permissive", "custom terms", "unknown", "non-commercial")[self]


_TERMS = {
    "apache-2.0": Terms.PERMISSIVE,
    "mit": Terms.PERMISSIVE,
    "bsd-2-clause": Terms.PERMISSIVE,
    "bsd-3-clause": Terms.PERMISSIVE,
    "bsd-3-clause-clear": Terms.PERMISSIVE,
    "isc": Terms.PERMISSIVE,
    "cc0-1.0": Terms.PERMISSIVE,
    "cc-by-4.0": Terms.PERMISSIVE,
    "unlicense": Terms.PERMISSIVE,
    "cc-by-sa-4.0": Terms.CUSTOM,
    "dinov3-license": Terms.CUSTOM,
    "nvidia-open-model-license": Terms.CUSTOM,
    "gemma": Terms.CUSTOM,
    "openrail": Terms.CUSTOM,
    "apple-ascl": Terms.CUSTOM,
    "fair-noncommercial-research-license": Terms.NON_COMMERCIAL,
    "apple-amlr": Terms.NON_COMMERCIAL,
    "nscl": Terms.NON_COMMERCIAL,
    "nvclv1": Terms.NON_COMMERCIAL,
}

_ON_THE_HUB = (
    set(_TERMS)
    - {"dinov3-license", "nvidia-open-model-license", "nscl", "nvclv1"}
    - {"fair-noncommercial-research-license"}
)

_SAME_AS = {
    "apache": "apache-2.0",
    "apache2": "apache-2.0",
    "apache-2": "apache-2.0",
    "apache-license-2.0": "apache-2.0",
    "mit-license": "mit",
    "bsd-2": "bsd-2-clause",
    "bsd-3": "bsd-3-clause",
    "cc0": "cc0-1.0",
    "fair-nc": "fair-noncommercial-research-license",
    "dinov3": "dinov3-license",
}

_NON_COMMERCIAL_HINT = re.compile(r"(^|-)nc(-|$)|non-?commercial|research-only")

_SENTENCES = {
    Terms.PERMISSIVE: (
        "The student may be used commercially: every teacher is under a permissive licence ({names}). "
        "Keep the teachers' copyright notices and attributions."
    ),
    Terms.CUSTOM: (
        "The student may be used commercially only within the custom terms of {names}. Read them before you ship it."
    ),
    Terms.UNKNOWN: (
        "It is not known whether the student may be used commercially: {names}. "
        "Treat it as not permitted until the terms are clear."
    ),
    Terms.NON_COMMERCIAL: ("The student may not be used commercially: {names} allows non-commercial use only."),
}


@dataclass(frozen=True)
class Verdict:
    """Whether a student may be used commercially.

    Attributes:
        terms: the strictest kind of terms among the teachers.
        licences: the normalised identifiers of that kind, sorted, without repeats; those that decided.
        sentence: the verdict in plain English.
    """

    terms: Terms
    licences: tuple[str, ...]
    sentence: str

    @property
    def commercial_use(self) -> bool | None:
        """True if permitted, False if forbidden, None if it depends on custom terms or is unknown."""
        return {Terms.PERMISSIVE: True, Terms.NON_COMMERCIAL: False}.get(self.terms)


def normalised(licence: str) -> str:
    """A licence's identifier in the spelling of SPDX and the Hugging Face hub: "Apache 2.0" -> "apache-2.0"."""
    name = re.sub(r"[\s_]+", "-", licence.strip().lower())
    return _SAME_AS.get(name, name)


def terms_of(licence: str | None) -> Terms:
    """The kind of terms a licence sets.

    Several licences in one string ("MIT / Apache-2.0", "A and B") count as the strictest of them. Whatever is not in
    the table is non-commercial if its name says so ("cc-by-nc-4.0") and unknown otherwise; unknown is not permissive.

    Args:
        licence: identifier as the source states it, in any spelling; None or an empty string if it states none.
    """
    return max((_terms_of_one(part) for part in _parts(licence)), default=Terms.UNKNOWN)


def verdict(licences: Iterable[str | None]) -> Verdict:
    """Judges a student by the licences of all that its weights were learnt from; the strictest wins.

    Ours: licences are read as reaching through distillation, the careful side of an open legal question. This is a
    summary for engineers, not legal advice.

    Args:
        licences: one per teacher, and one for released weights that the student started from. None: not stated.
    """
    names = {part for licence in licences for part in _parts(licence) or [""]}
    terms = max((_terms_of_one(name) for name in names), default=Terms.UNKNOWN)
    decisive = tuple(sorted(name for name in names if _terms_of_one(name) is terms))
    if terms is Terms.UNKNOWN:
        known = [name for name in decisive if name]
        reasons = [f"the terms of {_listed(known)} are not in our table"] if known else []
        if len(known) < len(decisive) or not decisive:
            reasons.append("no licence is stated for at least one teacher" if names else "no teacher is listed")
        return Verdict(terms, tuple(known), _SENTENCES[terms].format(names=" and ".join(reasons)))
    return Verdict(terms, decisive, _SENTENCES[terms].format(names=_listed(decisive)))


def hub_license(judged: Verdict) -> dict[str, str]:
    """The licence fields of a model card's YAML header.

    Returns:
        {"license": identifier} if one licence alone decided and the Hugging Face hub knows it by that name, else
        {"license": "other", "license_name": what the verdict rests on}.
    """
    if len(judged.licences) == 1 and (judged.licences[0] in _ON_THE_HUB or judged.licences[0].startswith("cc-by-nc")):
        return {"license": judged.licences[0]}
    return {"license": "other", "license_name": "-and-".join(judged.licences) or "unknown"}


def _parts(licence: str | None) -> list[str]:
    parts = re.split(r"\s*[/,;+]\s*|\s+(?:and|or)\s+", licence or "", flags=re.IGNORECASE)
    return [normalised(part) for part in parts if part.strip()]


def _terms_of_one(name: str) -> Terms:
    if name in _TERMS:
        return _TERMS[name]
    return Terms.NON_COMMERCIAL if _NON_COMMERCIAL_HINT.search(name) else Terms.UNKNOWN


def _listed(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
