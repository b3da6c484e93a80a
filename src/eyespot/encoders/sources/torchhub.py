"""`torchhub/REPO:ENTRY`: models that a repository offers through torch.hub, from GitHub or a local clone."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from eyespot.encoders.base import Encoder
from eyespot.encoders.code import CodeFile, code_hash, forget_changed
from eyespot.encoders.sources.timm import TimmEncoder
from eyespot.encoders.weights import load_strictly, read_weights
from eyespot.features import Features
from eyespot.files import read_text
from eyespot.specs import nearest_names

Reader = Callable[[nn.Module, Tensor], tuple[Tensor, Tensor]]

_DINO_KEYS = ("x_norm_clstoken", "x_norm_patchtokens")
_TIMM_PARTS = ("forward_features", "forward_head", "num_features", "pretrained_cfg")


class TorchHubEncoder(Encoder):
    """A model that gives a summary [B, C] and patches, as tokens [B, N, D] without prefix or as a map [B, D, h, w].

    Widths and stride are read from one run on a grey picture; any multiple of the stride will do.

    Args:
        model: the model, in eval mode.
        read: how it is asked: (model, normalised pictures) -> (summary, patches).
        name: the spec shown to people.
        mean, std: normalisation.
        size: (height, width) to use when the user names none, and for that run. None: the model's own
            `preferred_resolution` (RADIO), else 224; and 224 for the run.
        license: licence of the weights.

    Raises:
        ValueError: patches that are no grid.
    """

    def __init__(
        self,
        model: nn.Module,
        read: Reader,
        name: str,
        mean: Sequence[float],
        std: Sequence[float],
        size: tuple[int, int] | None = None,
        license: str | None = None,
    ) -> None:
        super().__init__(mean, std)
        self.model = model
        self._read = read
        self.name, self.license = name, license
        images = _grey(size)
        with torch.no_grad():
            summary, patches = read(model, images)
        self.stride = self._find_stride(patches, images.shape[2], images.shape[3])
        features = Features(summary, self._as_map(patches, (images.shape[2], images.shape[3])))
        self.summary_dim, self.patch_dim = features.summary.shape[1], features.patches.shape[1]
        self.default_size = self.fitting_size(size or getattr(model, "preferred_resolution", None) or 224)

    def _encode(self, images: Tensor) -> Features:
        summary, patches = self._read(self.model, images)
        return Features(summary, self._as_map(patches, (images.shape[2], images.shape[3])))

    def _as_map(self, patches: Tensor, size: tuple[int, int]) -> Tensor:
        grid = (size[0] // self.stride, size[1] // self.stride)
        if patches.ndim == 3 and patches.shape[1] == grid[0] * grid[1]:
            return patches.unflatten(1, grid).permute(0, 3, 1, 2)
        if patches.ndim == 4 and tuple(patches.shape[2:]) == grid:
            return patches
        raise ValueError(
            f"{self.name}: patches of shape {tuple(patches.shape)} are no {grid[0]}x{grid[1]} grid of a "
            f"{size[0]}x{size[1]} picture"
        )

    def _find_stride(self, patches: Tensor, height: int, width: int) -> int:
        rows = patches.shape[2] if patches.ndim == 4 else round((patches.shape[1] * height / width) ** 0.5)
        stride = height // max(1, rows)
        if rows < 1 or height != rows * stride or width % stride:
            raise ValueError(
                f"{self.name}: patches of shape {tuple(patches.shape)} make no even grid of a {height}x{width} "
                "picture; give a multiple of the model's stride as size="
            )
        return stride

    def intermediates(self, images: Tensor, taps: Sequence[int]) -> list[Tensor]:
        """See `Encoder.intermediates`; `taps` are blocks (ViT) or stages (ConvNeXt), ascending; not normed.

        Raises:
            NotImplementedError: the model has no `get_intermediate_layers`, which DINOv2, DINOv3 and EUPE have.
        """
        if not hasattr(self.model, "get_intermediate_layers"):
            return super().intermediates(images, taps)
        self.check(images)
        self._refuse_unordered(taps, "the model")
        look: Any = self.model.get_intermediate_layers
        return list(look(self.normalised(images), n=list(taps), reshape=True, norm=False))


class TorchHubTimmEncoder(Encoder):
    """A model in timm's manner, by the rule of `TimmEncoder`; it is saved by its torch.hub spec.

    Args:
        model: has `forward_features`, `forward_head`, `num_features` and `pretrained_cfg`.
        name: the spec shown to people.
        mean, std: normalisation; None for that of the model's configuration.
        license: licence of the weights.
    """

    def __init__(
        self,
        model: Any,
        name: str,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
        license: str | None,
    ) -> None:
        cfg = model.pretrained_cfg
        model.pretrained_cfg = {**cfg, "mean": mean or cfg["mean"], "std": std or cfg["std"]}
        super().__init__(model.pretrained_cfg["mean"], model.pretrained_cfg["std"])
        self.timm = TimmEncoder(model, cfg.get("architecture", name), {}, name, license)
        self.name, self.license = name, license
        for fact in ("summary_dim", "patch_dim", "stride", "native_size", "default_size"):
            setattr(self, fact, getattr(self.timm, fact))

    def _encode(self, images: Tensor) -> Features:
        return self.timm._encode(images)

    def intermediates(self, images: Tensor, taps: Sequence[int]) -> list[Tensor]:
        """See `TimmEncoder.intermediates`."""
        return self.timm.intermediates(images, taps)

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that the model's authors exclude from weight decay."""
        return {f"timm.{name}" for name in self.timm.no_weight_decay()}


