"""`eupe/NAME`: the official EUPE checkpoint files, read into their timm twins, and the way back.

An official file is a flat state dict in the names of the authors' own code ("Efficient Universal Perception Encoder",
arXiv 2603.22387, and its repository). timm has the same networks under other names, so reading is renaming:

- ViT: `storage_tokens` are timm's register tokens, `lsN.gamma` its layer scales. The fused `qkv.bias` is multiplied by
  `qkv.bias_mask` (1 for queries and values, 0 for keys); timm has a query and a value bias only.
- ConvNeXt: stem and downsampling lie in one list; the final norm is stored twice, as `norm` and as `norms.3`.
- `projectors.*`, the adapter heads towards the proxy, become `Encoder.adapters`.

What timm has no place for (mask token, masked key bias, RoPE periods that differ from timm's in the last bits) changes
no output of timm's model. It is kept among the adapters, behind `official.`, so that writing gives the same file back.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eyespot.encoders.base import Encoder
from eyespot.encoders.sources.eupe_projectors import KEPT, PROJECTORS, as_adapters, as_projectors
from eyespot.encoders.sources.timm import TimmEncoder, create_timm_encoder
from eyespot.encoders.weights import listed, load_strictly, misfits, read_weights
from eyespot.files import atomic_path
from eyespot.specs import nearest_names

LICENSE = "fair-noncommercial-research-license"


@dataclass(frozen=True)
class Checkpoint:
    """One of the official files.

    Attributes:
        file: its name on its model page.
        architecture: the timm twin.
        width: of its summary and patches.
        depths: blocks of every stage; a ViT is one stage.
    """

    file: str
    architecture: str
    width: int
    depths: tuple[int, ...]


CHECKPOINTS = {
    "vitt16": Checkpoint("EUPE-ViT-T.pt", "vit_tiny_patch16_dinov3_qkvb", 192, (12,)),
    "vits16": Checkpoint("EUPE-ViT-S.pt", "vit_small_patch16_dinov3_qkvb", 384, (12,)),
    "vitb16": Checkpoint("EUPE-ViT-B.pt", "vit_base_patch16_dinov3_qkvb", 768, (12,)),
    "convnext_tiny": Checkpoint("EUPE-ConvNeXt-T.pt", "convnext_tiny", 768, (3, 3, 9, 3)),
    "convnext_small": Checkpoint("EUPE-ConvNeXt-S.pt", "convnext_small", 768, (3, 3, 27, 3)),
    "convnext_base": Checkpoint("EUPE-ConvNeXt-B.pt", "convnext_base", 1024, (3, 3, 27, 3)),
}

_VIT_BLOCK = (
    *("norm1.weight", "norm1.bias", "attn.qkv.weight", "attn.qkv.bias", "attn.qkv.bias_mask"),
    *("attn.proj.weight", "attn.proj.bias", "ls1.gamma", "norm2.weight", "norm2.bias"),
    *("mlp.fc1.weight", "mlp.fc1.bias", "mlp.fc2.weight", "mlp.fc2.bias", "ls2.gamma"),
)
_CONVNEXT_BLOCK = (
    *("gamma", "dwconv.weight", "dwconv.bias", "norm.weight", "norm.bias"),
    *("pwconv1.weight", "pwconv1.bias", "pwconv2.weight", "pwconv2.bias"),
)
_VIT_RENAMES = {r"^storage_tokens$": "reg_token", r"\.ls(\d)\.gamma$": r".gamma_\1"}
_CONVNEXT_RENAMES = {
    r"^stages\.(\d)\.(\d+)\.": r"stages.\1.blocks.\2.",
    r"^downsample_layers\.0\.": "stem.",
    r"^downsample_layers\.(\d)\.": r"stages.\1.downsample.",
    r"\.dwconv\.": ".conv_dw.",
    r"\.pwconv(\d)\.": r".mlp.fc\1.",
    r"^norm(s\.3)?\.": "head.norm.",
}
_NOT_IN_TIMM = ("mask_token", "rope_embed.periods", ".qkv.bias", ".qkv.bias_mask")
ROPE_RESCALE = 2.0  # in train mode position codes are stretched by a factor in [1/2, 2] (paper notes, D.1)
_HARMLESS_ARGS = {
    *("img_size", "drop_rate", "drop_path_rate", "rope_rescale_coords"),
    *("proj_drop_rate", "attn_drop_rate", "patch_drop_rate", "pos_drop_rate"),
}


def create_eupe_encoder(
    name: str,
    *,
    weights: str | Path | None = None,
    pretrained: bool = True,
    license: str | None = None,
    channels_last: bool = False,
) -> TimmEncoder:
    """Builds `eupe/NAME` from an official file, or from one that `write_eupe_checkpoint` wrote.

    Every key of the backbone must be there with the right shape; beside them only `projectors.*` may be. Summary and
    patches are the paper's: class token (ViT) or pooled map (ConvNeXt), and patch tokens, under the final norm.

    Args:
        name: vitt16, vits16, vitb16, convnext_tiny, convnext_small or convnext_base.
        weights: the file.
        pretrained: False gives random weights, which carry no licence.
        license: of the weights; that of the official files if not given.
        channels_last: compute in that memory format.

    Raises:
        ValueError: no such model, or the file does not fit; says what is missing, unexpected or wrong.
        FileNotFoundError: no file is given, or it is not there.
    """
    if name not in CHECKPOINTS:
        near = nearest_names(name, CHECKPOINTS)
        hint = f"; did you mean eupe/{near[0]}?" if near else "."
        raise ValueError(f"there is no eupe/{name}{hint} Official files are known for {', '.join(CHECKPOINTS)}")
    checkpoint = CHECKPOINTS[name]
    if weights is None and pretrained:
        page = f"facebook/{checkpoint.file.removesuffix('.pt')}"
        raise FileNotFoundError(
            f"eupe/{name} needs its official file. Bring {checkpoint.file} (Hugging Face model page {page}) and pass "
            f"weights={checkpoint.file}, or take random weights: eupe/{name}?pretrained=false"
        )
    state = None if weights is None else _unwrapped(read_weights(weights))
    license = LICENSE if license is None and state is not None else license
    tag = f"{checkpoint.architecture}.eupe_lvd1689m"
    args: dict[str, Any] = {"rope_rescale_coords": ROPE_RESCALE} if tag.startswith("vit") else {}
    encoder = create_timm_encoder(tag, pretrained=False, license=license, channels_last=channels_last, **args)
    encoder.name = f"eupe/{name}"
    if state is not None:
        _refuse_misfits(state, encoder, name, str(weights))
        load_strictly(encoder.model, _twin_state(state, encoder.model), str(weights))
        encoder.adapters = {**_without_place(state, encoder.model), **as_adapters(state, encoder.patch_dim)}
    return encoder


def write_eupe_checkpoint(encoder: Encoder, file: str | Path) -> Path:
    """Writes an encoder as a flat state dict in the official layout, float32.

    Adapters become `projectors.*`; those of an official file get their old names back. What timm has no place for is
    written as it was read, or else as in a fresh official model: mask token and key bias zero, timm's RoPE periods.

    Args:
        encoder: a timm encoder of one of the six architectures in `CHECKPOINTS`, as it comes from `run/`, `timm/` or
            `eupe/`.
        file: where to, `.pt` or `.pth`; nothing may be there, for such a file cannot say who wrote it.

    Raises:
        ValueError: an official file cannot hold this encoder; says why.
        FileExistsError: `file` is there.
    """
    file = Path(file)
    if file.exists() or file.is_symlink():
        raise FileExistsError(f"{file} is there and is not overwritten; choose another name, or move it away")
    if file.suffix not in (".pt", ".pth"):
        raise ValueError(f"an official EUPE file is a .pt or .pth, {file} is not")
    model = _writable(encoder)
    state = {
        name: value.detach().to("cpu", torch.float32).contiguous() for name, value in _official_state(model).items()
    }
    for name in state:
        if KEPT + name in encoder.adapters:
            state[name] = _put_back(state[name], encoder.adapters[KEPT + name].cpu(), name)
    state |= as_projectors(encoder.adapters)
    with atomic_path(file) as temporary:
        torch.save(state, temporary)
    return file


def _layout(model: Any) -> dict[str, str]:
    """Official names of a timm model's tensors, in the order of official files, with their timm names."""
    if hasattr(model, "blocks"):
        depths, renames = [len(model.blocks)], _VIT_RENAMES
    else:
        depths, renames = [len(stage.blocks) for stage in model.stages], _CONVNEXT_RENAMES
    return {name: _renamed(name, renames) for name in _official_names(depths)}


