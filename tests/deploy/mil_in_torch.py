"""Core ML's programs read from their packages and computed by torch, for machines that cannot run them.

Each operator follows its definition in Apple's reference of MIL (opset of iOS 16), not coremltools' way from torch to
it, so that a wrong conversion shows. Float16 programs are computed in float32.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def read_program(package: Path) -> Any:
    """The function `main` of a package, with its weights."""
    import coremltools
    from coremltools.converters.mil.frontend.milproto.load import load

    spec = coremltools.models.utils.load_spec(str(package))
    weights = package / "Data" / "com.apple.CoreML" / "weights"
    return load(spec, spec.specificationVersion, str(weights)).functions["main"]


def run_program(main: Any, images: Tensor) -> dict[str, Tensor]:
    """The outputs of a program by name."""
    values: dict[str, Any] = {"images": images}
    for operation in main.operations:
        given = {name: _given(entry, values) for name, entry in operation.inputs.items() if entry is not None}
        if operation.op_type == "const":
            continue
        found = OPERATORS[operation.op_type](**given)
        found = found if isinstance(found, tuple) else (found,)
        for output, value in zip(operation.outputs, found, strict=True):
            assert tuple(value.shape) == tuple(output.shape), (operation.name, value.shape, output.shape)
            values[output.name] = value
    return {output.name: values[output.name] for output in main.outputs}


def _given(entry: Any, values: dict[str, Any]) -> Any:
    if isinstance(entry, list | tuple):
        return [_given(one, values) for one in entry]
    if entry.name in values:
        return values[entry.name]
    value = entry.val
    if getattr(value, "ndim", 0) == 0:
        return value.item() if hasattr(value, "item") else value
    tensor = torch.from_numpy(value.copy())
    return tensor.float() if tensor.is_floating_point() else tensor.tolist()


def _padding(pad: list[int] | None, pad_type: str) -> tuple[int, int]:
    assert pad_type == "valid" or (pad_type == "custom" and pad and pad[0] == pad[1] and pad[2] == pad[3]), pad_type
    return (0, 0) if pad_type == "valid" else (pad[0], pad[2])


def _conv(x, weight, strides, pad_type, dilations, groups, pad=None, bias=None):
    return F.conv2d(x, weight, bias, strides, _padding(pad, pad_type), dilations, groups)


def _avg_pool(x, kernel_sizes, strides, pad_type, exclude_padding_from_average, ceil_mode=False, pad=None):
    padding = _padding(pad, pad_type)
    return F.avg_pool2d(x, kernel_sizes, strides, padding, ceil_mode, not exclude_padding_from_average)


def _slice(x, begin, end, stride=None, begin_mask=None, end_mask=None, squeeze_mask=None):
    index: list[Any] = []
    for axis in range(x.ndim):
        start = None if begin_mask and begin_mask[axis] else begin[axis]
        stop = None if end_mask and end_mask[axis] else end[axis]
        single = squeeze_mask and squeeze_mask[axis]
        index.append(begin[axis] if single else slice(start, stop, stride[axis] if stride else None))
    return x[tuple(index)]


def _layer_norm(x, axes, epsilon, gamma, beta):
    assert axes == [-1]
    mean = x.mean(-1, keepdim=True)
    return (x - mean) / ((x - mean).square().mean(-1, keepdim=True) + epsilon).sqrt() * gamma + beta


def _matmul(x, y, transpose_x=False, transpose_y=False):
    return (x.mT if transpose_x else x) @ (y.mT if transpose_y else y)


def _gelu(x, mode):
    assert mode == "EXACT"
    return 0.5 * x * (1 + torch.erf(x / 2**0.5))


def _concat(values, axis, interleave=False):
    assert not interleave
    return torch.cat(values, axis)


def _gather(x, indices, axis, batch_dims=0, validate_indices=False):
    assert batch_dims == 0
    return x.index_select(axis, torch.tensor(indices))


def _upsample(x, scale_factor_height, scale_factor_width):
    assert scale_factor_height % 1 == scale_factor_width % 1 == 0, "what other factors give depends on rounding"
    return x.repeat_interleave(int(scale_factor_height), 2).repeat_interleave(int(scale_factor_width), 3)


OPERATORS: dict[str, Callable[..., Any]] = {
    "add": lambda x, y: x + y,
    "avg_pool": _avg_pool,
    "cast": lambda x, dtype: x,
    "concat": _concat,
    "conv": _conv,
    "gather": _gather,
    "gelu": _gelu,
    "layer_norm": _layer_norm,
    "linear": lambda x, weight, bias=0: x @ weight.T + bias,
    "matmul": _matmul,
    "mul": lambda x, y: x * y,
    "reduce_mean": lambda x, axes, keep_dims: x.mean(axes, keep_dims),
    "relu": lambda x: x.clamp(min=0),
    "reshape": lambda x, shape: x.reshape(shape),
    "sigmoid": torch.sigmoid,
    "sigmoid_hard": lambda x, alpha, beta: (alpha * x + beta).clamp(0, 1),
    "slice_by_index": _slice,
    "softmax": lambda x, axis: torch.softmax(x, axis),
    "split": lambda x, split_sizes, axis: torch.split(x, split_sizes, axis),
    "squeeze": lambda x, axes: x.squeeze(axes),
    "sub": lambda x, y: x - y,
    "transpose": lambda x, perm: x.permute(perm),
    "upsample_nearest_neighbor": _upsample,
}
