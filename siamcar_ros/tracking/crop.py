"""Cutting a padded square out of a frame, at a cost that does not depend on the frame's size.

A crop is centered exactly on the target's center and scaled exactly, by bilinear interpolation, as
the authors cut their training pairs. Their tracker rounds the square to whole pixels instead, which
for a target of ten pixels is an error of several search pixels.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from siamcar_ros.geometry import Image
from siamcar_ros.tracking.stored_image import StoredImage

_TO_BGR = {
    "gray": cv2.COLOR_GRAY2BGR,
    "rgb": cv2.COLOR_RGB2BGR,
    "bgra": cv2.COLOR_BGRA2BGR,
    "rgba": cv2.COLOR_RGBA2BGR,
}
# OpenCV 5 warps four channels nearly twice as fast as three, which makes up for adding the fourth
# to a part of at most _SMALL pixels.
_TO_BGRA = {"bgr": cv2.COLOR_BGR2BGRA, "rgb": cv2.COLOR_RGB2BGRA}
_RED_FIRST = ("rgb", "rgba")
_SMALL = 100_000
_LONGEST = 32_766
_MEAN_PIXELS = 1 << 21


def mean_color(image: Image | StoredImage) -> tuple[float, float, float]:
    """Mean blue, green and red of an image, which stand for what lies beyond its border.

    Used once a track. Of images of four megapixels or more only evenly spread rows are read.
    """
    rows = max(1, image.shape[0] * image.shape[1] // _MEAN_PIXELS)
    pixels, kind = readable(image[::rows])
    mean = cv2.mean(pixels)
    if kind == "gray":
        return mean[0], mean[0], mean[0]
    return (mean[2], mean[1], mean[0]) if kind in _RED_FIRST else (mean[0], mean[1], mean[2])


def crop_square(
    image: Image | StoredImage,
    center: tuple[float, float],
    pixels_per_sample: float,
    reference_index: float,
    padding: tuple[float, float, float],
    out: NDArray[np.uint8],
) -> None:
    """Fill `out` with a square of the frame, bilinearly sampled.

    Args:
        image: the frame; only the part under the square is read.
        center: (x, y), image pixels: what the sample at `reference_index` shows, in both
            directions.
        pixels_per_sample: image pixels from one sample to the next, above 0.
        reference_index: index in `out`, may be fractional.
        padding: BGR of what lies beyond the frame.
        out: (n, n, 3) uint8, contiguous, BGR.
    """
    n, step = out.shape[0], pixels_per_sample
    # In OpenCV's coordinates the center of a pixel is a whole number.
    left = center[0] - 0.5 - step * reference_index
    top = center[1] - 0.5 - step * reference_index
    height, width = image.shape[:2]
    x0, x1 = _samples(left, step, n, width)
    y0, y1 = _samples(top, step, n, height)
    if x0 >= x1 or y0 >= y1:
        out[:] = np.rint(padding)
        return
    # OpenCV 4 warps no image with a longer side; of those, only every k-th pixel is read.
    k = -(-max(y1 - y0, x1 - x0) // _LONGEST)
    part, kind = readable(image[y0:y1:k, x0:x1:k])
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


def readable(image: Image | StoredImage) -> tuple[Image, str]:
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
