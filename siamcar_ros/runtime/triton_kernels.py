"""Triton kernels that replace PyTorch's many small ones between convolutions.

All take channels-last maps and compute in float32, whatever the precision of the maps. Triton comes
with PyTorch's CUDA builds on Linux. It interprets the annotations of a kernel's arguments, so there
are none but its own.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

ACTIVATIONS = ("none", "relu", "relu6")
_ELEMENTS = 1024  # of one program of the epilogue
_CHANNELS = 64  # of one program of the correlation


@triton.jit
def _epilogue(
    maps,
    bias,
    residual,
    count,
    channels,
    has_residual: tl.constexpr,
    activation: tl.constexpr,
    block: tl.constexpr,
):
    at = tl.program_id(0) * block + tl.arange(0, block)
    inside = at < count
    value = tl.load(maps + at, inside, other=0.0).to(tl.float32)
    value += tl.load(bias + at % channels, inside, other=0.0).to(tl.float32)
    if has_residual:
        value += tl.load(residual + at, inside, other=0.0).to(tl.float32)
    if activation > 0:
        value = tl.maximum(value, 0.0)
    if activation > 1:
        value = tl.minimum(value, 6.0)
    tl.store(maps + at, value.to(maps.dtype.element_ty), inside)


@triton.jit
def _group_norm_relu(
    maps,
    bias,
    scale,
    shift,
    out,
    cells,
    channels,
    epsilon,
    width: tl.constexpr,
    block: tl.constexpr,
):
    first = tl.program_id(0) * width
    rows = tl.arange(0, block)
    columns = first + tl.arange(0, width)
    start = tl.program_id(1) * cells * channels
    at = start + rows[:, None] * channels + columns[None, :]
    inside = (rows[:, None] < cells) & (columns[None, :] < channels)
    value = tl.load(maps + at, inside, other=0.0).to(tl.float32)
    value += tl.load(bias + columns).to(tl.float32)[None, :]
    value = tl.where(inside, value, 0.0)
    count = cells * width
    mean = tl.sum(tl.sum(value, 1), 0) / count
    value = tl.where(inside, value - mean, 0.0)
    variance = tl.sum(tl.sum(value * value, 1), 0) / count
    value = value * tl.rsqrt(variance + epsilon)
    value = value * tl.load(scale + columns).to(tl.float32)[None, :]
    value = tl.maximum(value + tl.load(shift + columns).to(tl.float32)[None, :], 0.0)
    tl.store(out + at, value.to(out.dtype.element_ty), inside)


@triton.jit
def _correlation(
    maps,
    kernels,
    out,
    columns,
    channels,
    maps_sample,
    maps_row,
    kernels_sample,
    out_sample,
    out_row,
    height: tl.constexpr,
    width: tl.constexpr,
    block_columns: tl.constexpr,
    block_channels: tl.constexpr,
):
    row, sample = tl.program_id(0), tl.program_id(2)
    column = tl.arange(0, block_columns)
    channel = tl.program_id(1) * block_channels + tl.arange(0, block_channels)
    known = channel < channels
    inside = (column[:, None] < columns) & known[None, :]
    total = tl.zeros((block_columns, block_channels), tl.float32)
    source = maps + sample * maps_sample + row * maps_row
    kernel = kernels + sample * kernels_sample
    for u in range(height):
        for v in tl.static_range(width):
            at = (column[:, None] + v) * channels + channel[None, :]
            seen = tl.load(source + u * maps_row + at, inside, other=0.0).to(tl.float32)
            weight = tl.load(kernel + (u * width + v) * channels + channel, known, other=0.0)
            total += seen * weight.to(tl.float32)[None, :]
    target = out + sample * out_sample + row * out_row
    at = column[:, None] * channels + channel[None, :]
    tl.store(target + at, total.to(out.dtype.element_ty), inside)


def add_bias(maps: Tensor, bias: Tensor, residual: Tensor | None, activation: str) -> Tensor:
    """Add a bias and another map, and rectify, in place.

    Args:
        maps: (B, C, H, W), channels last.
        bias: (C,).
        residual: of the shape of `maps`, or None.
        activation: one of :data:`ACTIVATIONS`.
    """
    maps = maps.contiguous(memory_format=torch.channels_last)
    added = maps if residual is None else residual.contiguous(memory_format=torch.channels_last)
    count = maps.numel()
    _epilogue[(triton.cdiv(count, _ELEMENTS),)](
        maps,
        bias,
        added,
        count,
        maps.shape[1],
        has_residual=residual is not None,
        activation=ACTIVATIONS.index(activation),
        block=_ELEMENTS,
    )
    return maps


def group_norm_relu(maps: Tensor, bias: Tensor, norm: torch.nn.GroupNorm) -> Tensor:
    """``relu(norm(maps + bias))`` for maps of up to 4,096 cells.

    Args:
        maps: (B, C, H, W), channels last.
        bias: (C,), of the convolution before.
        norm: whose groups hold a power of two of channels.
    """
    maps = maps.contiguous(memory_format=torch.channels_last)
    batch, channels, height, width = maps.shape
    out = torch.empty_like(maps)
    _group_norm_relu[(norm.num_groups, batch)](
        maps,
        bias,
        norm.weight,
        norm.bias,
        out,
        height * width,
        channels,
        norm.eps,
        width=channels // norm.num_groups,
        block=triton.next_power_of_2(height * width),
        num_warps=8,
    )
    return out


def correlation(maps: Tensor, kernels: Tensor) -> Tensor:
    """:func:`siamcar_ros.model.depthwise_correlation` of as many templates as search regions."""
    maps = maps.contiguous(memory_format=torch.channels_last)
    kernels = kernels.contiguous(memory_format=torch.channels_last)
    batch, channels = maps.shape[:2]
    height, width = kernels.shape[2:]
    rows, columns = maps.shape[2] - height + 1, maps.shape[3] - width + 1
    out = torch.empty(
        (batch, channels, rows, columns),
        dtype=maps.dtype,
        device=maps.device,
        memory_format=torch.channels_last,
    )
    block = min(_CHANNELS, triton.next_power_of_2(channels))
    # Strides of a channels-last map are those of its sizes; a batch of 1 may report others.
    _correlation[(rows, triton.cdiv(channels, block), batch)](
        maps,
        kernels,
        out,
        columns,
        channels,
        maps[0].numel(),
        maps.shape[3] * channels,
        kernels[0].numel(),
        out[0].numel(),
        columns * channels,
        height=height,
        width=width,
        block_columns=triton.next_power_of_2(columns),
        block_channels=block,
    )
    return out
