"""What there is to decide about the distillation of features."""

from __future__ import annotations

from typing import Literal

StandardizerKind = Literal["channel", "none", "ema", "phi_s"]
