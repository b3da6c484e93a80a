"""Reading weight files: safe formats only, strictly matched."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """A flat state dict from a `.safetensors` file or a `torch.save`d one (read with `weights_only`).

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged, or is not a flat dict of tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weight file at {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{path} cannot be read as weights: {error}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} is not a flat dict of tensors")
    return state


def load_strictly(module: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Loads `state` into `module`; a missing, unexpected or misshapen tensor is an error that names it.

    Raises:
        ValueError: the state does not fit the module.
    """
    own = module.state_dict()
    problems = [f"missing {name}" for name in own if name not in state]
    problems += [f"unexpected {name}" for name in state if name not in own]
    problems += [
        f"{name} is {tuple(state[name].shape)}, should be {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    if problems:
        shown = "; ".join(problems[:6]) + (f"; and {len(problems) - 6} more" if len(problems) > 6 else "")
        raise ValueError(f"{source} does not fit {type(module).__name__}: {shown}")
    module.load_state_dict(state)
