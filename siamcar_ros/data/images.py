"""Decoding image files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from siamcar_ros.geometry import Image

_COLOR = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
}


def read_image(path: Path, divisor: int = 1) -> Image | None:
    """A BGR image (H, W, 3) uint8, or None where the file is missing or does not decode.

    Its orientation tag is ignored: boxes and masks are of the pixels as they are stored.

    Args:
        path: the file.
        divisor: 1, 2 or 4, by which the size is reduced; cheap for a JPEG.
    """
    try:
        data = np.fromfile(path, np.uint8)
    except OSError:
        return None
    if len(data) == 0:
        return None
    image: Any = cv2.imdecode(data, _COLOR[divisor] | cv2.IMREAD_IGNORE_ORIENTATION)
    return image
