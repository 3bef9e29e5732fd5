"""Per-record gradients of one layer, from its input and the gradient of its output.

A layer with a matrix (linear, convolution) gives `Factors`: the gradient of record r is sum over t of b_rt a_rt^T, with
t over positions (one for a plain linear layer, pixels for a convolution). Norm layers, biases, embeddings and PReLU
give their gradients outright, as `Rows`; those are short.

Convolutions are unfolded by strides: a view of every window, in one, two or three dimensions, with any stride, padding
and dilation, channels last, copied once. Where that copy would be large, the library's own convolution is asked for
each record's gradient instead. A transposed convolution is one with the roles of input and output exchanged.

Bu, Wang, Zha and Karypis, "Differentially private optimization on large model at small cost" (ICML 2023).
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - as everybody calls it

WINDOWS_MAX = 2**18
"""Values of one record's unfolded input, above which its gradient is asked of the library."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rows:
    """Gradient of a parameter by record or by patient, written down."""

    values: torch.Tensor  # float32[records, values]
    kernel: int = 1  # places of a convolution's kernel, which then come before its channels; see `in_order`


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Factors:
    """Gradient of a matrix by record: `left[r] @ right[r]`, of shape [rows, columns].

    With `groups` the first axis after the records' is that of the groups, and the matrix is one block for each.
    """

    left: torch.Tensor  # float32[records, groups, rows, positions]
    right: torch.Tensor  # float32[records, groups, positions, columns]
    kernel: int = 1

    def written(self) -> Rows:
        """The gradients themselves."""
        return Rows(values=(self.left @ self.right).flatten(1), kernel=self.kernel)


def in_order(values: torch.Tensor, shape: torch.Size, kernel: int) -> torch.Tensor:
    """Columns of a convolution from (kernel, channel) to the parameter's own (channel, kernel): [..., values]."""
    if kernel == 1:
        return values
    split = (*values.shape[:-1], shape[0], kernel, shape[1])
    return values.reshape(split).transpose(-1, -2).reshape(values.shape)


Gradient: TypeAlias = Factors | Rows
_Found: TypeAlias = Iterator[tuple[Any, Factors | torch.Tensor]]  # a parameter, or None where a layer has none
_Rule: TypeAlias = Callable[[Any, torch.Tensor, torch.Tensor], _Found]


def gradients(layer: nn.Module, inputs: torch.Tensor, slopes: torch.Tensor) -> Iterator[tuple[nn.Parameter, Gradient]]:
    """The gradients of a layer's own trainable parameters, by record.

    Args:
        layer: Of a type in `RULES`.
        inputs: What it was called with, [records, ...].
        slopes: The gradient of the loss with respect to what it returned, [records, ...].
    """
    for parameter, gradient in RULES[type(layer)](layer, inputs, slopes):
        if parameter is not None and parameter.requires_grad:
            yield parameter, gradient if isinstance(gradient, Factors) else Rows(values=gradient)


def _linear(layer: nn.Linear, inputs: torch.Tensor, slopes: torch.Tensor) -> _Found:
    records = len(inputs)
    left = slopes.reshape(records, -1, layer.out_features).transpose(1, 2)
    right = inputs.reshape(records, -1, layer.in_features)
    yield layer.weight, Factors(left=left.unsqueeze(1), right=right.unsqueeze(1))
    yield layer.bias, left.sum(2)


def _convolution(layer: Any, inputs: torch.Tensor, slopes: torch.Tensor) -> _Found:
    if any(layer._reversed_padding_repeated_twice):  # noqa: SLF001 - how torch itself pads "same" and odd sizes
        inputs = F.pad(inputs, layer._reversed_padding_repeated_twice)  # noqa: SLF001
    yield layer.weight, _of_windows(layer, slopes, inputs, transposed=False)
    yield layer.bias, slopes.flatten(2).sum(2)


def _transposed(layer: Any, inputs: torch.Tensor, slopes: torch.Tensor) -> _Found:
    padded = F.pad(slopes, [size for size in reversed(layer.padding) for _ in range(2)])
    yield layer.weight, _of_windows(layer, inputs, padded, transposed=True)
    yield layer.bias, slopes.flatten(2).sum(2)


