"""Adapter chains: from a student's features into a teacher's own space, through all adapter heads in between.

A student of a proxy carries the way to the proxy (`heads.proxy...`) and, behind `through.proxy.`, all ways that the
proxy itself carries. So a chain student -> proxy -> teacher needs nothing but the student's own folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from eyespot.distill.features.heads import AdapterHead
from eyespot.distill.features.standardizers import ChannelStandardizer, NoStandardizer, PhiStandardizer, Standardizer
from eyespot.encoders.weights import load_strictly
from eyespot.features import Features

Route = tuple[str, ...]

_STANDARDIZER_OF: dict[frozenset[str], type[Standardizer]] = {
    frozenset(): NoStandardizer,
    frozenset({"mean", "std"}): ChannelStandardizer,  # those of "ema" as well: undone by the same two vectors
    frozenset({"mean", "rotation", "scale"}): PhiStandardizer,
}


class AdapterStep(nn.Module):
    """One head and the inverse of the standardizer that its targets went through: from one space into the next.

    A summary head is trained by cosine alone (EUPE A.4), so only the direction of what it says means anything. Before
    the standardizer is undone it gets the length that standardized targets have on average, the root of their width;
    otherwise the mean that is added back would weigh too much or too little (ours; the paper is silent).

    Args:
        head: tensors of the `AdapterHead`.
        standardizer: tensors of the standardizer, none if targets were not standardized.
        direction_only: see above; True for summaries.

    Raises:
        ValueError: tensors that make no head or standardizer.
    """

    def __init__(
        self, head: Mapping[str, Tensor], standardizer: Mapping[str, Tensor], direction_only: bool = False
    ) -> None:
        super().__init__()
        self.direction_only = direction_only
        kind = _STANDARDIZER_OF.get(frozenset(standardizer))
        if "0.weight" not in head or "3.weight" not in head or kind is None:
            raise ValueError(f"these tensors make no adapter: {', '.join([*head, *standardizer]) or 'none'}")
        hidden, width = head["0.weight"].shape
        self.head = AdapterHead(width, hidden, len(head["3.weight"]))
        self.standardizer = kind(len(head["3.weight"]))
        load_strictly(self.head, dict(head), "adapter head")
        load_strictly(self.standardizer, dict(standardizer), "standardizer")

    def forward(self, values: Tensor) -> Tensor:
        """[..., width] of one space -> float32 [..., width] of the next."""
        predicted = self.head(values.float())
        if self.direction_only:
            predicted = F.normalize(predicted, dim=-1) * predicted.shape[-1] ** 0.5
        predicted = predicted.movedim(-1, 1)
        return self.standardizer.inverse(predicted).movedim(1, -1)


class AdapterChain(nn.Module):
    """What a teacher would say, as far as the student knows: its features, moved into the teacher's own space.

    Args:
        adapters: `Encoder.adapters` of the student.
        route: names of the spaces on the way, the teacher's last; one of `routes(adapters)`.

    Raises:
        ValueError: there is no such way.
    """

    def __init__(self, adapters: Mapping[str, Tensor], route: Sequence[str]) -> None:
        super().__init__()
        known = routes(adapters)
        if tuple(route) not in known:
            raise ValueError(f"no adapters lead to {'/'.join(route)}; there are {shown(known)}")
        prefixes = ["".join(f"through.{name}." for name in route[:number]) for number in range(len(route))]
        places = list(zip(prefixes, route, strict=True))
        self.summary = nn.Sequential(*(_hop(adapters, prefix, name, "summary") for prefix, name in places))
        self.patch = nn.Sequential(*(_hop(adapters, prefix, name, "patch") for prefix, name in places))
        self.eval().requires_grad_(False)

    def forward(self, features: Features) -> Features:
        """Student features [B, C], [B, D, h, w] -> the same in the teacher's space and scale, on the same grid."""
        patches = self.patch(features.tokens)
        return Features(self.summary(features.summary), patches.transpose(1, 2).unflatten(2, features.grid))


def routes(adapters: Mapping[str, Tensor]) -> list[Route]:
    """All ways that adapters know, the shortest first: ("proxy",), ("proxy", "clip"), ..."""
    found: dict[Route, None] = {}
    for name in adapters:
        words = name.split(".")
        via: list[str] = []
        while words[0] == "through":
            via.append(words[1])
            words = words[2:]
        if words[0] == "heads":
            found[(*via, words[1])] = None
    return sorted(found, key=len)


def find_route(adapters: Mapping[str, Tensor], space: str) -> Route:
    """The way to a space, by its last name ("clip") or the whole way ("proxy/clip").

    Raises:
        ValueError: no way, or several, lead there; says which there are.
    """
    known = routes(adapters)
    fitting = [route for route in known if "/".join(route) == space] or [route for route in known if route[-1] == space]
    if len(fitting) != 1:
        count = "several adapters lead" if fitting else "no adapters lead"
        raise ValueError(f"{count} to {space!r}; there are {shown(known)}")
    return fitting[0]


def width_of(adapters: Mapping[str, Tensor], route: Route) -> int:
    """Width of the summaries at the end of a route."""
    *via, last = route
    prefix = "".join(f"through.{name}." for name in via)
    return len(adapters[f"{prefix}heads.{last}.summary.3.weight"])


def shown(known: Sequence[Route]) -> str:
    """Routes as people write them."""
    return ", ".join("/".join(route) for route in known) or "none"


def _hop(adapters: Mapping[str, Tensor], prefix: str, name: str, part: str) -> AdapterStep:
    head = _below(adapters, f"{prefix}heads.{name}.{part}.")
    return AdapterStep(
        head, _below(adapters, f"{prefix}standardizers.{name}.{part}."), direction_only=part == "summary"
    )


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
