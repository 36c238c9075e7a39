"""From two frames of a target to a template, a search region and the box in it.

Frames are cropped as the tracker crops them (127 pixels across the target with its context, 255
across twice that), with the jitter that tracking shows: shift, scale, aspect, small rotation.
Where the target's mask is known it may be composed on another background, among distractors and
behind an occluder. Light, blur, resolution, compression and noise follow.

Coordinates: boxes are in pixels of the search region with pixel centres at whole numbers, so
that a target in the middle of 255 pixels is centred on 127, as the tracker assumes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from siamcar_ros.data.frames import Frame, PairSource
from siamcar_ros.geometry import Image

TEMPLATE_SIZE = 127
SEARCH_SIZE = 255
_TRIES = 4
LIGHTING = (8.24, 2.52, 1.20)
"""Standard deviations of the offsets of blue, green and red.

They are what the authors' code comes to: the rows of its matrix, ImageNet's principal colours, are
orthogonal, and each is taken for a channel.
"""

Float = NDArray[np.float64]


@dataclass(frozen=True)
class AugmentParams:
    """Ranges (uniform, or log-uniform for ratios) and probabilities of the augmentation.

    Shifts are in pixels of the crop, ``*_scale`` and ``aspect`` are bounds of the logarithm of a
    ratio, ``rotation`` is in degrees; all others are probabilities. ``turn`` is that of a search
    region turned by any angle, as targets turn that fly or are flown over; a target known by its
    box alone is not turned so, its box would no longer fit. ``compose`` is that of a target with a
    mask being composed on another background (half of it for the template), ``compose_sparse`` the
    same where its own image would leave much of the crop empty.
    ``foreign_border`` is that of another image, not the mean colour, lying beyond the border.
    ``color`` is that of a change of light common to both views, ``lighting`` that of each view's
    channels being offset by themselves, as in the authors' code. ``blur`` is the search region's.
    """

    template_shift: float = 4.0
    template_scale: float = 0.05
    search_shift: float = 64.0
    search_scale: float = 0.22
    aspect: float = 0.12
    rotation: float = 8.0
    turn: float = 0.0
    flip: float = 0.5
    negative: float = 0.05
    compose: float = 0.4
    compose_sparse: float = 0.85
    foreign_border: float = 0.5
    distractor: float = 0.35
    occluder: float = 0.2
    color: float = 0.8
    lighting: float = 0.0
    gray: float = 0.08
    blur: float = 0.15
    template_blur: float = 0.15
    low_resolution: float = 0.35
    compression: float = 0.12
    noise: float = 0.1


class TrainingPair(NamedTuple):
    """One training example.

    ``template`` (127, 127, 3) and ``search`` (255, 255, 3) uint8 BGR; ``box`` (4,) float32
    x1, y1, x2, y2 in search pixels; ``positive`` is False where the target is not in the region.
    """

    template: Image
    search: Image
    box: NDArray[np.float32]
    positive: bool


class PairMaker:
    """Draws pairs from a source and augments them.

    Args:
        source: where targets come from.
        surroundings: where backgrounds, distractors and occluders come from; often the same.
        params: the augmentation.
    """

    def __init__(self, source: PairSource, surroundings: PairSource, params: AugmentParams) -> None:
        self.source = source
        self.surroundings = surroundings
        self.params = params

    def make(self, rng: np.random.Generator) -> TrainingPair:
        """One example, all of whose randomness comes from ``rng``."""
        p = self.params
        first, second = self.source.pair(rng)
        other = self._elsewhere(second, rng) if rng.random() < p.negative else None
        positive = other is None
        second = second if other is None else other
        mirror = np.diag((-1.0 if rng.random() < p.flip else 1.0, 1.0))
        template, _ = self._view(
            first, rng, TEMPLATE_SIZE, mirror, p.template_shift, p.template_scale, compose=0.5
        )
        rotation = 180.0 if rng.random() < p.turn else p.rotation
        if second.mask is None:  # what bounds a turned box is larger than the target in it
            rotation = 0.0
        warp = _linear(rng, rotation, p.aspect) @ mirror
        search, box = self._view(
            second, rng, SEARCH_SIZE, warp, p.search_shift, p.search_scale, compose=1.0
        )
        template, search = _shared_light(template, search, p, rng)
        if rng.random() < p.low_resolution:
            across = float(np.exp(rng.uniform(math.log(8), math.log(60))))
            side = max(box[2] - box[0], box[3] - box[1], 1.0)
            template = _coarsen(template, across / side)
            search = _coarsen(search, across / side)
        template = _degrade(_offset(template, p, rng), p, p.template_blur, rng)
        search = _degrade(_offset(search, p, rng), p, p.blur, rng)
        return TrainingPair(template, search, box.astype(np.float32), positive)

    def _view(
        self,
        frame: Frame,
        rng: np.random.Generator,
        size: int,
        linear: Float,
        shift: float,
        scale: float,
        compose: float,
    ) -> tuple[Image, Float]:
        """A crop of ``size`` pixels around the frame's target, and the target's box in it."""
        p = self.params
        centre = size / 2 + rng.uniform(-shift, shift, 2)
        matrix, box = place(frame, linear, centre, rng.uniform(-scale, scale))
        covered = _coverage(frame.image, matrix, size)
        chance = p.compose * compose if covered > 0.7 else p.compose_sparse
        if frame.mask is not None and rng.random() < chance:
            canvas = self._background(size, rng)
            _paste(canvas, frame.image, frame.mask, matrix)
        elif covered < 0.999 and rng.random() < p.foreign_border:
            canvas = self._background(size, rng)
            _paste(canvas, frame.image, np.full(frame.image.shape[:2], 255, np.uint8), matrix)
        else:
            mean = frame.image[::8, ::8].reshape(-1, 3).mean(0)
            canvas = cv2.warpAffine(
                frame.image, matrix, (size, size), borderValue=tuple(mean.tolist())
            )
        if size == SEARCH_SIZE:
            if rng.random() < p.distractor:
                self._add_distractors(canvas, frame, box, rng)
            if rng.random() < p.occluder:
                self._add_occluder(canvas, box, rng)
        return canvas, box

    def _elsewhere(self, frame: Frame, rng: np.random.Generator) -> Frame | None:
        """A frame of another scene, so that its target is another; None where none was drawn."""
        for _ in range(_TRIES):
            other = self.surroundings.pair(rng)[1]
            if other.scene != frame.scene:
                return other
        return None

    def _background(self, size: int, rng: np.random.Generator) -> Image:
        """A random part of a random image, filling a square of ``size`` pixels."""
        image = self.surroundings.pair(rng)[1].image
        height, width = image.shape[:2]
        side = min(height, width) * rng.uniform(0.5, 1.0)
        x, y = rng.uniform(0, width - side), rng.uniform(0, height - side)
        part = image[int(y) : int(y + side), int(x) : int(x + side)]
        return np.ascontiguousarray(cv2.resize(part, (size, size), interpolation=cv2.INTER_LINEAR))

    def _add_distractors(
        self, canvas: Image, frame: Frame, box: Float, rng: np.random.Generator
    ) -> None:
        """One to three other targets of about this one's size, beside it, half in its colours."""
        x1, y1, x2, y2 = box
        for _ in range(int(rng.integers(1, 4))):
            other = self._elsewhere(frame, rng)
            if other is None or other.mask is None:
                continue
            centre = rng.uniform(0, SEARCH_SIZE, 2)
            linear = _linear(rng, 20.0, 0.2)
            matrix, place_box = place(other, linear, centre, rng.uniform(-0.3, 0.3))
            overlap_x = min(x2, place_box[2]) - max(x1, place_box[0])
            overlap_y = min(y2, place_box[3]) - max(y1, place_box[1])
            if min(overlap_x, overlap_y) > 0.15 * min(x2 - x1, y2 - y1):
                continue
            image = other.image
            if rng.random() < 0.5:
                image = _recolored(image, other.box, canvas, box)
            _paste(canvas, image, other.mask, matrix)

    def _add_occluder(self, canvas: Image, box: Float, rng: np.random.Generator) -> None:
        """A strip or a corner of another image over at most half of the target."""
        x1, y1, x2, y2 = box
        width, height = x2 - x1, y2 - y1
        texture = self._background(SEARCH_SIZE, rng)
        share = rng.uniform(0.1, 0.5)
        side = int(rng.integers(0, 4))
        left, top, right, bottom = x1 - 4, y1 - 4, x2 + 4, y2 + 4
        if side == 0:
            right = x1 + share * width
        elif side == 1:
            left = x2 - share * width
        elif side == 2:
            top = y2 - share * height
        else:
            left = x1 + rng.uniform(0, 1 - share) * width
            right, top, bottom = left + share * width * 0.8, 0.0, SEARCH_SIZE
        a, b = max(0, int(left)), min(SEARCH_SIZE, int(right))
        c, d = max(0, int(top)), min(SEARCH_SIZE, int(bottom))
        if b > a and d > c:
            canvas[c:d, a:b] = texture[c:d, a:b]


