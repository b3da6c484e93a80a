"""What the licences of models mean for whoever uses them, or a student that learnt from them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any


class Terms(IntEnum):
    """Kinds of terms, the strictest last."""

    PERMISSIVE = 0
    CUSTOM = 1
    UNKNOWN = 2
    NON_COMMERCIAL = 3

    @property
    def label(self) -> str:
        """The verdict in plain words: "commercial use", "custom terms", "unknown" or "non-commercial"."""
        return ("commercial use", "custom terms", "unknown", "non-commercial")[self]


_PERMISSIVE = (
    "apache-2.0 mit bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear isc zlib ncsa postgresql bsl-1.0 afl-3.0 ms-pl "
    "ecl-2.0 unlicense wtfpl 0bsd cc0-1.0 pddl cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cdla-permissive-1.0 "
    "cdla-permissive-2.0 openmdw-1.0"
)
_CUSTOM = (
    # vision models: Meta, NVIDIA, Google, Apple (sample code licence: no patents), Alibaba
    "dinov3-license nvidia-open-model-license gemma apple-ascl cvnets-license fastvit-license mobileone-license "
    "qwen-community-1.0 "
    # share alike, no derivatives, weak copyleft, use restrictions
    "cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nd-4.0 mpl-2.0 epl-1.0 epl-2.0 eupl-1.1 eupl-1.2 osl-3.0 "
    "openrail bigscience-openrail-m creativeml-openrail-m bigcode-openrail-m bigscience-bloom-rail-1.0"
)
_NON_COMMERCIAL = (
    "fair-noncommercial-research-license apple-amlr seer-license nscl nsclv1 nvclv1 deepfloyd-if-license "
    "cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 "
    "cc-by-nc-sa-4.0"
)
_TERMS = {
    name: terms
    for names, terms in (
        (_PERMISSIVE, Terms.PERMISSIVE),
        (_CUSTOM, Terms.CUSTOM),
        (_NON_COMMERCIAL, Terms.NON_COMMERCIAL),
    )
    for name in names.split()
}

_BY_NAME = (
    (re.compile(r"(^|-)nc(-|$)|non-?commercial|(^|-)research(-|$)"), Terms.NON_COMMERCIAL),
    (re.compile(r"^(a|l)?gpl(-|$)|^llama"), Terms.CUSTOM),
)
"""What a name that is not in the table tells: "dune-nc", "h-research", "gpl-3.0-only", "llama3.3"."""

_SAME_AS = {
    "apache": "apache-2.0",
    "apache2": "apache-2.0",
    "apache-2": "apache-2.0",
    "apache-license-2.0": "apache-2.0",
    "apache-license-version-2.0": "apache-2.0",
    "bsd-2": "bsd-2-clause",
    "bsd-3": "bsd-3-clause",
    "cc0": "cc0-1.0",
    "fair-nc": "fair-noncommercial-research-license",
    "fair-noncommercial-research-license-v1": "fair-noncommercial-research-license",
    "dinov3": "dinov3-license",
    "nvidia-open-model": "nvidia-open-model-license",
    "apple-sample-code": "apple-ascl",
    "apple-model-license-for-research": "apple-amlr",
}

_STRICTER_AT_THE_SOURCE = (
    # Apple put its AIMv2 and DFN repositories under its research licence on 28 February 2025
    # (https://huggingface.co/apple/DFN2B-CLIP-ViT-B-16/discussions/1); timm 1.0.31 has the licence of before
    (re.compile(r"^aimv2_|\.dfn\d"), "apple-amlr"),
    # https://huggingface.co/google/paligemma2-10b-pt-896-jax: license gemma; timm 1.0.31 has that of plain SigLIP
    (re.compile(r"\.pali2?_"), "gemma"),
)
"""Weights (timm's name with tag) whose makers state stricter terms than timm's registry does."""

_NOT_ON_THE_HUB = (
    "0bsd dinov3-license nvidia-open-model-license cvnets-license fastvit-license mobileone-license seer-license "
    "qwen-community-1.0 nscl nsclv1 nvclv1"
)
"""Of our table, what https://huggingface.co/docs/hub/repositories-licenses does not list."""

_LINKS = {
    "dinov3-license": "https://ai.meta.com/resources/models-and-libraries/dinov3-license/",
    "nvidia-open-model-license": "https://www.nvidia.com/en-us/agreements/enterprise-software/nvidia-open-model-license/",
    "cvnets-license": "https://github.com/apple/ml-cvnets/blob/main/LICENSE",
    "fastvit-license": "https://github.com/apple/ml-fastvit/blob/main/LICENSE",
    "mobileone-license": "https://github.com/apple/ml-mobileone/blob/main/LICENSE",
    "seer-license": "https://github.com/facebookresearch/vissl/blob/main/projects/SEER/MODEL_LICENSE.md",
}

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
    """A licence's identifier in the spelling of SPDX and the Hugging Face hub: "Apache 2.0" -> "apache-2.0".

    "License" and "license agreement" at the end of a name do not matter where the name is known without: "MIT License".
    """
    name = re.sub(r"[\s_]+", "-", licence.strip().lower())
    american = name.replace("licence", "license")
    short = re.sub(r"(-license)?(-agreement)?$", "", american)
    for spelling in (american, short, f"{short}-license"):
        known = _SAME_AS.get(spelling, spelling)
        if known in _TERMS:
            return known
    return name


def terms_of(licence: str | None) -> Terms:
    """The kind of terms a licence sets.

    Several licences in one string ("MIT / Apache-2.0", "A and B") count as the strictest of them. Whatever is not in
    the table is non-commercial if its name says so ("naver-nc") and unknown otherwise; unknown is not permissive.

    Args:
        licence: identifier as the source states it, in any spelling; None or an empty string if it states none.
    """
    return max((_terms_of_one(part) for part in _parts(licence)), default=Terms.UNKNOWN)


def timm_license(cfg: Mapping[str, Any]) -> str | None:
    """The licence of timm's weights: as its registry states it, or as their makers do where that is stricter.

    Args:
        cfg: a model's `pretrained_cfg`.
    """
    name = f"{cfg.get('architecture')}.{cfg.get('tag')}"
    return next((known for pattern, known in _STRICTER_AT_THE_SOURCE if pattern.search(name)), cfg.get("license"))


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


def refuse_restricted(models: Mapping[str, Iterable[str | None]]) -> None:
    """Refuses models whose terms are not permissive; unknown terms are not.

    Args:
        models: by name, the licences a model carries: its own, or those of all that it was learnt from.

    Raises:
        ValueError: names each such model, its licence and what to do.
    """
    judged = {name: verdict(licences) for name, licences in models.items()}
    lines = [
        f"  {name}: {found.terms.label} ({_listed(found.licences) if found.licences else 'no licence stated'})"
        for name, found in judged.items()
        if found.terms is not Terms.PERMISSIVE
    ]
    if lines:
        raise ValueError(
            "permissive_only admits models under permissive licences alone, but\n"
            + "\n".join(lines)
            + "\nTake others (the preset `permissive` has a committee), state the licence of weights that you know to "
            "be free (timm/NAME?license=mit, or the attribute `license` of a python/ encoder), or drop permissive_only."
        )


def hub_license(judged: Verdict) -> dict[str, str]:
    """The licence fields of a model card's YAML header.

    Returns:
        {"license": identifier} if one licence alone decided and the Hugging Face hub knows it by that name, or if
        nothing is known ("unknown"); else {"license": "other", "license_name": what the verdict rests on} and, for one
        licence whose text we know where to find, "license_link".
    """
    names = judged.licences
    if not names:
        return {"license": "unknown"}
    if len(names) == 1 and names[0] in _TERMS and names[0] not in _NOT_ON_THE_HUB.split():
        return {"license": names[0]}
    fields = {"license": "other", "license_name": "-and-".join(names)}
    if names[0] in _LINKS and len(names) == 1:
        fields["license_link"] = _LINKS[names[0]]
    return fields


def _parts(licence: str | None) -> list[str]:
    parts = re.split(r"\s*[/,;+]\s*|\s+(?:and|or)\s+|-and-", licence or "", flags=re.IGNORECASE)
    return [normalised(part) for part in parts if part.strip()]


def _terms_of_one(name: str) -> Terms:
    if name in _TERMS:
        return _TERMS[name]
    return next((terms for pattern, terms in _BY_NAME if pattern.search(name)), Terms.UNKNOWN)


def _listed(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