def _official_names(depths: Sequence[int]) -> Iterator[str]:
    if len(depths) == 1:
        yield from ("cls_token", "storage_tokens", "mask_token", "patch_embed.proj.weight", "patch_embed.proj.bias")
        yield "rope_embed.periods"
        yield from (f"blocks.{number}.{name}" for number in range(depths[0]) for name in _VIT_BLOCK)
        yield from ("norm.weight", "norm.bias")
        return
    places = [f"downsample_layers.{stage}.{step}" for stage in range(len(depths)) for step in range(2)]
    yield from (f"{place}.{name}" for place in places for name in ("weight", "bias"))
    blocks = [f"stages.{stage}.{number}" for stage, depth in enumerate(depths) for number in range(depth)]
    yield from (f"{block}.{name}" for block in blocks for name in _CONVNEXT_BLOCK)
    yield from ("norm.weight", "norm.bias", "norms.3.weight", "norms.3.bias")


def _renamed(name: str, renames: Mapping[str, str]) -> str:
    for pattern, replacement in renames.items():
        name = re.sub(pattern, replacement, name)
    return name


def _official_state(model: Any) -> dict[str, Tensor]:
    """The state dict that a fresh official model would have with a timm model's weights."""
    twin = model.state_dict()
    return {
        name: _made(name, model, twin) if name.endswith(_NOT_IN_TIMM) else twin[timm_name]
        for name, timm_name in _layout(model).items()
    }


