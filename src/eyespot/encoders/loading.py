"""`load_encoder`: any model by a spec whose prefix says where it comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from eyespot.specs import nearest_names, read_options, write_options

if TYPE_CHECKING:
    from eyespot.encoders.base import Encoder


@dataclass(frozen=True)
class Source:
    """Where models come from.

    Attributes:
        form: how a spec is written.
        about: what it names, for people.
        maker: "module:function" of (rest of the spec, [weights=FILE,] **options) -> Encoder; imported on use.
        takes_weights: whether a separate weight file can be given.
        head: the option by which the class head is asked for that its models bring: "num_classes" (how many outputs,
            None for what is there), "logits" (true), or None where a head is brought anyway, or never.
    """

    form: str
    about: str
    maker: str
    takes_weights: bool = True
    head: Literal["num_classes", "logits"] | None = None

    @property
    def usage(self) -> str:
        """One line of help."""
        return f"{self.form:<22} {self.about}"

    @property
    def create(self) -> Callable[..., Encoder]:
        """Builds an encoder of this source."""
        module, _, function = self.maker.partition(":")
        maker: Callable[..., Encoder] = getattr(import_module(f"eyespot.encoders.{module}"), function)
        return maker


def _file_source(form: str, about: str, maker: str) -> Source:
    """Files of other runtimes."""
    return Source(form, about, f"runtimes.{maker}", takes_weights=False, head="logits")


_SOURCES = (
    Source(
        "timm/NAME[.tag]",
        "a model of timm, e.g. timm/vit_small_patch16_224",
        "sources.timm:create_timm_encoder",
        head="num_classes",
    ),
    Source(
        "hf/REPO", "a model of the Hugging Face hub, or a folder: hf//path/to/folder", "sources.hf:create_hf_encoder"
    ),
    Source(
        "open_clip/NAME[.tag]", "the image tower of an open_clip model", "sources.open_clip:create_open_clip_encoder"
    ),
    Source(
        "torchhub/REPO:ENTRY",
        "a torch.hub entry point, of GitHub or a local clone",
        "sources.torchhub:create_torchhub_encoder",
    ),
    Source("eupe/NAME", "an official EUPE checkpoint, with weights=FILE", "sources.eupe:create_eupe_encoder"),
    _file_source("onnx/FILE", "an ONNX file with outputs `summary` and `patches`", "onnx:OnnxEncoder"),
    _file_source(
        "openvino/FILE.xml",
        "an OpenVINO file, like the next three written by `eyespot export`",
        "openvino:OpenvinoEncoder",
    ),
    _file_source("executorch/FILE", "an ExecuTorch .pte file", "executorch:ExecutorchEncoder"),
    _file_source("litert/FILE", "a LiteRT .tflite file", "litert:LitertEncoder"),
    _file_source("torch/FILE", "a .pt2 file of torch.export", "torch:TorchFileEncoder"),
    Source("run/FOLDER", "the student (or a stage's model) of an eyespot run", "saved:load_saved_encoder"),
    Source(
        "python/MODULE:FACTORY",
        "your own code, a module or a file.py",
        "sources.python:create_python_encoder",
        takes_weights=False,
    ),
)
SOURCES = {source.form.partition("/")[0]: source for source in _SOURCES}


_MEANS = ((0.485, 0.456, 0.406), (0.48145466, 0.4578275, 0.40821073))  # ImageNet's and OpenAI's


def load_encoder(spec: str, weights: str | Path | None = None, **options: Any) -> Encoder:
    """Loads any model as an `Encoder`, in eval mode.

    Args:
        spec: PREFIX/REST, with options after a question mark: "timm/test_vit?pretrained=false",
            "onnx/model.onnx?patches=features&summary=mean". A relative or absolute path follows the prefix:
            "onnx/a.onnx" or "onnx//data/a.onnx".
        weights: a checkpoint file (safetensors, or torch with `weights_only`), loaded strictly. In a spec it is one of
            the options: "eupe/vitt16?weights=EUPE-ViT-T.pt".
        options: the same options as keywords; see the source's class for which there are. For all but python/,
            `channel_order`: "rgb" or "bgr", the order in which the network wants them. Pictures, mean and std are RGB.

    Raises:
        ValueError: an unknown prefix or option, or weights that do not fit.
        FileNotFoundError: the file or folder is not there.
        ImportError: an optional library is missing; says how to install it.
    """
    path, _, query = spec.partition("?")
    prefix, _, rest = path.partition("/")
    from eyespot.encoders.weights import watched_loading  # here, since whoever only reads specs needs no torch

    source = _source_of(spec)
    options = {**read_options(query), **options}
    if weights is not None:
        options["weights"] = str(weights)
    if isinstance(options.get("weights"), tuple):
        raise ValueError(f"{spec}: a comma separates values; in the name of a file it is written %2C")
    if "weights" in options and not source.takes_weights:
        raise ValueError(f"{spec}: {prefix}/ takes no weights=; the file itself holds them")
    if prefix != "python":
        _check_statistics(spec, options)
    given = {key: value for key, value in options.items() if key != "channel_order" or prefix == "python"}
    try:
        with watched_loading() as unfilled:
            encoder = source.create(rest, **given)
    except TypeError as error:
        if prefix == "python" and "unexpected keyword argument" not in str(error):
            raise  # a fault in somebody's own code, not in the spec
        raise ValueError(f"{spec}: {error}") from error
    except (ArithmeticError, LookupError, AttributeError, AssertionError) as error:
        if prefix == "python" or not options:
            raise
        raise ValueError(f"{spec} cannot be built with these options ({type(error).__name__}: {error})") from error
    except (ValueError, RuntimeError) as error:
        if type(error) not in (ValueError, RuntimeError) or rest in str(error):
            raise
        raise type(error)(f"{spec}: {error}") from error
    encoder.made_up = (*encoder.made_up, *unfilled.names_in(encoder))
    if "channel_order" in options and prefix != "python":
        encoder.set_channel_order(options["channel_order"])
    if options.get("num_classes", 0) is None:
        options["num_classes"] = encoder.num_classes  # so that the name loads the same head again
    if options:
        encoder.name += f"?{write_options(options)}"  # what tells it from the same model with other options
    return encoder.eval()


def _check_statistics(spec: str, options: Mapping[str, Any]) -> None:
    if ("mean" in options) != ("std" in options):
        raise ValueError(f"{spec}: state mean= and std= together")
    mean = options.get("mean")
    turned = isinstance(mean, Sequence) and any(
        len(mean) == 3 and all(abs(a - b) < 1e-3 for a, b in zip(mean, known[::-1], strict=True)) for known in _MEANS
    )
    if turned and isinstance(mean, Sequence):
        raise ValueError(
            f"{spec}: this mean is a known one in the order blue, green, red. Means and stds are stated for red, "
            f"green, blue (mean={','.join(f'{value:g}' for value in mean[::-1])}), and that a network wants BGR by "
            "channel_order=bgr"
        )


def check_spec(spec: str) -> None:
    """Looks at what a spec says without loading anything.

    Raises:
        ValueError: an unknown prefix.
        FileNotFoundError: a file of another runtime that is not there.
    """
    source = _source_of(spec)
    prefix, _, rest = spec.partition("?")[0].partition("/")
    if source.maker.startswith("runtimes.") and not Path(rest).exists():
        raise FileNotFoundError(f"no {prefix} file at {rest} (an absolute path is written {prefix}//path/to/file)")


def _source_of(spec: str) -> Source:
    prefix, slash, rest = spec.partition("?")[0].partition("/")
    if not slash or prefix not in SOURCES or not rest:
        raise ValueError(_unknown(spec, prefix))
    return SOURCES[prefix]


def _unknown(spec: str, prefix: str) -> str:
    near = nearest_names(prefix, SOURCES)
    if near and near[0] != prefix and "/" in spec:
        return f"{spec!r}: no source {prefix!r}; did you mean {near[0]}/...?"
    return f"{spec!r} names no model. Sources:\n  " + "\n  ".join(source.usage for source in SOURCES.values())
