"""Depth-wise cross-correlation of search features with template features (Eq. 1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def _matched(x: Tensor, z: Tensor) -> Tensor:
    """A single template repeated for the batch of ``x``."""
    if z.shape[0] == x.shape[0]:
        return z
    if z.shape[0] != 1:
        raise ValueError(
            f"{z.shape[0]} templates cannot be matched with {x.shape[0]} search regions: "
            "give one template for all, or one for each"
        )
    return z.expand(x.shape[0], -1, -1, -1)


def depthwise_correlation(x: Tensor, z: Tensor) -> Tensor:
    """Correlate each channel of each search map with the same channel of its template.

    Args:
        x: (B, C, H, W) search features.
        z: (B, C, h, w) or (1, C, h, w) template features, used as the kernels.

    Returns:
        (B, C, H-h+1, W-w+1) response maps.

    Raises:
        ValueError: the batch of ``z`` is neither 1 nor B.
    """
    z = _matched(x, z)
    batch, channels = x.shape[:2]
    kernels = z.reshape(batch * channels, 1, *z.shape[2:])
    maps = F.conv2d(x.reshape(1, batch * channels, *x.shape[2:]), kernels, groups=batch * channels)
    return maps.reshape(batch, channels, *maps.shape[2:])


def depthwise_correlation_fft(x: Tensor, z: Tensor) -> Tensor:
    """:func:`depthwise_correlation` by the correlation theorem, in float32.

    The grouped convolution's backward pass is the slowest single part of a training step on a
    CPU; this form has cheap gradients there. Same arguments, shapes and errors; results agree to
    float32 rounding.
    """
    z = _matched(x, z)
    rows, columns = x.shape[-2], x.shape[-1]
    size = [1 << (length - 1).bit_length() for length in (rows, columns)]  # powers of two
    with torch.autocast(x.device.type, enabled=False):
        spectrum = torch.fft.rfft2(x.float(), s=size) * torch.fft.rfft2(z.float(), s=size).conj()
        maps = torch.fft.irfft2(spectrum, s=size)
    return maps[..., : rows - z.shape[-2] + 1, : columns - z.shape[-1] + 1]
