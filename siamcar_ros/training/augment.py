"""From two frames of a target to a template, a search region and the box in it.

Frames are cropped as the tracker crops them (127 pixels across the target with its context, 255
across twice that), with errors like its own: a shift, a scale, and wrong edges of the box. A target
whose mask is known may be deformed, blurred by its motion and composed on another background
(:mod:`siamcar_ros.training.layers`), among distractors and behind an occluder. Changes of light,
sharpness, compression and noise are drawn here and applied by
:mod:`siamcar_ros.training.photometric`.

Boxes are in pixels of the search region, with pixel centers at whole numbers, so that a target in
the middle of 255 pixels is centered on 127, as the tracker assumes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from siamcar_ros.data.frames import Frame, PairSource
from siamcar_ros.geometry import SEARCH_SIZE, TEMPLATE_SIZE, Image
from siamcar_ros.options import Range

from .layers import (
    blurred,
    coverage,
    cut,
    deform,
    edge_errors,
    intersection,
    paste,
    place,
    random_linear,
    recolored,
)
from .photometric import Floats, draw_changes, random_direction

_TRIES = 4
_LONGEST_BLUR = 32.0  # pixels of the search region
Probability: TypeAlias = Annotated[float, Range(0, 1)]
NotNegative: TypeAlias = Annotated[float, Range(0)]


@dataclass(frozen=True)
class AugmentParams:
    """Ranges (uniform, or log-uniform for ratios) and probabilities of the augmentation.

    Sizes are in pixels of the crop, scales and aspect ratios are logarithms of the largest ratio.
    """

    template_shift: NotNegative = 4.0  # largest distance of the target from the middle
    template_scale: NotNegative = 0.05
    # Mean error of each edge of the box that a view is cropped around, as a share of the box's
    # side, like those of a hand-drawn box or of a tracker's last one.
    template_box: NotNegative = 0.0
    search_shift: NotNegative = 64.0
    search_scale: NotNegative = 0.22
    search_box: NotNegative = 0.0
    aspect: NotNegative = 0.12
    rotation: Annotated[float, Range(0, 180)] = 8.0  # of the search region, degrees
    # The rest are probabilities. Only targets with a mask are rotated: a box would no longer fit.
    turn: Probability = 0.0  # rotate the search region by any angle
    flip: Probability = 0.5  # mirror both views
    negative: Probability = 0.05  # the search region does not show the target
    compose: Probability = 0.4  # paste a masked target onto another background; half in templates
    compose_sparse: Probability = 0.85  # the same, where the frame leaves much of the crop empty
    foreign_border: Probability = 0.5  # beyond the frame lies another image, not the mean color
    deform: Probability = 0.0  # bend a masked target at a joint, or stretch it, and compose it
    motion_blur: Probability = 0.0  # along the shift, of a composed target or the whole region
    distractor: Probability = 0.35  # other targets beside this one
    occluder: Probability = 0.2  # a strip, a corner or another target over part of it
    color: Probability = 0.8  # a change of light common to both views
    lighting: Probability = 0.0  # offsets of each view's channels, as in the authors' code
    gray: Probability = 0.08  # both views are gray
    thermal: Probability = 0.0  # both views are gray with dark and bright exchanged
    glare: Probability = 0.0  # a spot of light on the search region
    blur: Probability = 0.15  # of the search region, in any direction
    template_blur: Probability = 0.15
    low_resolution: Probability = 0.35  # a target of 8 to 60 pixels, enlarged
    compression: Probability = 0.12  # JPEG compression, for each view
    noise: Probability = 0.1  # for each view


class TrainingPair(NamedTuple):
    """One training example."""

    template: Image  # (127, 127, 3) uint8 BGR
    search: Image  # (255, 255, 3) uint8 BGR
    box: NDArray[np.float32]  # (4,) x1, y1, x2, y2 in search pixels
    positive: bool  # False where the target is not in the search region
    changes: Floats  # (2, fields of photometric.Changes), still to be applied to both


@dataclass(frozen=True)
class PairMaker:
    """Draws pairs from a source and augments them."""

    source: PairSource  # where targets come from
    surroundings: PairSource  # of backgrounds, distractors and occluders; often the same
    params: AugmentParams

    def make(self, rng: np.random.Generator) -> TrainingPair:
        """One example, all of whose randomness comes from ``rng``."""
        p = self.params
        first, second = self.source.pair(rng)
        scenes = {first.scene, second.scene}  # that may show the target
        other = self._elsewhere(scenes, rng) if rng.random() < p.negative else None
        positive = other is None
        if other is not None:
            second = other
            scenes.add(other.scene)
        mirror = np.diag((-1.0 if rng.random() < p.flip else 1.0, 1.0))

        template = self._template(first, scenes, mirror, rng)
        rotation = 180.0 if rng.random() < p.turn else p.rotation
        if second.mask is None:  # the bounds of a rotated box are larger than the target in it
            rotation = 0.0
        linear = random_linear(rng, rotation, p.aspect) @ mirror
        search, box, path = self._search(second, scenes, linear, rng)
        side = max(box[2] - box[0], box[3] - box[1], 1.0)
        changes = draw_changes(p, rng, float(side), path)
        return TrainingPair(template, search, box.astype(np.float32), positive, changes)

    def _template(
        self, frame: Frame, scenes: set[str], linear: Floats, rng: np.random.Generator
    ) -> Image:
        p, size = self.params, TEMPLATE_SIZE
        matrix, _ = place(
            frame,
            linear,
            size / 2 + rng.uniform(-p.template_shift, p.template_shift, 2),
            rng.uniform(-p.template_scale, p.template_scale),
            edge_errors(rng, p.template_box),
        )
        covered = coverage(frame.image, matrix, size)
        if frame.mask is None or rng.random() >= self._compose(covered, 0.5):
            return self._cropped(frame, scenes, matrix, size, covered, rng)
        canvas = self._background(frame, scenes, size, rng)
        paste(canvas, *cut(frame.image, frame.mask, matrix, size))
        return canvas

    def _search(
        self, frame: Frame, scenes: set[str], linear: Floats, rng: np.random.Generator
    ) -> tuple[Image, Floats, Floats]:
        """The search region, the target's box in it, and the path by which all of it is blurred."""
        p, size = self.params, SEARCH_SIZE
        center = size / 2 + rng.uniform(-p.search_shift, p.search_shift, 2)
        scale = rng.uniform(-p.search_scale, p.search_scale)
        matrix, box = place(frame, linear, center, scale, edge_errors(rng, p.search_box))
        covered = coverage(frame.image, matrix, size)
        deformed = rng.random() < p.deform
        path = np.zeros(2)
        if rng.random() < p.motion_blur:
            path = (center - size / 2) * rng.uniform(0.1, 0.5)  # of the time between frames
            path *= min(1.0, _LONGEST_BLUR / max(np.hypot(*path), 1.0))
        if frame.mask is not None and (deformed or rng.random() < self._compose(covered, 1.0)):
            canvas = self._background(frame, scenes, size, rng)
            layer, alpha = cut(frame.image, frame.mask, matrix, size)
            if deformed:
                layer, alpha, box = deform(layer, alpha, box, rng)
            if path.any():
                layer, alpha = blurred(layer, alpha, path)
                path = np.zeros(2)
            paste(canvas, layer, alpha)
        else:
            canvas = self._cropped(frame, scenes, matrix, size, covered, rng)
        if rng.random() < p.distractor:
            self._add_distractors(canvas, scenes, box, rng)
        if rng.random() < p.occluder:
            self._add_occluder(canvas, frame, scenes, box, rng)
        return canvas, box, path

    def _compose(self, covered: float, share: float) -> float:
        """The probability that a target with a mask is composed on another background."""
        return self.params.compose * share if covered > 0.7 else self.params.compose_sparse

    def _cropped(
        self,
        frame: Frame,
        scenes: set[str],
        matrix: Floats,
        size: int,
        covered: float,
        rng: np.random.Generator,
    ) -> Image:
        """The frame's own image, another or the mean color beyond its border."""
        if covered < 0.999 and rng.random() < self.params.foreign_border:
            canvas = self._background(frame, scenes, size, rng)
            whole = np.full(frame.image.shape[:2], 255, np.uint8)
            paste(canvas, *cut(frame.image, whole, matrix, size))
            return canvas
        mean = tuple(_mean_color(frame.image).tolist())
        return np.asarray(
            cv2.warpAffine(frame.image, matrix, (size, size), borderValue=mean), np.uint8
        )

    def _elsewhere(self, scenes: set[str], rng: np.random.Generator) -> Frame | None:
        """A frame of another scene than these, with another target; None if no draw gives one."""
        for _ in range(_TRIES):
            other = self.surroundings.pair(rng)[1]
            if other.scene not in scenes:
                return other
        return None

    def _background(
        self, frame: Frame, scenes: set[str], size: int, rng: np.random.Generator
    ) -> Image:
        """A random part of another scene's image, or the frame's mean color: (size, size, 3)."""
        other = self._elsewhere(scenes, rng)
        if other is None:
            return np.full((size, size, 3), _mean_color(frame.image), np.uint8)
        image = other.image
        height, width = image.shape[:2]
        side = min(height, width) * rng.uniform(0.5, 1.0)
        x, y = rng.uniform(0, width - side), rng.uniform(0, height - side)
        part = image[int(y) : int(y + side), int(x) : int(x + side)]
        return np.ascontiguousarray(cv2.resize(part, (size, size), interpolation=cv2.INTER_LINEAR))

    def _add_distractors(
        self, canvas: Image, scenes: set[str], box: Floats, rng: np.random.Generator
    ) -> None:
        """One to three other targets of about this one's size, beside it, half in its colors."""
        x1, y1, x2, y2 = box
        for _ in range(int(rng.integers(1, 4))):
            other = self._elsewhere(scenes, rng)
            if other is None or other.mask is None:
                continue
            center = rng.uniform(0, SEARCH_SIZE, 2)
            linear = random_linear(rng, 20.0, 0.2)
            matrix, place_box = place(other, linear, center, rng.uniform(-0.3, 0.3))
            overlap = intersection(box, place_box)
            if overlap.min() > 0.15 * min(x2 - x1, y2 - y1):
                continue
            image = other.image
            if rng.random() < 0.5:
                image = recolored(image, other.box, canvas, box)
            paste(canvas, *cut(image, other.mask, matrix, SEARCH_SIZE))

    def _add_occluder(
        self,
        canvas: Image,
        frame: Frame,
        scenes: set[str],
        box: Floats,
        rng: np.random.Generator,
    ) -> None:
        """A strip, a corner or another target over at most about half of the target."""
        other = self._elsewhere(scenes, rng) if rng.random() < 0.5 else None
        if other is not None and other.mask is not None:
            size = box[2:] - box[:2]
            around = (box[:2] + box[2:]) / 2 + random_direction(rng) * size * rng.uniform(0.4, 0.9)
            matrix, its_box = place(
                other, random_linear(rng, 30.0, 0.3), around + 0.5, rng.uniform(-0.5, 0.3)
            )
            if np.prod(intersection(box, its_box)) <= 0.5 * np.prod(size):
                paste(canvas, *cut(other.image, other.mask, matrix, SEARCH_SIZE))
                return
        x1, y1, x2, y2 = box
        texture = self._background(frame, scenes, SEARCH_SIZE, rng)
        share = rng.uniform(0.1, 0.5)
        width, height = share * (x2 - x1), share * (y2 - y1)
        side = int(rng.integers(0, 4))
        left, top, right, bottom = x1 - 4, y1 - 4, x2 + 4, y2 + 4
        if side == 0:
            right = x1 + width
        elif side == 1:
            left = x2 - width
        elif side == 2:
            top = y2 - height
        else:
            left = x1 + rng.uniform(0, 1 - share) * (x2 - x1)
            right, top, bottom = left + 0.8 * width, 0, SEARCH_SIZE
        a, c, b, d = np.clip((left, top, right, bottom), 0, SEARCH_SIZE).astype(int)
        canvas[c:d, a:b] = texture[c:d, a:b]


def _mean_color(image: Image) -> Floats:
    """(3,) BGR, from every eighth pixel in each direction."""
    return np.asarray(image[::8, ::8].reshape(-1, 3).mean(0), np.float64)