def place(
    frame: Frame, linear: Float, centre: NDArray[np.float64], log_scale: float
) -> tuple[Float, Float]:
    """The affine map that brings a frame's target to ``centre`` of a crop at the tracker's scale.

    Args:
        frame: with its target's outline.
        linear: (2, 2) map applied before scaling.
        centre: x, y in the crop, pixel edges.
        log_scale: jitter of the scale.

    Returns:
        (2, 3) matrix for ``cv2.warpAffine``; (4,) box x1, y1, x2, y2, pixel centres.
    """
    points = frame.outline.astype(np.float64) @ linear.T
    low, high = points.min(0), points.max(0)
    width, height = np.maximum(high - low, 2.0)
    context = (width + height) / 2
    scale = TEMPLATE_SIZE / math.sqrt((width + context) * (height + context)) * math.exp(log_scale)
    middle = (low + high) / 2
    matrix = np.empty((2, 3))
    matrix[:, :2] = scale * linear
    matrix[:, 2] = centre - scale * middle + matrix[:, :2].sum(1) / 2 - 0.5
    box = np.concatenate((scale * (low - middle) + centre, scale * (high - middle) + centre)) - 0.5
    return matrix, box


def _coverage(image: Image, matrix: Float, size: int) -> float:
    """The share of the crop that the image, mapped by ``matrix``, fills."""
    height, width = image.shape[:2]
    corners = np.array([[0, 0, 1], [width, 0, 1], [width, height, 1], [0, height, 1]]) @ matrix.T
    crop = np.array([[0, 0], [size, 0], [size, size], [0, size]], np.float32)
    area, _ = cv2.intersectConvexConvex(corners.astype(np.float32), crop)
    return float(area) / (size * size)


