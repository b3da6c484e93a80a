"""Taps: what inner modules of an encoder compute, for methods that look inside, while the encoder does its work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Size, Tensor, nn

from eyespot.encoders.base import Encoder
from eyespot.features import Features

STAGES = 4


class Taps:
    """An encoder whose inner modules can be watched in the same pass that gives its features.

    Nothing stays behind: the modules are watched during a call only, and what they gave belongs to the caller.
    Gradients flow through it, also with activation checkpointing; modules may be compiled one by one, as
    `EngineConfig.compile` does.

    Args:
        encoder: whose modules are watched.
        names: dotted names of modules, shallow to deep, as in `encoder.named_modules()`. None: `stage_taps(encoder)`.

    Raises:
        ValueError: there is no such module, or the encoder shows no stages.
    """

    def __init__(self, encoder: Encoder, names: Sequence[str] | None = None) -> None:
        self.encoder = encoder
        self.names = tuple(stage_taps(encoder) if names is None else names)
        for name in self.names:
            try:
                encoder.get_submodule(name)
            except AttributeError:
                raise ValueError(f"{encoder.name} has no module {name!r} to tap; {_modules_told(encoder)}") from None

    def __call__(self, images: Tensor) -> tuple[Features, list[Tensor]]:
        """Encodes pictures.

        Args:
            images: [B, 3, H, W] in [0, 1].

        Returns:
            The encoder's features, and for each tap a map [B, D, h, w] or tokens [B, N, D], prefix (class, register)
            tokens in front. Maps of families that keep channels last (Swin) come as tokens, row by row: OFA-KD counts
            them among the token models.

        Raises:
            ValueError: a tapped module did not run, or what it gave is neither a map nor tokens.
        """
        with _watching(self.encoder, self.names) as seen:
            features = self.encoder(images)
        return features, [self._normalised(name, seen, images.shape) for name in self.names]

    def _normalised(self, name: str, seen: dict[str, Any], pictures: Size) -> Tensor:
        if name not in seen:
            raise ValueError(
                f"{self.encoder.name}: the tapped module {name!r} did not run by itself; tap another one, or the block "
                "around it if that is compiled as a whole"
            )
        output = seen[name]
        output = output[0] if isinstance(output, tuple | list) else output  # transformers' blocks
        if isinstance(output, Tensor) and output.ndim in (3, 4) and output.shape[0] == pictures[0]:
            if output.ndim == 3:
                return output
            channels_last = getattr(_inner_model(self.encoder)[1], "output_fmt", None) == "NHWC"
            if not channels_last and _is_grid(output.shape[2:], pictures[2:]):
                return output
            if _is_grid(output.shape[1:3], pictures[2:]):
                return output.flatten(1, 2)
        given = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(
            f"{self.encoder.name}: the tapped module {name!r} gives {given}, neither a map [B, D, h, w] nor tokens "
            f"[B, N, D] of pictures {tuple(pictures)}; tap another one"
        )


def _is_grid(cells: Size, pictures: Size) -> bool:
    """Whether (rows, columns) have the aspect of the pictures' (height, width), as far as rounding lets them."""
    (rows, columns), (height, width) = cells, pictures
    return abs(rows * width - columns * height) <= max(height, width)