def _made(name: str, model: Any, twin: Mapping[str, Tensor]) -> Tensor:
    zeros, ones = torch.zeros_like(twin["norm.weight"]), torch.ones_like(twin["norm.weight"])
    if name == "mask_token":
        return zeros[None]
    if name == "rope_embed.periods":
        return model.rope.periods
    if name.endswith("bias_mask"):
        return torch.cat([ones, zeros, ones])
    attention = name.removesuffix("qkv.bias")
    return torch.cat([twin[f"{attention}q_bias"], zeros, twin[f"{attention}v_bias"]])


def _twin_state(state: Mapping[str, Tensor], model: Any) -> dict[str, Tensor]:
    """The timm state dict of an official one that fits."""
    layout = _layout(model)
    twin = {timm_name: state[name] for name, timm_name in layout.items() if not name.endswith(_NOT_IN_TIMM)}
    for name in layout:
        if name.endswith(".qkv.bias"):
            attention = name.removesuffix("qkv.bias")
            twin[f"{attention}q_bias"], _, twin[f"{attention}v_bias"] = state[name].chunk(3)
    return twin


def _without_place(state: Mapping[str, Tensor], model: Any) -> dict[str, Tensor]:
    """What timm has no place for, as far as it differs from a fresh official model's; of a bias the key third."""
    kept = {}
    for name, fresh in _official_state(model).items():
        value = state[name].float()
        if name.endswith(_NOT_IN_TIMM) and not _same_bits(value, fresh):
            kept[KEPT + name] = value.chunk(3)[1].clone() if name.endswith(".bias") else value
    return kept


def _put_back(fresh: Tensor, kept: Tensor, name: str) -> Tensor:
    if not name.endswith(".bias"):
        return kept
    query, _, value = fresh.chunk(3)
    return torch.cat([query, kept, value])


def _same_bits(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.contiguous().view(torch.uint8), other.contiguous().view(torch.uint8))


