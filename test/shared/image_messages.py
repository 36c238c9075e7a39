"""Messages of a smooth picture, and their pixels as BGR."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from siamcar_ros.data.image_messages import ImageDecoder


def raw(data: Any, **fields: Any) -> SimpleNamespace:
    return SimpleNamespace(**{"data": data, "is_bigendian": 0, **fields})


def raw_to_bgr(data: Any, **fields: Any) -> np.ndarray:
    return ImageDecoder().decode(raw(data, **fields))


def compressed_to_bgr(data: Any, format: str) -> np.ndarray:
    return ImageDecoder().decode(SimpleNamespace(data=data, format=format))


def picture(height: int = 48, width: int = 64) -> np.ndarray:
    """A smooth picture, so that lossy and demosaiced copies stay near it."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    return np.stack([200 - 2 * x, 40 + 2 * y, 30 + x + y], axis=-1).astype(np.uint8)


def mosaic_of(color: np.ndarray, pattern: str) -> np.ndarray:
    mosaic = np.zeros(color.shape[:2], np.uint16)
    for i, letter in enumerate(pattern):
        y, x = divmod(i, 2)
        mosaic[y::2, x::2] = color[y::2, x::2, "bgr".index(letter)]
    return mosaic
