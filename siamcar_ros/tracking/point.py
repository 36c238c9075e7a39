"""The box of an object, found about a point on it.

Boxes of many sizes and shapes about the point serve as templates, which are searched for on the
same image. Even from a template that does not fit, the network mostly regresses a box of some
object; those boxes are the templates of a second round. The object's box is the one that is found
again best by its own template, has a high quality, and that many templates lead to.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from siamcar_ros.geometry import (
    SEARCH_SIZE,
    TEMPLATE_SIZE,
    Box,
    Boxes,
    Image,
    context_side,
    corners_to_xywh,
    overlap,
    xywh_to_center,
)
from siamcar_ros.tracking.crop import crop_square, mean_color
from siamcar_ros.tracking.decode import foreground
from siamcar_ros.tracking.interface import Network, TargetError, checked_image
from siamcar_ros.tracking.stored_image import StoredImage

# Sides of the first templates: from, to (in image sides), ratio of one to the next; height / width.
_SMALLEST, _LARGEST, _STEP = 8.0, 0.95, 1.45
_SHAPES = (0.5, 1.0, 2.0)
# Boxes of the second round, of which none overlaps another by more.
_KEPT, _ALIKE = 16, 0.85
_BATCH = 8
# A box is refused if its agreement with itself times its quality is lower.
_LEAST = 0.65


class _Found(NamedTuple):
    """What N templates find: boxes (N, 4), x, y, w, h, and their qualities (N,) in [0, 1]."""

    boxes: Boxes
    quality: NDArray[np.float64]


def box_about(network: Network, image: Image | StoredImage, point: ArrayLike) -> Box:
    """Find the box of the object that a point lies on, near the object's middle.

    Args:
        network: as for a tracker.
        image: as for :meth:`SiamCarTracker.init`.
        point: (x, y), image pixels.

    Raises:
        TargetError: the point lies outside the image, or no box around it finds itself again.
    """
    image = checked_image(image)
    height, width = image.shape[:2]
    x, y = np.asarray(point, np.float64).tolist()
    if not (0 <= x < width and 0 <= y < height):
        raise TargetError(f"the point ({x:g}, {y:g}) lies outside the {width}x{height} image")
    finder = _Finder(network, image, (x, y))
    first = finder.find(_seeds((x, y), _LARGEST * min(width, height)))
    boxes = first.boxes[_distinct(first)]
    found = finder.find(boxes)
    itself = overlap(boxes, found.boxes)
    support = overlap(found.boxes[:, None], first.boxes[None]) @ first.quality
    rank = itself * found.quality * np.sqrt(support)
    best = int(rank.argmax()) if len(rank) else 0
    if not len(rank) or itself[best] * found.quality[best] < _LEAST:
        raise TargetError(
            f"no clear object around the point ({x:.0f}, {y:.0f}): choose a point nearer to its "
            "middle, or give a box"
        )
    x, y, w, h = found.boxes[best].tolist()
    return x, y, w, h


def _seeds(point: tuple[float, float], largest: float) -> Boxes:
    """The first templates, centered on the point."""
    count = max(1, 1 + int(np.log(max(largest / _SMALLEST, 1)) / np.log(_STEP)))
    side = _SMALLEST * _STEP ** np.arange(count)[:, None]
    root = np.sqrt(_SHAPES)
    size = np.stack((side / root, side * root), -1).reshape(-1, 2)
    return np.concatenate((point - size / 2, size), 1)


def _distinct(found: _Found) -> list[int]:
    """The best boxes, none of which is like another."""
    kept: list[int] = []
    for index in np.argsort(-found.quality, kind="stable").tolist():
        if found.quality[index] <= 0 or len(kept) == _KEPT:
            break
        if not kept or overlap(found.boxes[index], found.boxes[kept]).max() < _ALIKE:
            kept.append(index)
    return kept


class _Finder:
    """Takes boxes of one image for templates and searches for them around themselves."""

    def __init__(
        self, network: Network, image: Image | StoredImage, point: tuple[float, float]
    ) -> None:
        self._image, self._point, self._padding = image, point, mean_color(image)
        self._network: Any = network
        if not getattr(network, "takes_pixels", False):
            from siamcar_ros.runtime.tensors import TensorAdapter

            self._network = TensorAdapter(network)
        stride = getattr(network, "stride", 8)
        middle = (network.score_size - 1) / 2
        self._reference_index = network.offset + stride * middle
        self._cells = stride * (np.arange(network.score_size) - middle)

    def find(self, boxes: Boxes) -> _Found:
        """The best box that holds the point, for each template; quality 0 if there is none."""
        parts = [self._batch(boxes[i : i + _BATCH]) for i in range(0, len(boxes), _BATCH)]
        if not parts:
            return _Found(np.empty((0, 4)), np.empty(0))
        return _Found(*(np.concatenate(part) for part in zip(*parts, strict=True)))

    def _batch(self, boxes: Boxes) -> _Found:
        centers = xywh_to_center(boxes)
        pixels = context_side(boxes[:, 2], boxes[:, 3]) / TEMPLATE_SIZE
        z = self._crops(centers, pixels, TEMPLATE_SIZE, (TEMPLATE_SIZE - 1) / 2)
        x = self._crops(centers, pixels, SEARCH_SIZE, self._reference_index)
        cls, reg, cen = self._network(x, self._network.template(z))
        # Corners of the boxes that the cells regress, (N, S, S, 4).
        step = pixels[:, None, None]
        column = centers[:, 0, None, None] + step * self._cells
        row = centers[:, 1, None, None] + step * self._cells[:, None]
        left, top, right, bottom = np.moveaxis(reg.astype(np.float64), 1, 0) * step
        size = self._image.shape[1::-1]
        corners = np.stack((column - left, row - top, column + right, row + bottom), -1)
        corners = corners.clip(0, (*size, *size))
        px, py = self._point
        holds = (corners[..., :2] < (px, py)).all(-1) & (corners[..., 2:] > (px, py)).all(-1)
        quality = foreground(cls) / (1 + np.exp(-cen[:, 0].astype(np.float64))) * holds
        cell = quality.reshape(len(boxes), -1).argmax(1)
        row_of = np.arange(len(boxes))
        found = corners.reshape(len(boxes), -1, 4)[row_of, cell]
        return _Found(corners_to_xywh(found), quality.reshape(len(boxes), -1)[row_of, cell])

    def _crops(
        self, centers: Boxes, pixels: NDArray[np.float64], side: int, reference_index: float
    ) -> NDArray[np.uint8]:
        crops = np.empty((len(centers), side, side, 3), np.uint8)
        for center, per_sample, crop in zip(centers.tolist(), pixels.tolist(), crops, strict=True):
            crop_square(self._image, center[:2], per_sample, reference_index, self._padding, crop)
        return crops
