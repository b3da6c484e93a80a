"""What the report and the model card say about an encoder that others were learnt from."""

from __future__ import annotations

from typing import TypedDict

from eyespot.encoders.base import Encoder


class Teacher(TypedDict):
    """One teacher, ready for JSON.

    Attributes:
        name: its spec.
        licence: identifier as its source states it, None if it states none.
        summary_dim: C, width of the summary.
        patch_dim: D, width of the patch map.
        stride: input pixels per patch.
        parameters: number of weights; 0 if the source does not show them (an ONNX file).
    """

    name: str
    licence: str | None
    summary_dim: int
    patch_dim: int
    stride: int
    parameters: int


def describe(encoder: Encoder) -> Teacher:
    """The facts of an encoder."""
    return Teacher(
        name=encoder.name,
        licence=encoder.license,
        summary_dim=encoder.summary_dim,
        patch_dim=encoder.patch_dim,
        stride=encoder.stride,
        parameters=sum(weight.numel() for weight in encoder.parameters()),
    )