def create_torchhub_encoder(
    target: str,
    *,
    weights: str | Path | None = None,
    trust: bool = False,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    size: int | tuple[int, int] | None = None,
    license: str | None = None,
    **options: Any,
) -> Encoder:
    """Calls the entry point of a repository's `hubconf.py`. **This runs the repository's code.**

    What may come back, and how pictures are normalised for it unless `mean` and `std` say otherwise:

    - an `eyespot.Encoder`: as it is;
    - DINOv2, DINOv3, EUPE (`forward_features` gives a dict with x_norm_clstoken and x_norm_patchtokens): ImageNet's
      statistics, as those repositories state. Weights for satellite pictures need others;
    - RADIO (the model gives a pair, or an object with `summary` and `features`): not at all, it does so itself;
    - a model in timm's manner: by its own `pretrained_cfg`.

    Args:
        target: "OWNER/NAME[:BRANCH]:ENTRY" of GitHub, or "FOLDER:ENTRY" of a clone.
        weights: a checkpoint to load strictly into the model, whatever the entry point does with weights: official
            ones load with `strict=False`, or not at all unless told `pretrained=True` (EUPE D.5).
        trust: trust a repository of GitHub. Without, torch.hub asks unless it did so before.
        mean: overrides the normalisation's mean, three numbers.
        std: overrides its standard deviation.
        size: (height, width), or the side of a square, to use when the user names none; 224 or what the model
            prefers. For the DINO and RADIO ways.
        license: licence of the weights.
        options: handed to the entry point. `pretrained` is true unless given, or false with `weights`, if the entry
            point takes it.

    Raises:
        ValueError: no such entry point, something else came back, or weights that do not fit.
        FileNotFoundError: no clone there.
        PermissionError: the repository is not trusted yet.
        RuntimeError: the repository or its weights could not be fetched.
    """
    repo, colon, entry = target.rpartition(":")
    if not colon or not repo or not entry:
        raise ValueError(f"torchhub/{target}: write torchhub/OWNER/NAME:ENTRY or torchhub//path/to/clone:ENTRY")
    name = f"torchhub/{target}"
    code = _code_of(repo)
    if code is not None:
        forget_changed(code)
    model = _call_entry(repo, entry, trust, options, pretrained=weights is None)
    if not isinstance(model, nn.Module):
        raise ValueError(_refusal(name, "the entry point", model))
    if weights is not None:
        _load(model, weights)
    encoder = _as_encoder(model, name, mean, std, size, license)
    encoder.code = None if code is None else code_hash([code])
    return encoder


def _code_of(repo: str) -> CodeFile | None:
    """The file that says what a clone offers; of GitHub's repositories the classes of the model must do."""
    file = Path(repo) / "hubconf.py"
    return CodeFile("hubconf", file, None) if file.is_file() else None


def _as_encoder(
    model: Any,
    name: str,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    size: int | tuple[int, int] | None,
    license: str | None,
) -> Encoder:
    """What an entry point gave as an encoder; see `create_torchhub_encoder`."""
    if isinstance(model, Encoder):
        if (mean, std, size) != (None, None, None):
            raise ValueError(f"{name} is an eyespot.Encoder and states mean, std and size itself")
        model.name, model.license = name, license or getattr(model, "license", None)
        return model
    if all(hasattr(model, part) for part in _TIMM_PARTS):
        if size is not None:
            raise ValueError(f"{name} is a model in timm's manner and states its size itself; leave size out")
        return TorchHubTimmEncoder(model.eval(), name, mean, std, license)
    pixels = (size, size) if isinstance(size, int) else size
    read, usual = _find_reader(model.eval(), name, _grey(pixels))
    return TorchHubEncoder(model, read, name, mean or usual[0], std or usual[1], pixels, license)


def _grey(size: tuple[int, int] | None) -> Tensor:
    return torch.full((1, 3, *(size or (224, 224))), 0.5)


