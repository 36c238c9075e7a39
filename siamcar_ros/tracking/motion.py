"""How the picture moved between two frames, from small gray copies of them.

Points on a regular grid are followed by pyramidal Lucas-Kanade; the camera's motion is the median
of their displacements, which a moving target or a few wrong matches do not change. A comparison
costs up to half a millisecond, whatever the image's size.
"""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from siamcar_ros.geometry import Image
from siamcar_ros.tracking.crop import readable
from siamcar_ros.tracking.stored_image import StoredImage

_WIDTH = 160  # of the small copies
_GRID = (8, 6)  # points across and down
_MARGIN = 0.08
_AGREEING = 1.0  # small pixels around the median
_ENOUGH = 0.4  # share of the points that must agree with it


def thumbnail(image: Image | StoredImage) -> NDArray[np.uint8]:
    """A small copy of an image's green channel, (h, 160) uint8, for :func:`camera_shift`."""
    rows, columns = image.shape[:2]
    # Rows of a large image are skipped, but enough are left to average over an area: without that,
    # fine texture seen from the air aliases.
    pixels, kind = readable(image[:: max(1, columns // (2 * _WIDTH))])
    if kind != "gray":
        pixels = cv2.extractChannel(pixels, 1)
    height = max(16, round(_WIDTH * rows / columns))
    return cv2.resize(pixels, (_WIDTH, height), interpolation=cv2.INTER_AREA)


def camera_shift(
    before: NDArray[np.uint8], after: NDArray[np.uint8], frame_size: tuple[int, int]
) -> tuple[float, float]:
    """How far the picture's content moved, (x, y) in image pixels; (0, 0) if that is unclear.

    `before` and `after` are each frame's :func:`thumbnail`; `frame_size` is (width, height).
    """
    if before.shape != after.shape:
        return 0.0, 0.0
    points = _points(before.shape)
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 4, 0.05)
    moved, found, _ = cv2.calcOpticalFlowPyrLK(
        before, after, points, None, winSize=(11, 11), maxLevel=2, criteria=criteria
    )
    shifts = (moved - points)[found.ravel() == 1].reshape(-1, 2)
    if len(shifts) == 0:
        return 0.0, 0.0
    ordered, middle = np.sort(shifts, axis=0), len(shifts) - 1
    median = (ordered[middle // 2] + ordered[(middle + 1) // 2]) / 2  # faster than np.median
    agree = (np.abs(shifts - median).max(1) < _AGREEING).sum()
    if agree < _ENOUGH * len(points):
        return 0.0, 0.0
    height, width = before.shape
    dx, dy = median.tolist()
    return dx * frame_size[0] / width, dy * frame_size[1] / height


@cache
def _points(shape: tuple[int, int]) -> NDArray[np.float32]:
    """(N, 1, 2): the grid of points to follow, x and y."""
    y, x = (
        np.linspace(_MARGIN * side, (1 - _MARGIN) * side, n)
        for side, n in zip(shape, _GRID[::-1], strict=True)
    )
    return np.stack(np.meshgrid(x, y), -1).reshape(-1, 1, 2).astype(np.float32)
