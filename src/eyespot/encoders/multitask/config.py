"""What there is to decide about multi-task encoders."""

from __future__ import annotations

from typing import Literal

RouterKind = Literal["mor", "sum"]