def _find_reader(model: nn.Module, name: str, images: Tensor) -> tuple[Reader, tuple[Any, Any]]:
    """How to ask the model, and the normalisation that goes with it."""
    with torch.no_grad():
        if hasattr(model, "forward_features"):
            found = model.forward_features(images)  # type: ignore[operator]
            if isinstance(found, Mapping) and all(key in found for key in _DINO_KEYS):
                return _read_dino, (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
        found = model(images)
    if _pair_of(found) is None:
        raise ValueError(_refusal(name, "the model", found))
    return _read_radio, ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def _read_dino(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    found = model.forward_features(images)  # type: ignore[operator]
    return found[_DINO_KEYS[0]], found[_DINO_KEYS[1]]


def _read_radio(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    found = _pair_of(model(images))
    assert found is not None  # `_find_reader` saw to that
    return found


def _pair_of(found: Any) -> tuple[Tensor, Tensor] | None:
    if hasattr(found, "summary") and hasattr(found, "features"):
        found = (found.summary, found.features)
    is_pair = isinstance(found, tuple) and len(found) == 2 and all(isinstance(part, Tensor) for part in found)
    return found if is_pair and found[0].ndim == 2 and found[1].ndim in (3, 4) else None


def _call_entry(repo: str, entry: str, trust: bool, options: dict[str, Any], pretrained: bool) -> Any:
    is_clone = Path(repo).is_dir()
    if is_clone and not (Path(repo) / "hubconf.py").is_file():
        raise FileNotFoundError(f"no hubconf.py in {repo}: it is no clone of a torch.hub repository")
    if not is_clone and (repo.startswith((".", "/", "~")) or repo.partition(":")[0].count("/") != 1):
        raise FileNotFoundError(f"no folder {repo}, and a repository of GitHub is written OWNER/NAME[:BRANCH]")
    where: dict[str, Any] = {"source": "local"} if is_clone else {"source": "github", "trust_repo": trust or "check"}
    try:
        try:
            model = torch.hub.load(repo, entry, **where, verbose=False, **{"pretrained": pretrained, **options})
        except TypeError as error:
            if "pretrained" in options or "unexpected keyword argument 'pretrained'" not in str(error):
                raise
            model = torch.hub.load(repo, entry, **where, verbose=False, **options)
    except Exception as error:
        plainer = _plainer(error, repo, entry, is_clone)
        if plainer is None:
            raise
        raise plainer from error
    if is_clone:
        _refuse_other_copy(model, Path(repo))
    return model


def _plainer(error: Exception, repo: str, entry: str, is_clone: bool) -> Exception | None:
    """An error that names the fix, for those whose cause is known."""
    target = f"torchhub/{repo}:{entry}"
    text = str(error)
    if "Cannot find callable" in text:
        near = nearest_names(entry, _names_in(Path(repo) / "hubconf.py"), most=3, cutoff=0.5)
        return ValueError(f"{target}: no such entry point; did you mean {' or '.join(near) or 'another one'}?")
    if isinstance(error, EOFError) or text == "Untrusted repository.":
        return PermissionError(f"{target} runs code of that repository; if you trust it, add trust=true")
    if isinstance(error, (URLError, ConnectionError, TimeoutError)) or "no internet connection" in text:
        clone = "" if is_clone else f"clone github.com/{repo} and write torchhub//path/to/clone:{entry}, "
        return RuntimeError(
            f"{target} could not be fetched ({type(error).__name__}: {error}). Offline? Then {clone}bring the weight "
            "file and pass it as weights=FILE"
        )
    return None


def _names_in(hubconf: Path) -> list[str]:
    """Names that a hubconf.py defines or imports."""
    if not hubconf.is_file():
        return []
    statements = ast.parse(read_text(hubconf)).body
    defined = [statement.name for statement in statements if isinstance(statement, ast.FunctionDef)]
    imports = [statement for statement in statements if isinstance(statement, ast.ImportFrom)]
    return defined + [alias.asname or alias.name for statement in imports for alias in statement.names]


def _refuse_other_copy(model: Any, repo: Path) -> None:
    """Two clones with a package of the same name: Python would take the first one's code for both."""
    module = type(model).__module__
    package = module.partition(".")[0]
    file = getattr(sys.modules.get(module), "__file__", None)
    if file and (repo / package).is_dir() and not Path(file).resolve().is_relative_to(repo.resolve()):
        raise ValueError(
            f"torchhub/{repo}: its package {package!r} was imported from {Path(file).parent} before; Python keeps one "
            "package of a name, so load this clone in another process"
        )


def _load(model: nn.Module, file: str | Path) -> None:
    state = read_weights(file)
    try:
        load_strictly(model, state, str(file))
    except ValueError as error:
        if any(key.startswith("projectors.") for key in state):
            raise ValueError(f"{error}. EUPE's own files, with their projectors, are loaded as eupe/NAME") from error
        raise


def _refusal(name: str, what: str, found: Any) -> str:
    parts = f" of {', '.join(type(part).__name__ for part in found)}" if isinstance(found, (tuple, list)) else ""
    parts = f" with {', '.join(map(str, found))}" if isinstance(found, Mapping) else parts
    return (
        f"{name}: {what} returned a {type(found).__name__}{parts}; understood are an eyespot.Encoder, DINO's "
        "forward_features, RADIO's pair of summary and features, and models of timm. Wrap it in an Encoder of your own "
        "and load it as python/file.py:factory"
    )
