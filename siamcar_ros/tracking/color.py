"""The target's colors: what tells it from a thing of the same shape, without any training.

The colors of a box are the histogram of its chroma, a* and b* of CIELAB, so that shade and exposure
change little. Those of the first box, the only one that is known to be right, are the reference.
"""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from siamcar_ros.geometry import Image

Colors = NDArray[np.float32]

_SIDE = 24  # samples across the box and down
_BINS, _WIDTH = 8, 8  # of each of a* and b*; those further from gray count for the last one
_SPREAD = 0.375  # box sides from its center at which a sample counts 1/e as much


def chroma(crop: Image, box: tuple[float, float, float, float]) -> Colors:
    """The histogram of the colors in a box, (64,), which sums to 1.

    Args:
        crop: (n, m, 3) uint8 BGR.
        box: center x and y, width and height, in pixels of the crop. What lies outside of it is
            taken from its border.
    """
    x, y = (
        np.rint(center + extent * _places()).clip(0, side - 1).astype(int)
        for center, extent, side in zip(box[:2], box[2:], crop.shape[1::-1], strict=True)
    )
    lab = cv2.cvtColor(crop[y[:, None], x], cv2.COLOR_BGR2LAB)
    ab = ((lab[..., 1:].astype(int) - 128) // _WIDTH + _BINS // 2).clip(0, _BINS - 1)
    bins = ab[..., 0] * _BINS + ab[..., 1]
    histogram = np.bincount(bins.ravel(), _weights().ravel(), _BINS * _BINS)
    return histogram.astype(np.float32)


def likeness(a: Colors, b: Colors) -> float:
    """The Bhattacharyya coefficient of two histograms: 1 where they are equal, 0 if disjoint."""
    return float(np.sqrt(a * b).sum())


@cache
def _places() -> NDArray[np.float64]:
    """The middles of equal parts of a side of length 1 around 0."""
    return (np.arange(_SIDE) + 0.5) / _SIDE - 0.5


@cache
def _weights() -> NDArray[np.float64]:
    along = np.exp(-((_places() / _SPREAD) ** 2))
    weights = np.outer(along, along)
    return weights / weights.sum()
