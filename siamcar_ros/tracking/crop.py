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

from siamcar_ros.geometry import Image
from siamcar_ros.tracking.stored_image import StoredImage

TEMPLATE_SIZE = 127
SEARCH_SIZE = 255
CONTEXT = 0.5
_TO_BGR = {
    "gray": cv2.COLOR_GRAY2BGR,
    "rgb": cv2.COLOR_RGB2BGR,
    "bgra": cv2.COLOR_BGRA2BGR,
    "rgba": cv2.COLOR_RGBA2BGR,
}
# OpenCV 5 warps four channels nearly twice as fast as three, which pays for adding one to a part
# of up to so many pixels.
_TO_BGRA = {"bgr": cv2.COLOR_BGR2BGRA, "rgb": cv2.COLOR_RGB2BGRA}
_RED_FIRST = ("rgb", "rgba")
_SMALL = 100_000
_LONGEST = 32_766
_MEAN_PIXELS = 1 << 21


def template_side(w: float, h: float) -> float:
    """Side in image pixels of the square that becomes the template (SiamFC's rule)."""
    padding = CONTEXT * (w + h)
    return math.sqrt((w + padding) * (h + padding))


def mean_colour(image: Image | StoredImage) -> tuple[float, float, float]:
    """Mean blue, green and red of an image: what lies beyond its border.

    For the first frame of a track: it reads every pixel up to a size of 1920x1080, and of larger
    images as many, in rows spread evenly.
    """
    rows = max(1, image.shape[0] * image.shape[1] // _MEAN_PIXELS)
    pixels, kind = _readable(image[::rows])
    mean = cv2.mean(pixels)
    if kind == "gray":
        return mean[0], mean[0], mean[0]
    return (mean[2], mean[1], mean[0]) if kind in _RED_FIRST else (mean[0], mean[1], mean[2])


def crop_square(
    image: Image | StoredImage,
    centre: tuple[float, float],
    step: float,
    anchor: float,
    padding: tuple[float, float, float],
    out: NDArray[np.uint8],
) -> None:
    """Fill `out` with a square of the frame, bilinearly sampled.

    Args:
        image: the frame; only the part under the square is read.
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
    # OpenCV 4 reads no longer side; beyond it, pixels are passed over.
    k = -(-max(y1 - y0, x1 - x0) // _LONGEST)
    part, kind = _readable(image[y0:y1:k, x0:x1:k])
    blue, green, red = padding
    if kind == "gray":
        border = (0.114 * blue + 0.587 * green + 0.299 * red,) * 4
    else:
        border = (red, green, blue, 255.0) if kind in _RED_FIRST else (blue, green, red, 255.0)
    if kind in _TO_BGRA and part.shape[0] * part.shape[1] <= _SMALL:
        part, kind = cv2.cvtColor(part, _TO_BGRA[kind]), "bgra"
        border = (blue, green, red, 255.0)
    square = cv2.warpAffine(
        part,
        np.array([[step, 0.0, left - x0], [0.0, step, top - y0]]) / k,
        (n, n),
        dst=out if kind == "bgr" else None,
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=border,
    )
    if kind != "bgr":
        cv2.cvtColor(square, _TO_BGR[kind], dst=out)


def _samples(first: float, step: float, n: int, size: int) -> tuple[int, int]:
    """The range of indices in [0, size) that interpolation at first + step * [0, n) reads."""
    last = first + step * (n - 1)
    return (
        int(min(max(math.floor(first) - 1, 0), size)),
        int(min(max(math.floor(last) + 3, 0), size)),
    )


def _readable(image: Image | StoredImage) -> tuple[Image, str]:
    """The pixels as OpenCV reads them, and the order of their channels; copied only if need be.

    OpenCV needs pixels and channels packed, and rows in ascending order.
    """
    if isinstance(image, StoredImage):
        pixels, kind = image.array, image.order
    else:
        pixels, kind = image, "bgr"
        if pixels.ndim == 2 or pixels.shape[2] == 1:
            pixels, kind = pixels if pixels.ndim == 2 else pixels[..., 0], "gray"
        elif pixels.shape[2] == 4:
            kind = "bgra"
    channels = 1 if kind == "gray" else pixels.shape[2]
    packed = pixels.strides[1] == channels and (kind == "gray" or pixels.strides[2] == 1)
    if not packed or pixels.strides[0] < pixels.shape[1] * channels:
        pixels = np.ascontiguousarray(pixels)
    return pixels, kind


def to_planes(crops: NDArray[np.uint8], planes: NDArray[np.float32]) -> None:
    """Copy (B, n, n, 3) uint8 into (B, 3, n, n) float32, both contiguous."""
    scratch = [np.empty(crops.shape[1:3], np.uint8) for _ in range(3)]
    for crop, plane in zip(crops, planes, strict=True):
        for channel, target in zip(cv2.split(crop, scratch), plane, strict=True):
            np.copyto(target, channel)
