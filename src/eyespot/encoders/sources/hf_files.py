"""Model folders of the Hugging Face hub: fetching them, and what their files state."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eyespot.encoders.base import Channels
from eyespot.files import read_text

CONFIG_FILE, MODEL_FILE = "config.json", "model.safetensors"
_PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
STATE_IT = "state mean=R,G,B and std=R,G,B for pictures in [0, 1], and channel_order=bgr if the model wants BGR"
_MORE_THAN_NORMALISING = (
    "rescale_offset",  # EfficientNet
    "include_top",  # EfficientNet: divides by the std once more
    "offset",  # ViViT
    "do_grayscale",  # SuperPoint, LightGlue
    "do_convert_grayscale",
    "do_color_quantize",  # ImageGPT
    "do_map_pixels",  # FLAVA's code book
)
_DESCRIPTIONS = [CONFIG_FILE, *_PROCESSOR_FILES, "open_clip_config.json", "README.md"]
_SAFETENSORS = [MODEL_FILE, "model.safetensors.index.json", "model-*-of-*.safetensors", "adapters.safetensors"]
_PICKLES = ["pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*-of-*.bin"]


@dataclass(frozen=True)
class ModelFolder:
    """A folder that holds a model, local or in the hub's cache.

    Attributes:
        name: the path or the ORG/NAME that was asked for.
        path: where it lies.
        revision: branch, tag or commit of a repo; None for the main branch.
        is_local: whether it is the user's own folder and not the hub's repo.
    """

    name: str
    path: Path
    revision: str | None
    is_local: bool

    def fetch_weights(self, pickles: bool = False) -> None:
        """Brings the weights: safetensors if there are any.

        Args:
            pickles: whether files of `torch.save` will do; they must be read with `weights_only`.

        Raises:
            FileNotFoundError: there are none, or they cannot be reached; says what to bring.
        """
        for patterns in [_SAFETENSORS, _PICKLES] if pickles else [_SAFETENSORS]:
            if not self.is_local:
                _download(self.name, self.revision, patterns)
            if any(any(self.path.glob(pattern)) for pattern in patterns):
                return
        raise FileNotFoundError(
            f"no {MODEL_FILE} in {self.path}; bring it, pass weights=FILE, or take random weights by pretrained=false"
        )


def find_folder(name: str, revision: str | None = None) -> ModelFolder:
    """A local folder of that name, or else the hub's repo of that name, for now without its weights.

    Args:
        name: a path or ORG/NAME.
        revision: branch, tag or commit of a repo.

    Raises:
        FileNotFoundError: there is no such folder or repo, or it cannot be reached; says what to bring.
        PermissionError: the repo asks for consent first.
        ValueError: a revision of a local folder.
    """
    if Path(name).is_dir():
        if revision is not None:
            raise ValueError(f"hf/{name} is a local folder, which has no revision {revision!r}")
        return ModelFolder(name, Path(name), None, is_local=True)
    if name.startswith(("/", ".", "~")):
        raise FileNotFoundError(f"no folder {name} (an absolute path is written hf//path/to/folder)")
    return ModelFolder(name, _download(name, revision, _DESCRIPTIONS), revision, is_local=False)


def _download(repo: str, revision: str | None, patterns: list[str]) -> Path:
    import huggingface_hub
    from huggingface_hub import errors

    try:
        return Path(huggingface_hub.snapshot_download(repo, revision=revision, allow_patterns=patterns))
    except errors.GatedRepoError as error:
        raise PermissionError(
            f"hf/{repo} is gated: accept its licence on the model's page, https://huggingface.co/{repo}, "
            "then log in with `hf auth login` (or set HF_TOKEN)"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise FileNotFoundError(f"hf/{repo} has no revision {revision!r}") from error
    except errors.RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"there is neither a folder nor a hub model {repo!r}; if it is private, log in with `hf auth login`"
        ) from error
    except errors.HFValidationError as error:
        raise FileNotFoundError(f"there is no folder {repo!r}, and hub models are named ORG/NAME") from error
    except Exception as error:
        raise FileNotFoundError(
            f"hf/{repo} could not be downloaded ({type(error).__name__}: {error}). Offline? Bring its files "
            "config.json, preprocessor_config.json and model.safetensors (README.md states the licence) into a folder "
            "and load that: hf//path/to/folder"
        ) from error


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's config.json.

    Raises:
        FileNotFoundError: it has none.
        ValueError: it is damaged.
    """
    file = folder / CONFIG_FILE
    if not file.is_file():
        hint = ""
        if (folder / "open_clip_config.json").is_file():
            hint = "; it is a model of open_clip, load it by the open_clip/ source"
        raise FileNotFoundError(f"no {CONFIG_FILE} in {folder}{hint}")
    try:
        config = json.loads(read_text(file))
    except ValueError as error:
        raise ValueError(f"{file} is damaged: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{file} is not the configuration of a model")
    return config