def _linear(rng: np.random.Generator, rotation: float, aspect: float) -> Float:
    angle = math.radians(rng.uniform(-rotation, rotation))
    stretch = math.exp(rng.uniform(-aspect, aspect) / 2)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return turn @ np.diag((stretch, 1 / stretch))


def _paste(canvas: Image, image: Image, mask: Image, matrix: Float) -> None:
    """Blend the masked pixels of an image, mapped by ``matrix``, into the canvas."""
    size = canvas.shape[1::-1]
    moved = cv2.warpAffine(image, matrix, size, borderMode=cv2.BORDER_REPLICATE)
    alpha = cv2.warpAffine(mask, matrix, size)
    alpha = cv2.blur(alpha, (3, 3))
    inverse = cv2.bitwise_not(alpha)
    three = cv2.merge((alpha, alpha, alpha))
    rest = cv2.merge((inverse, inverse, inverse))
    cv2.add(
        cv2.multiply(moved, three, scale=1 / 255),
        cv2.multiply(canvas, rest, scale=1 / 255),
        dst=canvas,
    )


def _recolored(image: Image, box: NDArray[np.float32], canvas: Image, target: Float) -> Image:
    """The image with its object's mean colour moved to that of the canvas's target."""

    def mean(picture: Image, where: NDArray[np.float64] | NDArray[np.float32]) -> Float:
        x1, y1, x2, y2 = (max(0, int(v)) for v in where)
        part = picture[y1 : y2 + 1 : 4, x1 : x2 + 1 : 4].reshape(-1, 3)
        return part.mean(0) if len(part) else np.full(3, 114.0)

    difference = mean(canvas, target) - mean(image, box)
    steps = np.arange(256, dtype=np.float64)[:, None] + difference
    return cv2.LUT(image, np.clip(steps, 0, 255).astype(np.uint8)[None])


