"""Boxes, their forms, and the squares that are cut around a target.

Pixel (i, j) of an image, row i and column j, covers [j, j + 1) x [i, i + 1), so its center is
(j + 0.5, i + 0.5). Everywhere in the package a box is (x, y, w, h) in image pixels, 0-based: it
covers [x, x + w) and [y, y + h). The other two forms are (x0, y0, x1, y1), corners, and
(cx, cy, w, h), center and size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from siamcar_ros.options import parse_numbers

Box = tuple[float, float, float, float]
"""(x, y, w, h) in image pixels, 0-based, top-left corner and size; may be fractional."""

Boxes = NDArray[np.float64]
"""(N, 4), one :data:`Box` a row."""

Image = NDArray[np.uint8]
"""(H, W, 3) BGR, (H, W, 4) BGRA, (H, W) or (H, W, 1) gray; any strides."""

TEMPLATE_SIZE = 127
"""Side of the template in pixels."""

SEARCH_SIZE = 255
"""Side of the search region in pixels."""

CONTEXT = 0.5
"""The context p that is added to width and height is CONTEXT * (w + h)."""


def xywh_to_corners(boxes: ArrayLike) -> NDArray[np.float64]:
    """(..., 4) boxes x, y, w, h to their corners x0, y0, x1, y1."""
    x, y, w, h = _columns(boxes)
    return np.stack((x, y, x + w, y + h), -1)


def corners_to_xywh(corners: ArrayLike) -> NDArray[np.float64]:
    """(..., 4) corners x0, y0, x1, y1 to boxes x, y, w, h."""
    x0, y0, x1, y1 = _columns(corners)
    return np.stack((x0, y0, x1 - x0, y1 - y0), -1)


def xywh_to_center(boxes: ArrayLike) -> NDArray[np.float64]:
    """(..., 4) boxes x, y, w, h to center and size cx, cy, w, h."""
    x, y, w, h = _columns(boxes)
    return np.stack((x + w / 2, y + h / 2, w, h), -1)


def parse_box(text: str) -> Box:
    """Read a box as a person types it, `x,y,w,h`; ValueError if it is not four finite numbers."""
    x, y, w, h = parse_numbers("a box (x,y,w,h in pixels)", text, 4)
    return x, y, w, h


def box_center(box: Box) -> tuple[float, float]:
    """The center (x, y) of one box."""
    x, y, w, h = box
    return x + w / 2, y + h / 2


def box_around(center: tuple[float, float], size: tuple[float, float]) -> Box:
    """The box of a size (w, h) around a center (x, y)."""
    (cx, cy), (w, h) = center, size
    return cx - w / 2, cy - h / 2, w, h


def overlap(boxes: ArrayLike, others: ArrayLike) -> NDArray[np.float64]:
    """Intersection over union of (..., 4) boxes x, y, w, h, broadcast against each other."""
    first, second = xywh_to_corners(boxes), xywh_to_corners(others)
    shared = np.minimum(first, second)[..., 2:] - np.maximum(first, second)[..., :2]
    intersection = shared.clip(0).prod(-1)
    areas = [(each[..., 2:] - each[..., :2]).prod(-1) for each in (first, second)]
    union = areas[0] + areas[1] - intersection
    return np.divide(intersection, union, out=np.zeros(union.shape), where=union > 0)


def context_side(w: Any, h: Any) -> Any:
    """Side of the square that is cut out as a target's template: sqrt((w + p)(h + p)).

    p = (w + h) / 2 is the context of SiamFC (Bertinetto et al. 2016). The square is scaled to
    :data:`TEMPLATE_SIZE`; the search region is :data:`SEARCH_SIZE` / :data:`TEMPLATE_SIZE` as
    large. `w` and `h`, the widths and heights of boxes, are numbers or arrays, and so is the
    result, in their unit.
    """
    p = CONTEXT * (w + h)
    return ((w + p) * (h + p)) ** 0.5


def _columns(boxes: ArrayLike) -> NDArray[np.float64]:
    return np.moveaxis(np.asarray(boxes, np.float64), -1, 0)
