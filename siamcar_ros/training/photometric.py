"""Light, sharpness and noise changed in batches on the training device.

The same changes as the loader's (:mod:`siamcar_ros.training.augment`), with the same probabilities
and ranges, for machines whose GPU would wait for them; compression stays in the workers.
"""

from __future__ import annotations

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .augment import AugmentParams

_LUMA = (0.114, 0.587, 0.299)
_KERNEL = 13


def without_photometric(params: AugmentParams) -> AugmentParams:
    """What is left for the workers."""
    return dataclasses.replace(params, color=0, gray=0, blur=0, low_resolution=0, noise=0)


class DeviceAugment:
    """Changes a batch; its random numbers follow from the seed and the step.

    Args:
        params: probabilities.
        seed: of the run, and of the process where there are several.
    """

    def __init__(self, params: AugmentParams, seed: int) -> None:
        self._params = params
        self._seed = seed

    def __call__(
        self, templates: Tensor, searches: Tensor, boxes: Tensor, step: int
    ) -> tuple[Tensor, Tensor]:
        """Change a batch of pairs.

        Args:
            templates: (B, 3, h, w) float32 BGR 0..255.
            searches: likewise, on the same device.
            boxes: (B, 4) targets in search pixels.
            step: number of the step.

        Returns:
            both changed, in the same range.
        """
        p, device = self._params, templates.device
        draw = torch.Generator().manual_seed(self._seed * 1_000_003 + step)
        noise = torch.Generator(device).manual_seed(self._seed * 1_000_003 + step)
        batch = len(boxes)

        def chosen(probability: float) -> Tensor:
            return torch.rand(batch, generator=draw) < probability

        gray = chosen(p.gray).to(device)
        common = _tone(draw, chosen(p.color), 0.35, 0.15)
        own = common * _tone(draw, chosen(p.color), 0.18, 0.05)
        coarse = chosen(p.low_resolution)
        across = torch.exp(_uniform(draw, batch, math.log(8), math.log(60)))
        sides = (boxes[:, 2:] - boxes[:, :2]).amax(1).clamp(min=1).cpu()
        ratios = torch.where(coarse, (across / sides).clamp(max=1), torch.ones(batch))

        changed = []
        for images, tone in ((templates, common), (searches, own)):
            images = _gray(images, gray)
            images = _toned(images, tone.to(device))
            images = _coarsened(images, ratios)
            images = _blurred(images, chosen(p.blur), draw)
            sigma = _uniform(draw, batch, 2, 10) * chosen(p.noise)
            images = _noisy(images, sigma.to(device), noise)
            changed.append(images.clamp(0, 255))
        return changed[0], changed[1]


def _uniform(draw: torch.Generator, count: int, low: float, high: float) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=draw)


def _tone(draw: torch.Generator, chosen: Tensor, strength: float, tint: float) -> Tensor:
    """(B, 4) gain of each channel, and gamma; ones where not chosen."""
    count = len(chosen)
    ratios = torch.stack([_uniform(draw, count, -tint, tint) for _ in range(3)], 1)
    ratios = ratios + _uniform(draw, count, -strength, strength)[:, None]
    gamma = _uniform(draw, count, -strength, strength)[:, None]
    return torch.where(chosen[:, None], torch.exp(torch.cat((ratios, gamma), 1)), 1.0)


def _gray(images: Tensor, chosen: Tensor) -> Tensor:
    luma = (images * images.new_tensor(_LUMA)[:, None, None]).sum(1, keepdim=True)
    return torch.where(chosen[:, None, None, None], luma.expand_as(images), images)


def _toned(images: Tensor, tone: Tensor) -> Tensor:
    gain, gamma = tone[:, :3, None, None], tone[:, 3:, None, None]
    return ((images / 255).clamp(min=0) ** gamma * gain * 255).clamp(0, 255)


def _coarsened(images: Tensor, ratios: Tensor) -> Tensor:
    """As if the sensor had had only that share of the pixels across."""
    size = images.shape[-1]
    out = images.clone()
    for index in torch.nonzero(ratios < 1).flatten().tolist():
        small = max(16, round(size * float(ratios[index])))
        reduced = F.interpolate(images[index : index + 1], size=small, mode="area")
        out[index] = F.interpolate(reduced, size=size, mode="bilinear")[0]
    return out


def _blurred(images: Tensor, chosen: Tensor, draw: torch.Generator) -> Tensor:
    """Motion blur along a random direction, 3 to 13 pixels long."""
    count = len(chosen)
    lengths = torch.floor(_uniform(draw, count, 3, _KERNEL + 1)).clamp(max=_KERNEL)
    angles = _uniform(draw, count, 0, math.pi)
    indices = torch.nonzero(chosen).flatten()
    if not len(indices):
        return images
    reach = _KERNEL // 2
    steps = torch.arange(-reach, reach + 1, dtype=torch.float32)
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    cosine, sine = torch.cos(angles)[indices, None, None], torch.sin(angles)[indices, None, None]
    along, beside = (x * cosine + y * sine).abs(), (y * cosine - x * sine).abs()
    half = (lengths[indices, None, None] - 1) / 2
    kernels = (1 - beside).clamp(min=0) * (half + 0.5 - along).clamp(0, 1)
    kernels = (kernels / kernels.sum((1, 2), keepdim=True)).to(images.device)
    picked = indices.to(images.device)
    part = images[picked]
    padded = F.pad(part, (reach,) * 4, mode="reflect")
    grouped = padded.reshape(1, -1, *padded.shape[-2:])
    weight = kernels.repeat_interleave(part.shape[1], 0)[:, None]
    blurred = F.conv2d(grouped, weight, groups=grouped.shape[1]).reshape(part.shape)
    return images.index_copy(0, picked, blurred)


def _noisy(images: Tensor, sigma: Tensor, draw: torch.Generator) -> Tensor:
    if not bool((sigma > 0).any()):
        return images
    noise = torch.randn(images.shape, generator=draw, device=images.device)
    return images + noise * sigma[:, None, None, None]
