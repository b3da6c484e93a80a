"""Refusing models whose terms a commercial student could not meet, before anything is trained."""

from __future__ import annotations

from collections.abc import Iterable

import timm

from eyespot.encoders.licenses import refuse_restricted, timm_license
from eyespot.encoders.loading import load_encoder
from eyespot.specs import read_options


def require_permissive(specs: Iterable[str]) -> None:
    """Refuses models whose licence, or that of anything they were distilled from, is not permissive.

    Models of timm are asked first, of its registry, so that nothing is fetched for a committee that they have refused;
    others are loaded to ask them.

    Raises:
        ValueError: names each such model, its licence and what to do.
    """
    specs = list(specs)
    registered = {spec: licences for spec in specs if (licences := _registered_licences(spec)) is not None}
    refuse_restricted(registered)
    encoders = {spec: load_encoder(spec) for spec in specs if spec not in registered}
    refuse_restricted(
        {spec: [entry["licence"] for entry in one.lineage] or [one.license] for spec, one in encoders.items()}
    )


def _registered_licences(spec: str) -> list[str | None] | None:
    """What spec and registry say of a model of timm without loading it; None for other models."""
    path, _, query = spec.partition("?")
    name, options = path.removeprefix("timm/"), read_options(query)
    if not path.startswith("timm/") or not timm.is_model_pretrained(name):
        return None
    if "license" in options:
        return [str(options["license"])]
    if "weights" in options or options.get("pretrained") is False:
        return [None]
    return [timm_license(timm.get_pretrained_cfg(name).to_dict())]
