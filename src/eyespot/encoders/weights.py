"""Reading weight files: safe formats only, strictly matched."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from eyespot.files import reason_of


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
        raise ValueError(f"{path} cannot be read as weights: {reason_of(error)}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} is not a flat dict of tensors")
    return state


def load_strictly(module: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Loads `state` into `module`; a missing, unexpected or misshapen tensor is an error that names it.

    Raises:
        ValueError: the state does not fit the module.
    """
    problems = misfits(module.state_dict(), state)
    if problems:
        raise ValueError(f"{source} does not fit {type(module).__name__}: {listed(problems)}")
    module.load_state_dict(state)


def misfits(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """In words, what is missing, unexpected or of another shape in a state dict."""
    problems = [f"missing {name}" for name in wanted if name not in state]
    problems += [f"unexpected {name}" for name in state if name not in wanted]
    return problems + [
        f"{name} is {tuple(state[name].shape)}, should be {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in state and state[name].shape != value.shape
    ]


def listed(problems: Sequence[str], most: int = 6) -> str:
    """The first problems, and how many more there are."""
    return "; ".join(problems[:most]) + (f"; and {len(problems) - most} more" if len(problems) > most else "")


class UnfilledWeights:
    """Parameters that no state dict had, of modules that one was loaded into."""

    def __init__(self) -> None:
        self._known: dict[int, Tensor] = {}  # the tensors too, since Python gives numbers of what is gone to others

    def note(self, module: nn.Module, missing: Collection[str]) -> None:
        """Takes down what a state dict has and what it lacks."""
        weights = dict(module.named_parameters(remove_duplicate=False))
        lacking = set(missing)
        self._known |= {id(value): value for name, value in weights.items() if name in lacking}
        for name, value in weights.items():
            if name not in lacking:
                self._known.pop(id(value), None)

    def names_in(self, module: nn.Module) -> list[str]:
        """Which parameters of a module are among them."""
        return [name for name, value in module.named_parameters() if id(value) in self._known]


_ONE_WATCHER = threading.RLock()  # threads would put back each other's `load_state_dict`


@contextmanager
def watched_loading() -> Iterator[UnfilledWeights]:
    """Sees what state dicts lack, whoever loads them: libraries and repositories do with `strict=False`, in silence."""
    with _ONE_WATCHER:
        unfilled = UnfilledWeights()
        load = nn.Module.load_state_dict

        def watched(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            result = load(module, *args, **kwargs)
            unfilled.note(module, result.missing_keys if result is not None else ())
            return result

        nn.Module.load_state_dict = watched  # type: ignore[method-assign,assignment]
        try:
            yield unfilled
        finally:
            nn.Module.load_state_dict = load  # type: ignore[method-assign]
