"""MultiTaskEncoder: SAK's model, and with other settings its baselines.

With paths and routers it is SAK, with `router="sum"` SAK without routers, without paths a multi-task model (one task: a
single-task model). Where the paper notes are silent, "ours" says so.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from eyespot.dense_tasks import DenseTask
from eyespot.encoders.attention import attention_for
from eyespot.encoders.base import Encoder
from eyespot.encoders.multitask.config import RouterKind
from eyespot.encoders.multitask.heads import TaskHead
from eyespot.encoders.multitask.paths import TeacherPath
from eyespot.encoders.multitask.routers import Router
from eyespot.encoders.multitask.stems import LEVELS, default_levels, prepared_stem
from eyespot.encoders.sources.timm import TimmEncoder
from eyespot.features import Features

STEM = "stem"
"""What the stem is called where paths are named; no path may be called so."""


@dataclass(frozen=True)
class Levels:
    """What one look at pictures leaves at the four tapped levels, shallow to deep, without class token.

    Attributes:
        stem: [B, D, h, w] for each level, as it leaves the block, not normed.
        paths: for each path that is on F_t^l [B, D, h, w] for each level, normed.
        summary: [B, D], the class token behind the stem's last block.
    """

    stem: list[Tensor]
    paths: dict[str, list[Tensor]]
    summary: Tensor


torch.export.register_dataclass(Levels)  # so that FSDP finds the tensors in it


class MultiTaskEncoder(Encoder):
    """A stem, one adapter path per teacher, and per task a router for each level and a head (SAK, paper notes (b)).

    As an `Encoder` it shows the stem: the summary is the class token behind its last block, the patches are its last
    level. `PathEncoder` shows a path, `predict` answers the tasks. Made by `make_multitask_encoder`.

    Args:
        stem: a timm ViT that `make_multitask_encoder` has checked and freed from its final norm.
        paths: names of the teachers, in the order of the experts behind the stem.
        tasks: what is asked of every pixel, by name.
        router: "mor" for routers; "sum" adds up the stem's map and all paths', the same for all tasks.
        levels: numbers of the four tapped blocks, from 0, ascending, the last block last.

    Attributes:
        tasks: as given.
        levels: as given.
        router: as given.

    Raises:
        ValueError: names that cannot be used, an unknown router, or other levels.
    """

    forward_methods = ("look",)  # uses weights outside of `forward`; see `engine.strategy.shard_task`

    def __init__(
        self,
        stem: TimmEncoder,
        paths: Sequence[str],
        tasks: Mapping[str, DenseTask],
        router: RouterKind,
        levels: Sequence[int],
    ) -> None:
        cfg: Any = stem.model.pretrained_cfg
        super().__init__(cfg["mean"], cfg["std"])
        if router not in ("mor", "sum"):
            raise ValueError(f"a router is 'mor' or 'sum', not {router!r}")
        self.name, self.license, self.origin, self.channel_order = (
            stem.name,
            stem.license,
            stem.origin,
            stem.channel_order,
        )
        self.lineage = stem.lineage
        self.summary_dim = self.patch_dim = stem.patch_dim
        self.stride, self.native_size, self.default_size = stem.stride, stem.native_size, stem.default_size
        self.stem = stem
        self.router, self.levels = router, _checked_levels(levels, len(self._vit.blocks))
        self.tasks: dict[str, DenseTask] = {}
        self.paths, self.routers, self.heads = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        self._off: frozenset[str] = frozenset()
        self._append_paths(paths)
        self.add_tasks(tasks)

    @property
    def path_names(self) -> tuple[str, ...]:
        """Names of all paths, in the order of the experts."""
        return tuple(self.paths)

    @property
    def active(self) -> tuple[str, ...]:
        """Names of the paths that are switched on: all, unless set otherwise.

        Paths that are off are not computed. Routers share out the weights among the experts that are on (ours); the
        stem always is.
        """
        return tuple(name for name in self.path_names if name not in self._off)

    @active.setter
    def active(self, names: Collection[str]) -> None:
        self._off = frozenset(self.path_names) - set(self._known_paths(names))

    def look(self, images: Tensor) -> Levels:
        """Runs the stem and the paths that are on.

        Args:
            images: [B, 3, H, W], RGB in [0, 1].

        Raises:
            ValueError: see `Encoder.forward`.
        """
        self.check(images)
        with attention_for(images, self.stride):
            return self._look(self.normalised(images), self.active)

    def mixed(self, levels: Levels, task: str) -> list[Tensor]:
        """What the head of a task gets: [B, D, h, w] for each level.

        Without paths (or with all of them off) it is the stem's map; with routers their mixture; with `router="sum"`
        the plain sum of the stem's and the paths' maps.
        """
        if not levels.paths:
            return levels.stem
        by_level = [[stem, *paths] for stem, *paths in zip(levels.stem, *levels.paths.values(), strict=True)]
        if self.router == "sum":
            return [sum(rest, first) for first, *rest in by_level]
        on = self._experts(levels)
        routers: Any = self.routers[task]
        return [router(maps, on) for router, maps in zip(routers, by_level, strict=True)]

    def weights(self, levels: Levels, task: str) -> list[Tensor]:
        """The weights by which a task's routers mix, without noise: for each level [B, experts that are on].

        The first expert is the stem, then come the paths of `levels.paths`.

        Raises:
            ValueError: the model has no routers.
        """
        if task not in self.routers:
            raise ValueError(f"{self.name} has no routers for {task!r}: it needs paths, router='mor' and that task")
        routers: Any = self.routers[task]
        tokens = [level.flatten(2).transpose(1, 2) for level in levels.stem]
        return [router.weights(level, self._experts(levels)) for router, level in zip(routers, tokens, strict=True)]

    def answer(self, levels: Levels, size: tuple[int, int]) -> dict[str, Tensor]:
        """What all heads say, raw: [B, channels, H, W] by task.

        Logits of classes, boundaries and key points, normals of any length, depth in metres (it may be negative).

        Args:
            levels: from `look`.
            size: (H, W) of the pictures in pixels.
        """
        return {task: head(self.mixed(levels, task), size) for task, head in self.heads.items()}

    def predict(self, images: Tensor) -> dict[str, Tensor]:
        """`answer` for pictures [B, 3, H, W] in [0, 1], at their size."""
        return self.answer(self.look(images), (images.shape[2], images.shape[3]))

    def features(self, levels: Levels) -> Features:
        """What the model shows as an `Encoder`."""
        return Features(levels.summary, levels.stem[-1])

    def named_outputs(self, images: Tensor) -> dict[str, Tensor]:
        """See `Encoder.named_outputs`; features and answers from one look."""
        levels = self.look(images)
        features = self.features(levels)
        answers = self.answer(levels, (images.shape[2], images.shape[3]))
        tasks = {f"task_{name}": answer for name, answer in answers.items()}
        return {"summary": features.summary, "patches": features.patches, **tasks}

    def get_config(self, license: str | None = None) -> dict[str, Any]:
        """See `Encoder.get_config`; timm's part is that of the stem."""
        config = super().get_config(license)
        config["eyespot"]["multitask"] = {
            "tasks": {name: asdict(task) for name, task in self.tasks.items()},
            "paths": list(self.path_names),
            "active": list(self.active),
            "router": self.router,
            "levels": list(self.levels),
        }
        return {**self.stem.timm_config(license or self.license), **config}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> MultiTaskEncoder:
        """See `Encoder.from_config`."""
        own = config["eyespot"]["multitask"]
        tasks = {
            name: DenseTask(**{**task, "names": tuple(task.get("names", ()))}) for name, task in own["tasks"].items()
        }
        stem = prepared_stem(TimmEncoder.from_config(config))
        encoder = cls(stem, own["paths"], tasks, own["router"], own["levels"])
        encoder.active = own["active"]
        return encoder

    def export_form(self) -> MultiTaskEncoder:
        """See `Encoder.export_form`; without the paths that are off."""
        return self.trimmed()

    def setting(self, features_only: bool = False) -> dict[str, Any]:
        """See `Encoder.setting`: which paths are on and where they are tapped, which only the answers depend on."""
        return {} if features_only else {"active": list(self.active), "levels": list(self.levels)}

    def _encode(self, images: Tensor) -> Features:
        return self.features(self._look(images, ()))

    def _look(self, images: Tensor, names: Sequence[str]) -> Levels:
        """`look` at normalised pictures, with some of the paths."""
        grid = (images.shape[2] // self.stride, images.shape[3] // self.stride)
        prefix = self._vit.num_prefix_tokens
        stem: list[Tensor] = []
        paths: dict[str, list[Tensor]] = {name: [] for name in names}
        states: dict[str, Tensor] = {}
        for depth, tokens in enumerate(self._stem_states(images)):
            for name in names:
                states[name] = self._path(name).advance(depth, states.get(name), tokens)
            if depth - 1 in self.levels:
                for name in names:
                    normed = self._path(name).norms[len(stem)](states[name][:, prefix:])
                    paths[name].append(_as_map(normed, grid))
                stem.append(_as_map(tokens[:, prefix:], grid))
        return Levels(stem, paths, tokens[:, 0])

    def _stem_states(self, images: Tensor) -> Iterator[Tensor]:
        """h^0, the tokens behind the position embedding, then h^1..h^L behind every block; [B, N, D]."""
        vit = self._vit
        tokens = vit.norm_pre(vit._pos_embed(vit.patch_embed(images)))
        yield tokens
        for block in vit.blocks:
            tokens = block(tokens)
            yield tokens

    def add_tasks(self, tasks: Mapping[str, DenseTask]) -> None:
        """Adds tasks, with routers and heads of their own, in place; all else stays as it is.

        Raises:
            ValueError: a task of that name is there already.
        """
        for name, task in tasks.items():
            _check_name("task", name, self.heads)
            self.tasks[name] = task
            self.heads[name] = self._placed(TaskHead(self.patch_dim, task.channels, LEVELS))
            if self.router == "mor" and self.paths:
                self.routers[name] = self._new_routers(1 + len(self.paths))

    def add_paths(self, names: Sequence[str]) -> None:
        """Adds paths for more teachers to a model, in place, trained or not; they are on.

        Nothing else changes. In every router the newcomers start with next to no weight (see `Router.rearrange`), so
        that the answers hardly move until the paths have learnt something. `router="sum"` has no such means: there the
        answers move at once.

        Raises:
            ValueError: a path of that name is there already.
        """
        before = len(self.paths)
        self._append_paths(names)
        if self.router == "sum":
            return
        for task in self.tasks:
            if task not in self.routers:
                self.routers[task] = self._new_routers(1)
            self._rearrange(task, [*range(1 + before), *[None] * len(names)])

    def trimmed(self, paths: Collection[str] | None = None, tasks: Collection[str] | None = None) -> MultiTaskEncoder:
        """A copy that holds some of the paths and tasks only; it answers as this model does with just those paths on.

        Args:
            paths: which paths; those that are on if None.
            tasks: which tasks; all if None.

        Raises:
            ValueError: a path or task that the model does not have.
        """
        kept_paths = self.active if paths is None else self._known_paths(paths)
        kept_tasks = [name for name in self.tasks if tasks is None or name in tasks]
        unknown = sorted(set(tasks or ()) - set(self.tasks))
        if unknown:
            raise ValueError(f"{self.name} has no task {', '.join(unknown)}; it has {', '.join(self.tasks) or 'none'}")
        # What is left out is not copied either: it can be most of a model.
        part = copy.copy(self)
        part._modules = dict(self._modules)
        part.paths = nn.ModuleDict({name: self.paths[name] for name in kept_paths})
        part.heads = nn.ModuleDict({name: self.heads[name] for name in kept_tasks})
        routed = [name for name in kept_tasks if name in self.routers] if kept_paths else []
        part.routers = nn.ModuleDict({name: self.routers[name] for name in routed})
        part = copy.deepcopy(part)
        part.tasks = {name: self.tasks[name] for name in kept_tasks}
        part._off = frozenset()
        for task in routed:
            part._rearrange(task, [0, *(1 + self.path_names.index(name) for name in kept_paths)])
        return part.train(self.training)

    def intermediates(self, images: Tensor, taps: Sequence[int]) -> list[Tensor]:
        """The stem's maps, see `Encoder.intermediates`."""
        return self.stem.intermediates(images, taps)

    def size_error(self, height: int, width: int) -> str | None:
        """See `Encoder.size_error`."""
        return self.stem.size_error(height, width)

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that the stem's authors exclude from weight decay."""
        return {f"stem.{name}" for name in self.stem.no_weight_decay()}

    @property
    def _vit(self) -> Any:
        return self.stem.model

    def _path(self, name: str) -> TeacherPath:
        path = self.paths[name]
        assert isinstance(path, TeacherPath)
        return path

    def _experts(self, levels: Levels) -> list[int]:
        """Numbers of the experts that were looked at."""
        return [0, *(1 + self.path_names.index(name) for name in levels.paths)]

    def _known_paths(self, names: Collection[str]) -> tuple[str, ...]:
        """These paths in the order of the experts."""
        if isinstance(names, str):
            raise ValueError(f"paths are given as a list of names, not as the text {names!r}")
        unknown = [name for name in names if name not in self.paths]
        if unknown:
            shown = ", ".join(self.path_names) or "none"
            raise ValueError(f"{self.name} has no path {', '.join(unknown)}; it has {shown} (the stem is always on)")
        return tuple(name for name in self.path_names if name in names)

    def _append_paths(self, names: Sequence[str]) -> None:
        for name in names:
            _check_name("path", name, self.paths)
            self.paths[name] = self._placed(TeacherPath(self.patch_dim, len(self._vit.blocks), LEVELS))

    def _new_routers(self, experts: int) -> nn.Module:
        return self._placed(nn.ModuleList(Router(self.patch_dim, experts) for _ in range(LEVELS)))

    def _rearrange(self, task: str, order: Sequence[int | None]) -> None:
        for router in self.routers[task].children():
            assert isinstance(router, Router)
            router.rearrange(order)

    def _placed(self, module: nn.Module) -> nn.Module:
        """A new part, where and in the mode in which the model is."""
        weight = next(self.stem.parameters())
        return module.to(weight.device, weight.dtype).train(self.training)


def make_multitask_encoder(
    stem: Encoder,
    paths: Sequence[str],
    tasks: Mapping[str, DenseTask],
    router: RouterKind = "mor",
    levels: Sequence[int] | None = None,
) -> MultiTaskEncoder:
    """Builds a multi-task model around a ViT.

    New parts have random weights. The stem keeps its own normalisation of pictures (ours; the paper gives everything
    the statistics of ImageNet).

    Args:
        stem: a plain ViT of timm (or a saved one) with a class token and a learned position embedding. It becomes part
            of the model and loses its final norm and its class head, which SAK does without.
        paths: names of the teachers; empty for a model without paths.
        tasks: by name; empty for the label-free first stage, see `MultiTaskEncoder.add_tasks`.
        router: "mor" or "sum", see `MultiTaskEncoder`.
        levels: numbers of four blocks to tap, from 0; `default_levels` if None.

    Raises:
        ValueError: another kind of model, unusable names, an unknown router or other levels; says what would be right.
    """
    ready = prepared_stem(stem)
    blocks = len(ready.model.blocks)  # type: ignore[arg-type]
    return MultiTaskEncoder(ready, paths, tasks, router, default_levels(blocks) if levels is None else levels)


def _checked_levels(levels: Sequence[int], blocks: int) -> tuple[int, ...]:
    ascending = list(levels) == sorted(set(levels)) and all(level >= 0 for level in levels)
    if len(levels) != LEVELS or not ascending or levels[-1] != blocks - 1:
        raise ValueError(
            f"levels are {LEVELS} numbers of blocks, from 0, ascending, with the last block ({blocks - 1}) last; got "
            f"{tuple(levels)}. Leave them out for the quarters"
        )
    return tuple(levels)


def _check_name(kind: str, name: str, known: nn.ModuleDict) -> None:
    if name in known:
        raise ValueError(f"there are two {kind}s called {name!r}; call one differently")
    if not name or "." in name or name == STEM or hasattr(known, name):
        raise ValueError(f"{name!r} cannot be the name of a {kind}: take a word without dots, other than {STEM!r}")


def _as_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """[B, h*w, D] -> [B, D, h, w]."""
    return tokens.unflatten(1, grid).permute(0, 3, 1, 2)