@contextmanager
def _watching(encoder: Encoder, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """What the modules give while the context lasts, by name."""
    seen: dict[str, Any] = {}
    endings: list[Callable[[], None]] = []
    try:
        for name in names:
            endings.append(_watch(encoder.get_submodule(name), partial(seen.__setitem__, name)))
        yield seen
    finally:
        for end in endings:
            end()


def _watch(module: nn.Module, keep: Callable[[Any], None]) -> Callable[[], None]:
    """Hands every output of a module to `keep`; returns what ends that."""
    compiled = module._compiled_call_impl
    if compiled is None:
        return module.register_forward_hook(lambda _, inputs, output: keep(output)).remove

    # Hooks of a compiled module are compiled into it, once and for all; so the call is watched from outside.
    def call(*args: Any, **kwargs: Any) -> Any:
        output = compiled(*args, **kwargs)
        keep(output)
        return output

    module._compiled_call_impl = call

    def restore() -> None:
        module._compiled_call_impl = compiled

    return restore


def stage_taps(encoder: Encoder) -> tuple[str, ...]:
    """Names of the four modules that end the stages of an encoder.

    By OFA-KD's table: `layer1` to `layer4` of ResNets; the stages of ConvNeXt; MobileNetV2's blocks 2, 5 and 12 and its
    last convolution (the stage before, for what has none ahead of the pooling); blocks 1, 3, 9, 11 of 12 and 1, 3, 21,
    23 of 24 in ViT, DeiT, BEiT, Mixer and ResMLP; Swin's stages, whose merging stands at the beginning of the next in
    timm. Outputs of blocks, without any further norm.

    Others (ours): the last four stages that timm lists for the family; else four of the list of blocks that holds most
    of the weights, see `four_of`.

    Raises:
        ValueError: there are no four stages or blocks; says how to name modules.
    """
    front, model = _inner_model(encoder)
    # Hiera keeps its tokens in an order of its own, which is no grid.
    listed = () if hasattr(model, "unroll") else _listed_stages(model)
    if listed is None:
        row = _main_row(model)
        listed = tuple(row[number] for number in four_of(len(row)))
    if not listed:
        raise ValueError(
            f"{encoder.name} shows no four stages or blocks to tap: take a method on logits, or "
            + _modules_told(encoder)
        )
    return tuple(f"{front}{name}" for name in listed)


def equal_blocks(encoder: Encoder) -> tuple[str, ...]:
    """Names of all blocks of an encoder whose map keeps its size from block to block (ViT, Mixer), shallow to deep.

    Empty for encoders with stages, and where no blocks are to be seen. Outputs of blocks, without any further norm.
    """
    front, model = _inner_model(encoder)
    levels = () if hasattr(model, "unroll") else _levels(model)
    if levels is None:
        names = _main_row(model)
    else:
        names = tuple(name for name, _ in levels) if len({reduction for _, reduction in levels}) == 1 else ()
    return tuple(f"{front}{name}" for name in names)


def four_of(depth: int) -> tuple[int, ...]:
    """Which of `depth` equal blocks end the four stages, counted from 0: 1, 3, depth - 3, depth - 1 from 8 blocks on.

    That is OFA-KD's choice for 12 and 24 blocks, and where the stages of a Swin with 2-2-n-2 blocks end. With fewer,
    quarters, rounded up (ours). Empty below four.
    """
    if depth < STAGES:
        return ()
    if depth >= 2 * STAGES:
        return (1, 3, depth - 3, depth - 1)
    return tuple(-(-depth * stage // STAGES) - 1 for stage in range(1, STAGES + 1))


def _inner_model(encoder: Encoder) -> tuple[str, nn.Module]:
    """The library's model that an encoder wraps, perhaps through other encoders, and what its names begin with."""
    front, module = "", encoder
    while isinstance(module, Encoder):
        inside = ("encoder", "model")
        name = next((name for name in inside if isinstance(getattr(module, name, None), nn.Module)), None)
        if name is None:
            break
        front, module = f"{front}{name}.", getattr(module, name)
    return front, module


def _levels(model: nn.Module) -> tuple[tuple[str, int], ...] | None:
    """(Name, stride) of the modules that timm lists as a model's feature levels; None without a list."""
    listed: Any = getattr(model, "feature_info", None) or []
    levels = tuple((level["module"], level["reduction"]) for level in getattr(listed, "info", listed))
    modules = dict(model.named_modules())
    return levels if levels and all(name in modules for name, _ in levels[-STAGES:]) else None


def _listed_stages(model: nn.Module) -> tuple[str, ...] | None:
    """Four of the modules that timm lists as a model's feature levels, none if there are fewer; None without a list."""
    levels = _levels(model)
    if levels is None:
        return None
    if len({reduction for _, reduction in levels}) == 1:  # the same all the way: every block is a level
        return tuple(levels[number][0] for number in four_of(len(levels)))
    names = [name for name, _ in levels[-STAGES:]]
    if len(set(names)) < STAGES:  # LeViT and others have three stages
        return ()
    modules = dict(model.named_modules())
    if isinstance(modules.get("conv_head"), nn.Conv2d) and "bn2" in modules:  # EfficientNet and its kin
        names[-1] = "bn2"
    return tuple(names)


def _main_row(model: nn.Module) -> tuple[str, ...]:
    """The list of blocks, in no other list, that holds more than half of a model's weights."""
    weights = sum(weight.numel() for weight in model.parameters())
    for name, module in model.named_modules():
        if (
            not isinstance(module, nn.ModuleList | nn.Sequential)
            or 2 * sum(map(Tensor.numel, module.parameters())) < weights
        ):
            continue
        if not all(map(_is_block, module)):
            return ()
        return tuple(f"{name}.{number}" if name else str(number) for number in range(len(module)))
    return ()


def _is_block(module: nn.Module) -> bool:
    is_list = isinstance(module, nn.ModuleList | nn.ModuleDict)
    return not is_list and any(True for _ in module.children()) and any(True for _ in module.parameters())


def _modules_told(encoder: Encoder) -> str:
    """What could be tapped."""
    names = [name for name, module in encoder.named_modules() if name and name.count(".") <= 2 and _is_block(module)]
    if not names:
        return "bring the model itself: a file that was exported shows no inner modules"
    shown = ", ".join(names[:12])
    return f"name four of its modules, shallow to deep; it has {shown}{', ...' if len(names) > 12 else ''}"