def _of_windows(layer: Any, still: torch.Tensor, moved: torch.Tensor, *, transposed: bool) -> Factors | torch.Tensor:
    """The sum over places t of still[:, t] times the window of `moved` at t.

    Args:
        layer: A convolution.
        still: [records, channels, *places].
        moved: [records, channels, *space], padded already: the kernel moves over it.
        transposed: Whether the layer is a transposed convolution, which `still` goes into and `moved` comes out of.
    """
    records, groups, places = len(still), layer.groups, still.shape[2:]
    kernel, channels = math.prod(layer.kernel_size), moved.shape[1] // groups
    left = still.reshape(records, groups, still.shape[1] // groups, -1)
    if kernel == 1 and math.prod(layer.stride) == 1:
        return Factors(left=left, right=moved.reshape(records, groups, channels, -1).transpose(2, 3))
    if kernel * channels * left.shape[3] > WINDOWS_MAX:
        return torch.stack([
            _by_library(layer, still[record : record + 1], moved[record : record + 1], transposed=transposed)
            for record in range(records)
        ])  # fmt: skip
    moved = moved.movedim(1, -1).contiguous()
    first, *steps, _ = moved.stride()
    windows = moved.as_strided(
        (records, groups, *places, *layer.kernel_size, channels),
        (
            first,
            channels,
            *(step * jump for step, jump in zip(steps, layer.stride, strict=True)),
            *(step * gap for step, gap in zip(steps, layer.dilation, strict=True)),
            1,
        ),
    )
    return Factors(left=left, right=windows.reshape(records, groups, left.shape[3], -1), kernel=kernel)


def _by_library(layer: Any, still: torch.Tensor, moved: torch.Tensor, *, transposed: bool) -> torch.Tensor:
    """The gradient of one record, by the library's own convolution: float32[values]."""
    slopes, inputs = (moved, still) if transposed else (still, moved)
    if transposed:  # what lies beyond the last window has no gradient
        reach = zip(still.shape[2:], layer.stride, layer.dilation, layer.kernel_size, strict=True)
        for axis, (size, jump, gap, width) in enumerate(reach):
            slopes = slopes.narrow(axis + 2, 0, (size - 1) * jump + gap * (width - 1) + 1)
    none = (0,) * len(layer.kernel_size)
    found = torch.ops.aten.convolution_backward(
        slopes, inputs, layer.weight, None, layer.stride, none, layer.dilation, transposed, none, layer.groups,
        (False, True, False),
    )  # fmt: skip
    gradient: torch.Tensor = found[1]
    return gradient.flatten()


def _group_norm(layer: Any, inputs: torch.Tensor, slopes: torch.Tensor) -> _Found:
    """Group norm, and instance norm, which is one group for each channel."""
    records, channels = inputs.shape[:2]
    groups = layer.num_groups if isinstance(layer, nn.GroupNorm) else channels
    places = inputs[0, 0].numel()
    inputs, slopes = inputs.contiguous(), slopes.reshape(records * channels, -1, 1)
    _, mean, scale = torch.native_group_norm(inputs, None, None, records, channels, places, groups, layer.eps)
    sums = slopes.sum(1).reshape(records, groups, -1)
    products = torch.bmm(inputs.view(records * channels, 1, -1), slopes).reshape(records, groups, -1)
    yield layer.weight, ((products - mean.unsqueeze(2) * sums) * scale.unsqueeze(2)).reshape(records, channels)
    yield layer.bias, sums.reshape(records, channels)


def _layer_norm(layer: nn.LayerNorm, inputs: torch.Tensor, slopes: torch.Tensor) -> _Found:
    shape = (len(inputs), -1, layer.weight.numel())
    values = F.layer_norm(inputs, layer.normalized_shape, eps=layer.eps)
    yield layer.weight, (values * slopes).reshape(shape).sum(1)
    yield layer.bias, slopes.reshape(shape).sum(1)


def _embedding(layer: nn.Embedding, inputs: torch.Tensor, slopes: torch.Tensor) -> _Found:
    records = len(inputs)
    words, slopes = inputs.reshape(records, -1), slopes.reshape(records, -1, layer.embedding_dim)
    if layer.padding_idx is not None:
        slopes = slopes * (words != layer.padding_idx).unsqueeze(2)
    rows = slopes.new_zeros(records, layer.num_embeddings, layer.embedding_dim)
    yield layer.weight, rows.scatter_add_(1, words.unsqueeze(2).expand_as(slopes), slopes).flatten(1)


def _prelu(layer: nn.PReLU, inputs: torch.Tensor, slopes: torch.Tensor) -> _Found:
    products = (inputs.clamp(max=0) * slopes).flatten(2).sum(2) if inputs.dim() > 2 else inputs.clamp(max=0) * slopes
    yield layer.weight, products if layer.num_parameters > 1 else products.sum(1, keepdim=True)


RULES: Mapping[type[nn.Module], _Rule] = {
    nn.Linear: _linear,
    nn.Conv1d: _convolution,
    nn.Conv2d: _convolution,
    nn.Conv3d: _convolution,
    nn.ConvTranspose1d: _transposed,
    nn.ConvTranspose2d: _transposed,
    nn.ConvTranspose3d: _transposed,
    nn.GroupNorm: _group_norm,
    nn.InstanceNorm1d: _group_norm,
    nn.InstanceNorm2d: _group_norm,
    nn.InstanceNorm3d: _group_norm,
    nn.LayerNorm: _layer_norm,
    nn.Embedding: _embedding,
    nn.PReLU: _prelu,
}
"""By exact type: a subclass may compute something else."""


def why_not(layer: nn.Module) -> str | None:
    """Why a layer with parameters of its own cannot be followed; None if it can."""
    name = type(layer).__name__
    if type(layer) not in RULES:
        return f"no rule for {name}"
    if getattr(layer, "padding_mode", "zeros") != "zeros":
        return f"{name} with padding_mode={layer.padding_mode!r}"
    if isinstance(layer, nn.Embedding) and (layer.max_norm is not None or layer.scale_grad_by_freq or layer.sparse):
        return "Embedding with max_norm, scale_grad_by_freq or sparse"
    return None
