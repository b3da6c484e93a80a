"""What image and text towers of open_clip share: finding a model by name, building it, and its weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from eyespot.encoders.sources.hf_files import read_license
from eyespot.encoders.weights import load_strictly, read_weights
from eyespot.files import read_text
from eyespot.specs import nearest_names

_SMALLEST_TEXT = {"context_length": 1, "vocab_size": 1, "width": 1, "heads": 1, "layers": 1}
_SMALLEST_IMAGE = {"image_size": 1, "patch_size": 1, "width": 1, "head_width": 1, "layers": 1}
_FOLDER, _HUB = "local-dir:", "hf-hub:"


@dataclass(frozen=True)
class OpenClipModel:
    """A model that open_clip knows, or one of its folders.

    Attributes:
        name: as open_clip takes it: a built-in name, "local-dir:FOLDER" or "hf-hub:REPO".
        tag: which of its released weights, None if none was named.
        config: open_clip's model configuration.
        preprocess: the preprocessing that goes with each of the weights it may be: one, unless no tag was named.
    """

    name: str
    tag: str | None
    config: dict[str, Any]
    preprocess: tuple[dict[str, Any], ...]

    @property
    def is_place(self) -> bool:
        """Whether it is a folder or a repository and not one of open_clip's own configurations."""
        return _is_place(self.name)

    @property
    def has_weights(self) -> bool:
        """Whether the name alone says which weights."""
        return self.tag is not None or self.is_place

    def pretrained(self) -> nn.Module:
        """Both towers with the released weights, which open_clip loads strictly.

        Raises:
            ValueError: no tag was named, or the weights do not fit.
            RuntimeError: the weights are not there and could not be fetched; says which file to bring.
        """
        open_clip = import_open_clip()
        if not self.has_weights:
            raise ValueError(
                f"open_clip/{self.name}: which weights? Write open_clip/{self.name}.TAG, pass weights=FILE, or take "
                f"random weights: pretrained=false. Tags: {_listed_tags(self.name)}"
            )
        try:
            return open_clip.create_model(
                self.name,
                pretrained=self.tag,
                force_quick_gelu=self.quick_gelu,
                require_pretrained=True,
                pretrained_text=False,
            )
        except Exception as error:
            if "loading state_dict" in str(error):
                raise ValueError(f"open_clip/{self.spec}: the weights do not fit: {error}") from error
            raise RuntimeError(
                f"open_clip/{self.spec}: no weights ({type(error).__name__}: {error}). {self._remedy()}"
            ) from error

    def tower(self, kind: str) -> nn.Module:
        """One tower with random weights, "image" or "text": a module of open_clip with that tower in full.

        open_clip builds towers in pairs only, so the other one is the smallest there is.
        """
        open_clip = import_open_clip()
        config = {key: value for key, value in self.config.items() if key != "custom_text"}
        config["quick_gelu"] = self.quick_gelu
        if kind == "image":
            config.pop("multimodal_cfg", None)
            config["vision_cfg"] = {**config["vision_cfg"], "timm_model_pretrained": False}
            return open_clip.CustomTextCLIP(**config | {"text_cfg": _SMALLEST_TEXT})
        config["text_cfg"] = {**config["text_cfg"], "hf_model_pretrained": False}
        custom = self.config.get("custom_text") or config["text_cfg"].get("hf_model_name")
        build = open_clip.CustomTextCLIP if custom else open_clip.CLIP
        if "multimodal_cfg" in config:
            build = open_clip.CoCa
        return build(**config | {"vision_cfg": _SMALLEST_IMAGE})

    @property
    def quick_gelu(self) -> bool:
        """Whether activations are QuickGELU: as the configuration says, and for the tags that were trained so.

        open_clip only warns where "ViT-B-32" is given OpenAI's weights, and computes with the wrong activation.
        """
        tagged = self.tag is not None and self.preprocess[0].get("quick_gelu", False)
        return bool(self.config.get("quick_gelu", False) or tagged)

    @property
    def spec(self) -> str:
        """As it is written after "open_clip/"."""
        return self.name if self.tag is None else f"{self.name}.{self.tag}"

    def statistics(self, required: bool) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation that pictures are normalised with.

        Args:
            required: whether it matters: for random weights any will do.

        Raises:
            ValueError: it matters, and the model's released weights differ in it.
        """
        open_clip = import_open_clip()
        usual = (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
        known = {
            (tuple(entry.get("mean") or usual[0]), tuple(entry.get("std") or usual[1])) for entry in self.preprocess
        }
        if len(known) > 1 and required:
            raise ValueError(
                f"open_clip/{self.name} is normalised in {len(known)} ways, depending on its weights; name the tag "
                f"that yours descend from, open_clip/{self.name}.TAG?weights=FILE, or give mean=R,G,B&std=R,G,B"
            )
        return known.pop() if len(known) == 1 else usual

    @property
    def channel_order(self) -> str:
        """The order of channels that the preprocessing of all its weights states, "rgb" or "bgr".

        Raises:
            ValueError: a mode of colours that is neither, or one that depends on the weights.
        """
        modes = {str(entry.get("mode", "RGB")).lower() for entry in self.preprocess} or {"rgb"}
        if len(modes) > 1 or not modes <= {"rgb", "bgr"}:
            raise ValueError(
                f"open_clip/{self.spec}: its pictures are {', '.join(sorted(modes))}; RGB or BGR is wanted"
            )
        return modes.pop()

    def stated_license(self) -> str | None:
        """The licence that the model card beside the released weights states; None if there is no card to be had."""
        if self.name.startswith(_FOLDER):
            return read_license(Path(self.name.removeprefix(_FOLDER)))
        repo = self.name.removeprefix(_HUB)
        if self.tag is not None:
            repo = "/".join(self.preprocess[0].get("hf_hub", "").split("/")[:2])
        try:
            return read_license(_fetched(repo, "README.md").parent) if repo else None
        except FileNotFoundError:
            return None

    def _remedy(self) -> str:
        if self.name.startswith(_FOLDER):
            return "Put open_clip_model.safetensors into the folder, or pass weights=FILE"
        if self.tag is None:
            return f"Offline? Bring that repository's folder and write open_clip/{_FOLDER}FOLDER"
        repo = self.preprocess[0].get("hf_hub", "").rstrip("/")
        file = f"open_clip_model.safetensors of {repo} on the Hugging Face hub" if repo else "the weight file"
        return f"Offline? Bring {file} and pass it as weights=FILE: open_clip/{self.spec}?weights=FILE"


def import_open_clip() -> Any:
    """The optional library.

    Raises:
        ImportError: it is missing; says how to install it.
    """
    try:
        import open_clip
    except ImportError as error:
        raise ImportError("open_clip/ models need open_clip: pip install 'eyespot[open_clip]'") from error
    return open_clip


def find_open_clip_model(rest: str) -> OpenClipModel:
    """Finds NAME[.tag], `local-dir:FOLDER` or `hf-hub:REPO`.

    Raises:
        ValueError: no such name or tag; shows the nearest, or all.
        FileNotFoundError: no open_clip model in the folder.
        RuntimeError: the repository's configuration could not be fetched.
    """
    open_clip = import_open_clip()
    if _is_place(rest):
        return _model_of_place(rest)
    name, _, tag = rest.partition(".")
    config = open_clip.get_model_config(name)
    if config is None:
        near = nearest_names(name, open_clip.list_models(), most=3, cutoff=0.5)
        raise ValueError(
            f"open_clip has no model {name!r}; did you mean {' or '.join(near) or 'open_clip.list_models()'}?"
        )
    if not tag:
        tags = open_clip.list_pretrained_tags_by_model(name)
        return OpenClipModel(name, None, config, tuple(open_clip.get_pretrained_cfg(name, known) for known in tags))
    preprocess = open_clip.get_pretrained_cfg(name, tag)
    if not preprocess:
        raise ValueError(f"open_clip/{name} has no weights {tag!r}; there are {_listed_tags(name)}")
    return OpenClipModel(name, tag, config, (preprocess,))


def load_tower_weights(tower: nn.Module, file: str | Path, kind: str) -> None:
    """Loads the "image" or "text" tower's part of a checkpoint, strictly.

    Args:
        tower: the module whose weights they are.
        file: state dict of a whole model, where the image tower's keys start with `visual.`; of the rest each tower
            leaves aside what is the other's. Without such keys the file must be that of the tower alone.
        kind: "image" or "text".

    Raises:
        FileNotFoundError, ValueError: see `read_weights` and `load_strictly`.
    """
    state = read_weights(file)
    image = {key.removeprefix("visual."): value for key, value in state.items() if key.startswith("visual.")}
    text = {key: value for key, value in state.items() if not key.startswith("visual.")}
    part: dict[str, Tensor] = (image or state) if kind == "image" else text
    load_strictly(tower, part, str(file))


def _is_place(name: str) -> bool:
    return name.startswith((_FOLDER, _HUB))


def _model_of_place(name: str) -> OpenClipModel:
    if name.startswith(_FOLDER):
        file = Path(name.removeprefix(_FOLDER)) / "open_clip_config.json"
        if not file.is_file():
            raise FileNotFoundError(f"no open_clip model in {file.parent}: there is no {file.name}")
    else:
        file = _config_of_repo(name.removeprefix(_HUB))
    config = json.loads(read_text(file))
    if "model_cfg" not in config:
        raise ValueError(f"{file} has no model_cfg: it is no open_clip configuration")
    return OpenClipModel(name, None, config["model_cfg"], (config.get("preprocess_cfg", {}),))


def _config_of_repo(repo: str) -> Path:
    try:
        return _fetched(repo, "open_clip_config.json")
    except Exception as error:
        raise RuntimeError(
            f"open_clip/{_HUB}{repo} could not be fetched ({type(error).__name__}: {error}). Offline? Bring that "
            f"repository's folder and write open_clip/{_FOLDER}FOLDER"
        ) from error


def _fetched(repo: str, file: str) -> Path:
    return Path(import_open_clip().pretrained.download_pretrained_from_hf(repo, filename=file))


def _listed_tags(name: str) -> str:
    return ", ".join(import_open_clip().list_pretrained_tags_by_model(name)) or "none for it"
