"""Any encoder as JSON and back: `config_of` says what config.json holds of it, `build_encoder` builds it again.

Most encoders are built by their spec alone. What needs more (the tasks of a multi-task model, a head that was put on
later) is said by the encoder itself, see `Encoder.get_config`, and read by the class that said it. Which class that is
can be told from the sections of config.json for the kinds of this library; of all others it is named there, as
`"class": "pkg.module:Class"`, so that nothing has to be registered before a folder is loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from eyespot.encoders.base import Encoder
from eyespot.encoders.loading import load_encoder
from eyespot.encoders.sources.python import code_behind, load_factory, target_of
from eyespot.specs import read_options

Config = Mapping[str, Any]


def config_of(encoder: Encoder, license: str | None = None) -> dict[str, Any]:
    """What config.json says of an encoder, whatever its kind; JSON-able.

    Args:
        encoder: any encoder.
        license: of the saved weights; the encoder's own if None.

    Raises:
        ValueError: a class of one's own that could not be found again, because it stands in a function or a script.
    """
    config = encoder.get_config(license)
    told = _class_of(config)
    if _reader(type(encoder)) is not _reader(told or Encoder):
        config["eyespot"]["class"] = target_of(type(encoder))
    return config


def build_encoder(config: Config) -> Encoder:
    """The inverse of `config_of`, with weights that are still to be loaded. **Runs code that the config names.**

    Raises:
        ValueError, TypeError, ModuleNotFoundError: the class that is named is no encoder's, or is not there.
    """
    kind = _class_of(config)
    encoder = _built_by_spec(config) if kind is None else kind.from_config(config)
    encoder.set_channel_order(config["eyespot"].get("channel_order", encoder.channel_order))
    named = config["eyespot"].get("class")
    if named is not None:
        encoder.code = code_behind(named)
    return encoder


def is_built_by_its_spec(encoder: Encoder) -> bool:
    """Whether `load_encoder` gives the same kind of encoder for its spec, so that nothing else has to be kept."""
    return encoder.architecture is not None or _reader(type(encoder)) is _reader(Encoder)


def built_by(config: Config) -> Iterator[str]:
    """What builds an encoder and those inside it: specs, and classes from elsewhere as `python/CLASS`.

    Nothing is said of what timm builds by itself, and of the classes of this library.
    """
    section = config.get("eyespot")
    if isinstance(section, Mapping):
        named = section.get("class")
        if named is not None and not str(named).startswith("eyespot."):
            yield f"python/{named}"
        if "architecture" not in config:
            yield str(section.get("spec"))
    for value in config.values():
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, Mapping):
                yield from built_by(part)


def code_needed(encoder: Encoder) -> str | None:
    """The spec or class, not of this library, without whose code a saved encoder cannot be built; None if none."""
    builders = built_by(config_of(encoder))
    return next((one for one in builders if one.startswith(("python/", "torchhub/"))), None)


def _reader(kind: type[Any]) -> Any:
    """The function that reads the configs of a class, which may be inherited."""
    return kind.from_config.__func__


def _class_of(config: Config) -> type[Encoder] | None:
    """The class that reads a config; None if the spec says it all."""
    named = config["eyespot"].get("class")
    if named is not None:
        return _checked(load_factory(named), named)
    ours = _class_of_section(config)
    if ours is None:
        return None
    module, _, name = ours.partition(":")
    return _checked(getattr(import_module(f"eyespot.encoders.{module}"), name), ours)


def _class_of_section(config: Config) -> str | None:
    """The class of this library that a config belongs to, "module:Class"; folders have never named those."""
    section = config["eyespot"]
    if "multitask" in section:
        return "multitask.model:MultiTaskEncoder"
    if "architecture" in config:
        return "sources.timm:TimmEncoder"
    return "headed:HeadedEncoder" if section.get("head") == "linear" else None


def _checked(kind: Any, target: str) -> type[Encoder]:
    if not (isinstance(kind, type) and issubclass(kind, Encoder)):
        raise TypeError(f"a saved model names {target} as its class, which is no eyespot.Encoder; was it renamed?")
    return kind


def _built_by_spec(config: Config) -> Encoder:
    spec, _, query = config["eyespot"]["spec"].partition("?")
    options = {key: value for key, value in read_options(query).items() if key != "weights"}
    if not spec.startswith("python/"):
        options["pretrained"] = False  # the weights are in the folder
    try:
        return load_encoder(spec, **options)
    except ValueError as error:
        if "'pretrained'" not in str(error):
            raise
        return load_encoder(spec, **{key: value for key, value in options.items() if key != "pretrained"})
