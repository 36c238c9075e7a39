"""Changes of light, sharpness, compression and noise, drawn as numbers and applied to images.

A worker draws the numbers of a pair with the pair's own random generator. Either the worker applies
them, or the training device does, to a whole batch; the results differ only in rounding and in the
pixels of the noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from .augment import AugmentParams

Floats = NDArray[np.float64]

_LUMA = (0.114, 0.587, 0.299)
_FROM_BGR = torch.tensor(  # to Y, Cb, Cr, as in JFIF
    [_LUMA, (0.5, -0.331264, -0.168736), (-0.081312, -0.418688, 0.5)]
)
_TO_BGR = _FROM_BGR.inverse()
# The quantization tables of the JPEG standard, Annex K, as the IJG's library scales them.
_BRIGHTNESS_STEPS = torch.tensor(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    dtype=torch.float32,
)
_COLOR_STEPS = torch.full((8, 8), 99.0)
_COLOR_STEPS[:4, :4] = torch.tensor(
    [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99.0]]
)


LIGHTING = (8.24, 2.52, 1.20)
"""Standard deviations of the offsets of blue, green and red.

They are what the authors' code comes to: the rows of its matrix, ImageNet's principal colors, are
orthogonal, and each is taken for a channel.
"""


class Changes(NamedTuple):
    """The changes of an image as numbers, or of B images as columns (B,); none by default."""

    gray: Any = 0.0  # 1 for a gray image
    invert: Any = 0.0  # 1 to exchange dark and bright
    gamma: Any = 1.0  # exponent of the values in [0, 1]
    blue: Any = 1.0  # gain of each channel
    green: Any = 1.0
    red: Any = 1.0
    add_blue: Any = 0.0  # added to each channel, in levels of 255
    add_green: Any = 0.0
    add_red: Any = 0.0
    glare: Any = 0.0  # share of the way to white at the middle of a spot of light
    glare_x: Any = 0.0  # its middle, in sides of the image
    glare_y: Any = 0.0
    glare_width: Any = 1.0  # its standard deviations, in sides of the image
    glare_height: Any = 1.0
    resolution: Any = 1.0  # pixels of the sensor per pixel of the image, in each direction
    blur_x: Any = 0.0  # motion during the exposure, in pixels
    blur_y: Any = 0.0
    quality: Any = 0.0  # of JPEG compression, 1 to 100; 0 for none
    noise: Any = 0.0  # standard deviation, in levels of 255
    seed: Any = 0.0  # of the noise


def draw_changes(p: AugmentParams, rng: np.random.Generator, side: float, path: Floats) -> Floats:
    """Draw the changes of a pair: (2, number of :class:`Changes`' fields), of template and search.

    `side` is the longer side of the target, in search pixels; `path`, (dx, dy) pixels, is that by
    which the whole search region is blurred.
    """
    thermal = rng.random() < p.thermal
    gray = thermal or rng.random() < p.gray
    colored = rng.random() < p.color
    common = _tone(rng, 0.35, 0.15) if colored else np.ones(4)
    own = common * _tone(rng, 0.18, 0.05) if colored else common
    resolution = 1.0
    if rng.random() < p.low_resolution:
        resolution = float(np.exp(rng.uniform(math.log(8), math.log(60)))) / side
    rows = []
    for tone, blur, moved in ((common, p.template_blur, np.zeros(2)), (own, p.blur, path)):
        offset = rng.normal(0.0, LIGHTING) if rng.random() < p.lighting else np.zeros(3)
        if rng.random() < blur and not moved.any():
            moved = random_direction(rng) * rng.uniform(2, 12)
        quality = int(rng.integers(15, 70)) if rng.random() < p.compression else 0
        noise = rng.uniform(2, 10) if rng.random() < p.noise else 0.0
        rows.append(
            Changes(
                gray=gray,
                invert=thermal,
                gamma=tone[3],
                blue=tone[0],
                green=tone[1],
                red=tone[2],
                add_blue=offset[0],
                add_green=offset[1],
                add_red=offset[2],
                resolution=resolution,
                blur_x=moved[0],
                blur_y=moved[1],
                quality=quality,
                noise=noise,
                seed=rng.integers(1 << 32),
            )
        )
    if rng.random() < p.glare:
        middle, spread = rng.uniform(0, 1, 2), np.exp(rng.uniform(math.log(0.02), math.log(0.3), 2))
        rows[1] = rows[1]._replace(
            glare=rng.uniform(0.4, 1.0),
            glare_x=middle[0],
            glare_y=middle[1],
            glare_width=spread[0],
            glare_height=spread[1],
        )
    return np.array(rows, np.float64)


def random_direction(rng: np.random.Generator) -> Floats:
    """A unit vector, (2,)."""
    angle = rng.uniform(0, 2 * math.pi)
    return np.array([math.cos(angle), math.sin(angle)])


def _tone(rng: np.random.Generator, strength: float, tint: float) -> Floats:
    """Gain of each channel, and gamma: four ratios about 1."""
    spread = np.array([tint, tint, tint, strength])
    ratios = rng.uniform(-spread, spread)
    ratios[:3] += rng.uniform(-strength, strength)
    return np.exp(ratios)


_NO_TONE = np.array(Changes()[1:9])


def apply_changes(images: Tensor, changes: Floats) -> Tensor:
    """Change images (B, h, w, 3), uint8 BGR on any device, by (B, number of Changes' fields).

    On a CPU each operation sees a single image; on a GPU, all images that it is to change.
    """
    if not _on_gpu(images) and len(images) > 1:  # one by one, while each is in the CPU's cache
        pairs = zip(images.split(1), changes[:, None], strict=True)
        return torch.cat([apply_changes(image, row) for image, row in pairs])
    batch = images.permute(0, 3, 1, 2)
    c = Changes(*changes.T)
    tone = changes[:, 1:9]  # from invert to add_red
    batch = _where((tone != _NO_TONE).any(1), _toned, batch, tone)
    batch = _where(c.glare > 0, _glaring, batch, changes[:, 9:14])
    batch = _where(c.resolution < 1, _coarsened, batch, c.resolution)
    batch = _where((c.blur_x != 0) | (c.blur_y != 0), _blurred, batch, c.blur_x, c.blur_y)
    batch = _where(c.quality > 0, _compressed, batch, c.quality)
    batch = _where(c.noise > 0, _noisy, batch, c.noise, c.seed)
    batch = _where(c.gray > 0, _gray, batch)  # last, since most of the others color an image
    return batch.permute(0, 2, 3, 1)


def _where(
    chosen: NDArray[np.bool_],
    operation: Callable[..., Tensor],
    images: Tensor,
    *columns: Floats,
) -> Tensor:
    """The images, with ``operation(images, *columns)`` applied to the chosen ones."""
    if not chosen.any():
        return images
    if chosen.all():
        return operation(images, *columns)
    rows = _beside(images, np.flatnonzero(chosen))
    changed = operation(images[rows], *(column[chosen] for column in columns))
    return images.index_copy(0, rows, changed)


def _on_gpu(images: Tensor) -> bool:
    """Whether to use the operations of a GPU, which tests run on a CPU, too."""
    return images.is_cuda


def _beside(images: Tensor, values: Floats | NDArray[np.intp]) -> Tensor:
    """The values on the images' device, without waiting for what a GPU has still to do."""
    return torch.from_numpy(values).to(images.device, non_blocking=True)


def _bytes(values: Tensor) -> Tensor:
    return values.round_().clamp_(0, 255).to(torch.uint8)


def _gray(images: Tensor) -> Tensor:
    luma = _FROM_BGR[0].to(images.device, non_blocking=True)
    return _bytes(images.permute(0, 2, 3, 1).float() @ luma)[:, None].expand_as(images)


def _toned(images: Tensor, tone: Floats) -> Tensor:
    """Apply a table of 256 levels to each image and channel."""
    invert, gamma, gain, offset = _beside(images, tone)[:, :, None].split((1, 1, 3, 3), 1)
    levels = (invert - torch.arange(256, device=images.device) / 255).abs()
    tables = _bytes(levels**gamma * gain * 255 + offset)  # (B, 3, 256)
    pixels = images.permute(0, 2, 3, 1)
    if not _on_gpu(images):  # OpenCV is ten times as fast
        table = np.ascontiguousarray(tables[0].numpy().T)[None]
        return torch.from_numpy(cv2.LUT(pixels[0].numpy(), table)).permute(2, 0, 1)[None]
    count, channels = images.shape[:2]
    starts = 256 * torch.arange(count * channels, dtype=torch.int32, device=images.device)
    indices = pixels.int() + starts.view(count, 1, 1, channels)
    values = tables.flatten().index_select(0, indices.flatten())
    return values.view(pixels.shape).permute(0, 3, 1, 2)


def _glaring(images: Tensor, spots: Floats) -> Tensor:
    columns = _beside(images, spots).float()[:, :, None]
    strength, x, y, width, height = columns.unbind(1)
    places = torch.linspace(0, 1, images.shape[-1], device=images.device)
    row = torch.exp(-(((places - x) / width) ** 2) / 2)[:, None, None, :]
    column = torch.exp(-(((places - y) / height) ** 2) / 2)[:, None, :, None]
    values = images.contiguous().float()
    return _bytes(values + (255 - values) * (row * (column * strength[:, None, None])))


def _coarsened(images: Tensor, resolutions: Floats) -> Tensor:
    """Reduce the images and enlarge them again."""
    size = images.shape[-1]
    small = np.maximum(np.rint(size * resolutions), 16)
    if _on_gpu(images):
        resample = _resampling_matrices(size, _beside(images, small).float())[:, None]
        return _bytes(resample @ images.float() @ resample.mT)
    # uint8 can be resampled with antialiasing on CPUs only, and much faster than float32 there.
    reduced = F.interpolate(images, size=int(small[0]), mode="bilinear", antialias=True)
    return F.interpolate(reduced, size=size, mode="bilinear")


def _resampling_matrices(size: int, small: Tensor) -> Tensor:
    """Matrices (B, size, size) that reduce a line of samples and enlarge it again.

    Both steps are bilinear, the first with antialiasing, as in
    :func:`torch.nn.functional.interpolate`. `small`, (B,), holds the numbers of samples in between.
    """
    column = torch.arange(size, device=small.device)
    row = column[:, None]
    count = small[:, None, None]
    ratio = size / count
    reduce = (1 - (column + 0.5 - ratio * (row + 0.5)).abs() / ratio).clamp(min=0) * (row < count)
    reduce = reduce / reduce.sum(2, keepdim=True).clamp(min=1e-6)
    place = ((row + 0.5) / ratio - 0.5).clamp(min=0).minimum(count - 1)
    return (1 - (place - column).abs()).clamp(min=0) @ reduce


def _blurred(images: Tensor, dx: Floats, dy: Floats) -> Tensor:
    """:func:`blur_along` for (B, C, h, w) images with a path (dx, dy) each, in pixels."""
    if not _on_gpu(images):
        return blur_along(images, float(dx[0]), float(dy[0]))
    taps = np.rint(np.maximum(abs(dx), abs(dy))) + 1
    steps = np.arange(taps.max())
    shares = (steps - (taps[:, None] - 1) / 2) / np.maximum(taps[:, None] - 1, 1)
    moved = [np.floor(shares * way[:, None] + 0.5) for way in (dy, dx)]  # (B, taps)
    rows, columns = (
        (_beside(images, way).long()[..., None] + torch.arange(side, device=images.device)).clamp(
            0, side - 1
        )
        for way, side in zip(moved, images.shape[2:], strict=True)
    )  # (B, taps, side)
    weights = _beside(images, (steps < taps[:, None]) / taps[:, None]).float()
    every = torch.arange(len(images), device=images.device)[:, None, None]
    pixels = images.permute(0, 2, 3, 1)
    total = torch.zeros(pixels.shape, device=images.device)
    for tap in range(len(steps)):
        seen = pixels[every, rows[:, tap, :, None], columns[:, tap, None, :]]
        total += seen * weights[:, tap, None, None, None]
    return _bytes(total).permute(0, 3, 1, 2)


def blur_along(images: Tensor, dx: float, dy: float) -> Tensor:
    """The mean of uint8 images (B, C, h, w) moved along a path of (dx, dy) pixels, centered."""
    taps = round(max(abs(dx), abs(dy))) + 1
    path = (np.arange(taps) - (taps - 1) / 2)[:, None] * (dx, dy) / max(taps - 1, 1)
    reach = taps // 2 + 1
    height, width = images.shape[-2:]
    padded = F.pad(images.contiguous().float(), (reach,) * 4, mode="replicate")
    total = torch.zeros(images.shape, device=images.device)
    for x, y in np.floor(path + 0.5).astype(int) + reach:
        total += padded[..., y : y + height, x : x + width]
    return _bytes(total.div_(taps))


def _compressed(images: Tensor, qualities: Floats) -> Tensor:
    if _on_gpu(images):
        return jpeg(images, torch.from_numpy(qualities))
    pixels = images[0].permute(1, 2, 0).numpy()
    coded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, int(qualities[0])])[1]
    decoded = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)
    return torch.from_numpy(decoded).permute(2, 0, 1)[None]