def _shared_light(
    template: Image, search: Image, p: AugmentParams, rng: np.random.Generator
) -> tuple[Image, Image]:
    """A strong change of light common to both views, a weak one of the search region alone."""
    if rng.random() < p.gray:
        template = cv2.merge([cv2.cvtColor(template, cv2.COLOR_BGR2GRAY)] * 3)
        search = cv2.merge([cv2.cvtColor(search, cv2.COLOR_BGR2GRAY)] * 3)
    if rng.random() < p.color:
        common = _tone(rng, 0.35, 0.15)
        template = cv2.LUT(template, _table(common))
        search = cv2.LUT(search, _table(common * _tone(rng, 0.18, 0.05)))
    return template, search


def _tone(rng: np.random.Generator, strength: float, tint: float) -> Float:
    """Gain of each channel, and gamma: four ratios about 1."""
    spread = np.array([tint, tint, tint, strength])
    ratios = rng.uniform(-spread, spread)
    ratios[:3] += rng.uniform(-strength, strength)
    return np.exp(ratios)


def _table(tone: Float) -> Image:
    """(1, 256, 3) look-up table of a tone."""
    steps = (np.arange(256) / 255)[:, None] ** tone[3] * tone[:3]
    return np.clip(steps * 255, 0, 255).astype(np.uint8)[None]


def _coarsen(image: Image, ratio: float) -> Image:
    """As if the sensor had had only ``ratio`` times as many pixels across."""
    if ratio >= 1:
        return image
    size = image.shape[1]
    small = max(16, round(size * ratio))
    reduced = cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA)
    return cv2.resize(reduced, (size, size), interpolation=cv2.INTER_LINEAR)


def _offset(image: Image, p: AugmentParams, rng: np.random.Generator) -> Image:
    """Each channel moved by an amount of its own."""
    if rng.random() >= p.lighting:
        return image
    offset = rng.normal(0.0, LIGHTING)
    steps = np.arange(256, dtype=np.float64)[:, None] + offset
    return cv2.LUT(image, np.clip(np.rint(steps), 0, 255).astype(np.uint8)[None])


def _degrade(image: Image, p: AugmentParams, blur: float, rng: np.random.Generator) -> Image:
    """Motion blur, compression and sensor noise."""
    if rng.random() < blur:
        length = int(rng.integers(3, 14))
        kernel = np.zeros((length, length), np.float32)
        angle = rng.uniform(0, math.pi)
        reach = np.array([math.cos(angle), math.sin(angle)]) * (length - 1) / 2
        middle = np.full(2, (length - 1) / 2)
        ends = [tuple(round(v) for v in middle + s * reach) for s in (-1, 1)]
        cv2.line(kernel, ends[0], ends[1], 1.0)
        image = cv2.filter2D(image, -1, kernel / kernel.sum())
    if rng.random() < p.compression:
        quality = int(rng.integers(15, 70))
        coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        image = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)
    if rng.random() < p.noise:
        noise = np.empty(image.shape, np.int16)
        cv2.randn(noise, 0, float(rng.uniform(2, 10)))
        image = cv2.add(image, noise, dtype=cv2.CV_8U)
    return image