def read_license(folder: Path) -> str | None:
    """The licence that the model card states: `license`, or `license_name` where that is "other"."""
    from huggingface_hub.repocard import metadata_load

    card = folder / "README.md"
    try:
        header = (metadata_load(card) if card.is_file() else None) or {}
    except Exception:  # a header that is no YAML states nothing
        return None
    stated = header.get("license")
    if stated == "other":
        stated = header.get("license_name") or stated
    if isinstance(stated, list):
        return " and ".join(str(one) for one in stated) or None
    return str(stated) if stated else None


@dataclass(frozen=True)
class Preprocessing:
    """What an image processor does to pictures in [0, 1].

    Attributes:
        mean, std: normalisation per channel.
        size: (height, width) in pixels, None if the processor does not say.
        channel_order: the order in which the model gets them.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int] | None
    channel_order: Channels


def read_preprocessing(folder: Path) -> Preprocessing | None:
    """What the folder's image processor does, None if the folder says nothing about it.

    Keys that the file leaves out are the defaults of the processor class it names. Without a file there is no
    statement: those defaults are not what the models of a family were trained with (ours).

    Raises:
        ValueError: the processor is unknown, or does what `(x - mean) / std` cannot express.
    """
    if not _states_preprocessing(folder):
        return None
    try:
        processor = _processor_of(folder)
    except Exception as error:
        raise ValueError(f"the image processor in {folder} cannot be read ({error}); {STATE_IT}") from error
    scale = getattr(processor, "rescale_factor", None) if getattr(processor, "do_rescale", True) else 1.0
    if scale is None or not math.isclose(scale, 1 / 255, rel_tol=1e-3):
        raise ValueError(f"the image processor in {folder} scales pictures by {scale} and not by 1/255; {STATE_IT}")
    more = [name for name in _MORE_THAN_NORMALISING if getattr(processor, name, False)]
    if more:
        raise ValueError(f"the image processor in {folder} does more than normalise: {', '.join(more)}; {STATE_IT}")
    channels: Channels = "bgr" if getattr(processor, "do_flip_channel_order", False) else "rgb"
    mean: Any = (0.0, 0.0, 0.0)
    std: Any = (1.0, 1.0, 1.0)
    if getattr(processor, "do_normalize", True):
        mean, std = processor.image_mean, processor.image_std
    if not isinstance(mean, (list, tuple)) or not isinstance(std, (list, tuple)):
        raise ValueError(f"the image processor in {folder} states no mean and std per channel; {STATE_IT}")
    stated = Preprocessing(tuple(mean), tuple(std), _size(processor), channels)
    _refuse_other_colours(processor, stated, folder)
    return stated


def read_channels(folder: Path) -> Channels:
    """The order of channels that the folder's processor makes, for whoever states mean and std otherwise."""
    if not _states_preprocessing(folder):
        return "rgb"
    try:
        flips = getattr(_processor_of(folder), "do_flip_channel_order", False)
    except Exception:  # a processor that transformers does not know may still say it
        flips = any(_says_flip(folder / name) for name in _PROCESSOR_FILES)
    return "bgr" if flips else "rgb"


def _states_preprocessing(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _PROCESSOR_FILES)


def _processor_of(folder: Path) -> Any:
    from transformers import AutoImageProcessor

    return AutoImageProcessor.from_pretrained(folder, trust_remote_code=False, local_files_only=True)


def _says_flip(file: Path) -> bool:
    try:
        stated = json.loads(read_text(file)) if file.is_file() else {}
        return bool({**stated, **stated.get("image_processor", {})}.get("do_flip_channel_order", False))
    except (ValueError, TypeError, AttributeError):
        return False


def _refuse_other_colours(processor: Any, stated: Preprocessing, folder: Path) -> None:
    """Shows the processor two pictures of one colour each, for what it does without a field that we know.

    A processor that gives no picture [3, H, W] (flattened patches, several crops) is believed.

    Raises:
        ValueError: the model would get other colours than by our reading.
    """
    for colour in ((200, 60, 20), (10, 120, 240)):
        picture = np.full((256, 256, 3), colour, np.uint8)
        try:
            given = processor(images=picture, return_tensors="np")["pixel_values"]
        except Exception:
            return
        if np.ndim(given) != 4 or np.shape(given)[:2] != (1, 3):
            return
        wanted = (np.array(colour) / 255 - np.array(stated.mean)) / np.array(stated.std)
        wanted = wanted if stated.channel_order == "rgb" else wanted[::-1]
        found = given[0, :, given.shape[2] // 2, given.shape[3] // 2]
        if not np.allclose(found, wanted, rtol=0.02, atol=0.02):
            raise ValueError(
                f"the image processor in {folder} makes {np.round(found, 3).tolist()} of the colour {colour}, which "
                f"its mean and std do not; {STATE_IT}"
            )


def _size(processor: Any) -> tuple[int, int] | None:
    cropped = getattr(processor, "do_center_crop", False) and getattr(processor, "crop_size", None)
    size = dict(cropped or getattr(processor, "size", None) or {})
    if size.get("height") and size.get("width"):
        return int(size["height"]), int(size["width"])
    edge = size.get("shortest_edge") or size.get("longest_edge")
    return (int(edge), int(edge)) if edge else None
