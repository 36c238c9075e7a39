"""Cutting a padded square out of a frame, at a cost that does not depend on the frame's size.

Coordinates: a frame's pixel (i, j) covers [j, j + 1) x [i, i + 1), so its middle is (j + 0.5,
i + 0.5). A crop is centred exactly on the target's centre and scaled exactly, by bilinear
interpolation, as the authors cut their training pairs; their tracker rounds the square to whole
pixels instead, which for a target of ten pixels is an error of several search pixels.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from siamcar_ros.tracking.interface import Image

TEMPLATE_SIZE = 127
SEARCH_SIZE = 255
CONTEXT = 0.5
_COLOUR = {1: cv2.COLOR_GRAY2BGR, 4: cv2.COLOR_BGRA2BGR}


def template_side(w: float, h: float) -> float:
    """Side in image pixels of the square that becomes the template (SiamFC's rule)."""
    padding = CONTEXT * (w + h)
    return math.sqrt((w + padding) * (h + padding))


def mean_colour(image: Image) -> tuple[float, float, float]:
    """Mean blue, green and red of a whole image: what lies beyond its border.

    Reads every pixel, so it is for the first frame of a track only.
    """
    channels = 1 if image.ndim == 2 else image.shape[2]
    mean = cv2.mean(np.ascontiguousarray(image))
    return (mean[0], mean[0], mean[0]) if channels == 1 else (mean[0], mean[1], mean[2])


def crop_square(
    image: Image,
    centre: tuple[float, float],
    step: float,
    anchor: float,
    padding: tuple[float, float, float],
    out: NDArray[np.uint8],
) -> None:
    """Fill `out` with a square of the frame, bilinearly sampled.

    Args:
        image: the frame; only the part under the square is read, and it is copied only where its
            strides are not OpenCV's (a channel view such as ``image[..., ::-1]``).
        centre: (x, y), image pixels: what the sample of index `anchor` in both directions shows.
        step: image pixels from one sample to the next, above 0.
        anchor: index, whole or not, in `out`.
        padding: BGR of what lies beyond the frame.
        out: (n, n, 3) uint8, contiguous, BGR.
    """
    n = out.shape[0]
    # In OpenCV's coordinates a pixel's middle is a whole number.
    left = centre[0] - 0.5 - step * anchor
    top = centre[1] - 0.5 - step * anchor
    height, width = image.shape[:2]
    x0, x1 = _samples(left, step, n, width)
    y0, y1 = _samples(top, step, n, height)
    if x0 >= x1 or y0 >= y1:
        out[:] = np.rint(padding)
        return
    part = image[y0:y1, x0:x1]
    if not _is_opencv_layout(part):
        part = np.ascontiguousarray(part)
    channels = 1 if part.ndim == 2 else part.shape[2]
    target = out if channels == 3 else None
    square = cv2.warpAffine(
        part,
        np.array([[step, 0.0, left - x0], [0.0, step, top - y0]]),
        (n, n),
        dst=target,
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(*padding, 255.0),
    )
    if channels != 3:
        cv2.cvtColor(square, _COLOUR[channels], dst=out)


def _samples(first: float, step: float, n: int, size: int) -> tuple[int, int]:
    """The range of indices in [0, size) that interpolation at first + step * [0, n) reads."""
    last = first + step * (n - 1)
    return (
        int(min(max(math.floor(first) - 1, 0), size)),
        int(min(max(math.floor(last) + 3, 0), size)),
    )


def _is_opencv_layout(part: NDArray[np.uint8]) -> bool:
    """Whether OpenCV reads the array in place: pixels and their channels packed, rows forwards."""
    channels = 1 if part.ndim == 2 else part.shape[2]
    packed = part.strides[1] == channels and (part.ndim == 2 or part.strides[2] == 1)
    return packed and part.strides[0] >= part.shape[1] * channels


def to_planes(crops: NDArray[np.uint8], planes: NDArray[np.float32]) -> None:
    """Copy (B, n, n, 3) uint8 into (B, 3, n, n) float32, both contiguous."""
    scratch = [np.empty(crops.shape[1:3], np.uint8) for _ in range(3)]
    for crop, plane in zip(crops, planes, strict=True):
        for channel, target in zip(cv2.split(crop, scratch), plane, strict=True):
            np.copyto(target, channel)