def _unwrapped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same without the prefix of a training checkpoint, which the official evaluation code takes off as well."""
    if all(name.startswith("teacher.") for name in state):
        return {name.removeprefix("teacher."): value for name, value in state.items()}
    return state


def _refuse_misfits(state: Mapping[str, Tensor], encoder: TimmEncoder, name: str, source: str) -> None:
    wanted = _official_state(encoder.model)
    backbone = {key: value for key, value in state.items() if not key.startswith(PROJECTORS)}
    fitting = [key for key in wanted if key in backbone and backbone[key].shape == wanted[key].shape]
    problems = misfits(wanted, backbone)
    values = [_value_problem(key, backbone, wanted[key]) for key in fitting]
    problems += [problem for problem in values if problem]
    if problems:
        problem = _stranger(backbone, encoder, name) or listed(problems)
        raise ValueError(f"{source} does not fit the official layout of eupe/{name}: {problem}")


def _value_problem(name: str, state: Mapping[str, Tensor], wanted: Tensor) -> str | None:
    value = state[name].float()
    if name.endswith(".bias_mask") and not torch.equal(value, wanted):
        return f"{name} is not 1 for queries and values and 0 for keys"
    if name == "rope_embed.periods" and not _same_periods(value, wanted):
        return f"{name} are not 100^(2i/32), the only ones that timm's twin has"
    if name.startswith("norms.3."):
        final = name.replace("norms.3", "norm")
        if final in state and not _same_bits(value, state[final].float()):
            return f"{name} differs from {final}; they are one tensor in the official model"
    return None


def _same_periods(value: Tensor, wanted: Tensor) -> bool:
    """Equal but for the last bits of powers on another machine, or for a way through bfloat16, as in DINOv3's files."""
    return torch.equal(value, wanted.bfloat16().float()) or torch.allclose(value, wanted, rtol=1e-6, atol=0)


def _stranger(state: Mapping[str, Tensor], encoder: TimmEncoder, name: str) -> str | None:
    """What a state dict is instead, if that can be told."""
    if encoder.model.state_dict().keys() <= state.keys():
        return f"it has timm's names; load it as timm/{encoder.architecture} with weights="
    for other, checkpoint in CHECKPOINTS.items():
        same_names = state.keys() == set(_official_names(checkpoint.depths))
        if other != name and same_names and len(state["norm.weight"]) == checkpoint.width:
            return f"it is a file of eupe/{other}"
    names = list(_layout(encoder.model))
    if sum(key in state for key in names) < len(names) / 2:
        return f"it is another model's; it has {', '.join([*state][:3])} ..., not {', '.join(names[:3])} ..."
    return None


def _writable(encoder: Encoder) -> Any:
    """The timm model of an encoder that an official file can hold."""
    names = {checkpoint.architecture: name for name, checkpoint in CHECKPOINTS.items()}
    if not isinstance(encoder, TimmEncoder) or encoder.architecture not in names:
        raise ValueError(f"{encoder.name}: there is no official EUPE layout for it, only for timm's {', '.join(names)}")
    with torch.device("meta"):  # sizes and arguments only
        plain = create_timm_encoder(f"{encoder.architecture}.eupe_lvd1689m", pretrained=False)
    args = {**dict.fromkeys(plain.model_args), **encoder.model_args}
    changed = [key for key, value in args.items() if key not in _HARMLESS_ARGS and plain.model_args.get(key) != value]
    changed += [key for key in ("mean", "std") if _statistics(encoder, key) != _statistics(plain, key)]
    changed += ["channel_order"] if encoder.channel_order != "rgb" else []
    if changed:
        official = f"eupe/{names[encoder.architecture]}"
        raise ValueError(f"{encoder.name} differs from {official} in {', '.join(changed)}; no official file can say so")
    return encoder.model


def _statistics(encoder: TimmEncoder, key: str) -> tuple[float, ...]:
    return tuple(encoder.model.pretrained_cfg[key])  # type: ignore[index]