def jpeg(images: Tensor, qualities: Tensor) -> Tensor:
    """The effect of JPEG compression (ITU-T T.81) on images, computed on their device.

    Images are (B, 3, h, w) uint8 BGR and square; qualities (B,), 1 to 100, are those of the IJG's
    library. Colors are stored at half the resolution.
    """
    size = images.shape[-1]
    extra = -size % 16
    padded = F.pad(images.contiguous().float(), (0, extra, 0, extra), mode="replicate")
    matrix, inverse, basis = (
        part.to(images.device, non_blocking=True) for part in (_FROM_BGR, _TO_BGR, _DCT)
    )
    luma, color = (matrix @ padded.flatten(2)).view_as(padded).split((1, 2), 1)
    scale = torch.where(qualities < 50, 5000 / qualities, 200 - 2 * qualities).float()

    def quantized(plane: Tensor, table: Tensor) -> Tensor:
        steps = ((table.flatten() * scale[:, None] + 50) / 100).floor().clamp(1, 255)
        steps = steps.repeat_interleave(plane.shape[1], 0)[..., None]
        steps = steps.to(plane.device, non_blocking=True)
        blocks = F.pixel_unshuffle(plane.flatten(0, 1)[:, None], 8)
        coded = torch.round(basis @ blocks.flatten(2) / steps) * steps
        return F.pixel_shuffle((basis.T @ coded).view_as(blocks), 8).view_as(plane)

    luma = quantized(luma - 128, _BRIGHTNESS_STEPS) + 128
    color = quantized(F.avg_pool2d(color, 2), _COLOR_STEPS)
    color = F.interpolate(color, scale_factor=2, mode="bilinear")
    decoded = inverse @ torch.cat((luma, color), 1).flatten(2)
    return _bytes(decoded.view_as(padded)[..., :size, :size])


def _dct() -> Tensor:
    """(64, 64): the transform of an 8x8 block, pixels and coefficients row by row."""
    k, n = torch.arange(8.0)[:, None], torch.arange(8.0)
    basis = torch.cos((2 * n + 1) * k * math.pi / 16) / 2
    basis[0] /= math.sqrt(2)
    return torch.kron(basis, basis)


_DCT = _dct()


def _noisy(images: Tensor, sigmas: Floats, seeds: Floats) -> Tensor:
    """All images' noise comes from the first one's seed."""
    draw = torch.Generator(images.device).manual_seed(int(seeds[0]))
    noise = torch.randn(images.shape, generator=draw, device=images.device)
    return _bytes(noise * _beside(images, sigmas).float()[:, None, None, None] + images)
