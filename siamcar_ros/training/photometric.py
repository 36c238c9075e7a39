"""Light, sharpness and noise changed in batches on the training device.

The same changes as the loader's (:mod:`siamcar_ros.training.augment`), with the same probabilities
and ranges, for machines whose GPU would wait for them; compression stays in the workers.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .augment import LIGHTING, AugmentParams
from .distributed import Processes

_LUMA = (0.114, 0.587, 0.299)
_KERNEL = 13
_STRIDE = 1_000_003  # between seeds: more than a run has steps, or a step pairs

Uniform = Callable[[float, float], Tensor]
"""Draws a number between two for each pair of the batch."""


def without_photometric(params: AugmentParams) -> AugmentParams:
    """What is left for the workers."""
    done = ("color", "lighting", "gray", "blur", "template_blur", "low_resolution", "noise")
    return dataclasses.replace(params, **dict.fromkeys(done, 0.0))


class DeviceAugment:
    """Changes a batch; what is done to a pair follows from the seed, the step and its number.

    Args:
        params: probabilities.
        seed: of the run.
        processes: this process's place among those that share the batch.
    """

    def __init__(self, params: AugmentParams, seed: int, processes: Processes) -> None:
        self._params = params
        self._seed = seed
        self._processes = processes

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
        rank, world = self._processes.rank, self._processes.world
        batch = len(boxes)
        seed = self._seed * _STRIDE + step
        draw = torch.Generator().manual_seed(seed)

        # Every process draws for the whole batch and takes its pairs' part.
        def uniform(low: float, high: float) -> Tensor:
            return low + (high - low) * torch.rand(batch * world, generator=draw)[rank::world]

        def chosen(probability: float) -> Tensor:
            return uniform(0, 1) < probability

        gray, toned = chosen(p.gray).to(device), chosen(p.color)
        common = _tone(uniform, toned, 0.35, 0.15)
        own = common * _tone(uniform, toned, 0.18, 0.05)
        coarse = chosen(p.low_resolution)
        across = torch.exp(uniform(math.log(8), math.log(60)))
        sides = (boxes[:, 2:] - boxes[:, :2]).amax(1).clamp(min=1).cpu()
        ratios = torch.where(coarse, (across / sides).clamp(max=1), torch.ones(batch))

        changed = []
        views = ((templates, common, p.template_blur), (searches, own, p.blur))
        for view, (images, tone, blur) in enumerate(views):
            images = _gray(images, gray)
            images = _toned(images, tone.to(device))
            images = _coarsened(images, ratios)
            offsets = torch.randn(batch * world, 3, generator=draw)[rank::world]
            offsets *= offsets.new_tensor(LIGHTING) * chosen(p.lighting)[:, None]
            images = (images + offsets.to(device)[:, :, None, None]).clamp(0, 255)
            images = _blurred(images, chosen(blur), uniform)
            sigma = uniform(2, 10) * chosen(p.noise)
            numbers = range(rank, batch * world, world)
            images = _noisy(images, sigma, [(seed * _STRIDE + n) * 2 + view for n in numbers])
            changed.append(images.clamp(0, 255))
        return changed[0], changed[1]


def _tone(uniform: Uniform, chosen: Tensor, strength: float, tint: float) -> Tensor:
    """(B, 4) gain of each channel, and gamma; ones where not chosen."""
    ratios = torch.stack([uniform(-tint, tint) for _ in range(3)], 1)
    ratios = ratios + uniform(-strength, strength)[:, None]
    gamma = uniform(-strength, strength)[:, None]
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


def _blurred(images: Tensor, chosen: Tensor, uniform: Uniform) -> Tensor:
    """Motion blur along a random direction, 3 to 13 pixels long."""
    lengths = torch.floor(uniform(3, _KERNEL + 1)).clamp(max=_KERNEL)
    angles = uniform(0, math.pi)
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


def _noisy(images: Tensor, sigma: Tensor, seeds: list[int]) -> Tensor:
    """Noise of each image's own deviation and seed; none where the deviation is 0."""
    out = images.clone()
    draw = torch.Generator(images.device)
    for index in torch.nonzero(sigma).flatten().tolist():
        draw.manual_seed(seeds[index] % (1 << 63))
        noise = torch.randn(out[index].shape, generator=draw, device=out.device)
        out[index] += noise * float(sigma[index])
    return out
