"""Decoding image files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]


def read_image(path: Path) -> Image | None:
    """A BGR image (H, W, 3) uint8, or None where the file is missing or does not decode.

    Its orientation tag is ignored, as in training: boxes are of the pixels as they are stored.
    """
    try:
        data = np.fromfile(path, np.uint8)
    except OSError:
        return None
    if len(data) == 0:
        return None
    image: Any = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return image
