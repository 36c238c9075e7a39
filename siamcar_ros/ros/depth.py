"""The depth of a target in a registered depth image. Does not import rclpy."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from siamcar_ros.data.image_messages import view_bytes
from siamcar_ros.data.images import ImageError
from siamcar_ros.geometry import Box

# The target fills the middle of its box; the rim shows what is around it.
_MIDDLE = 0.6
# Depths of one surface differ by less than this factor: a car seen at an angle at 15 m, say.
_SAME_SURFACE = 1.15
# A smaller share of the known depths is noise, or in front of the target: a branch, say.
_LEAST_SHARE = 0.25
_LEAST_PIXELS = 9
_LEAST_KNOWN = 0.05
_MOST_SAMPLES = 4096
_ENCODINGS = {"16UC1": (np.uint16, 0.001), "mono16": (np.uint16, 0.001), "32FC1": (np.float32, 1.0)}
# The standard deviation of a normal distribution, from its median absolute deviation.
_DEVIATION = 1.4826


class Depth(NamedTuple):
    """The visible surface of a target, in meters along the optical axis.

    Attributes:
        distance: the median.
        deviation: robust standard deviation of the pixels' depths.
        extent: from the 5th to the 95th percentile.
    """

    distance: float
    deviation: float
    extent: float


def target_depth(depth: NDArray[Any], box: Box, unit: float = 1.0) -> Depth | None:
    """Return the depth of the target in a box.

    The target is the nearest surface that has at least a quarter of the known depths in the middle
    of the box. So the background seen through gaps and small things in front do not count. None if
    too few depths are known: fewer than 9 pixels, or less than 5 % of the middle.

    Args:
        depth: (H, W) in multiples of `unit`; 0, negative, infinite and NaN are unknown.
        box: (x, y, w, h) in pixels of the depth image; may extend beyond its border.
        unit: in meters.
    """
    x, y, w, h = box
    columns = _middle(x, w, depth.shape[1])
    rows = _middle(y, h, depth.shape[0])
    middle = depth[rows, columns]
    step = int(np.ceil(np.sqrt(max(middle.size / _MOST_SAMPLES, 1.0))))
    middle = middle[::step, ::step]
    known = unit * np.sort(middle[np.isfinite(middle) & (middle > 0)].astype(np.float64))
    if len(known) < max(_LEAST_PIXELS, _LEAST_KNOWN * middle.size):
        return None
    # For each depth, how many are between it and the farthest of the same surface.
    reach = np.searchsorted(known, known * _SAME_SURFACE, side="right") - np.arange(len(known))
    first = int(np.argmax(reach >= _LEAST_SHARE * len(known)))
    if reach[first] < max(_LEAST_PIXELS, _LEAST_SHARE * len(known)):
        return None
    near = int(np.searchsorted(known, known[first] * _SAME_SURFACE, side="right"))
    begin = first + int(np.argmax(reach[first:near]))
    surface = known[begin : begin + reach[begin]]
    distance = float(np.median(surface))
    deviation = _DEVIATION * float(np.median(np.abs(surface - distance)))
    low, high = np.quantile(surface, (0.05, 0.95)).tolist()
    return Depth(distance, deviation, high - low)


def _middle(start: float, length: float, limit: int) -> slice:
    """The pixels of the middle of one side of a box, at least one if they are in the image."""
    margin = (1 - _MIDDLE) / 2 * length
    first = int(np.clip(np.floor(start + margin), 0, limit))
    last = int(np.clip(np.ceil(start + length - margin), 0, limit))
    return slice(first, last)


def depth_image(message: Any) -> tuple[NDArray[Any], float]:
    """Return the pixels of a sensor_msgs/Image, not copied, and their unit in meters.

    16UC1 (or mono16) is in millimeters, 32FC1 in meters (REP 118).
    """
    if message.encoding not in _ENCODINGS:
        known = ", ".join(_ENCODINGS)
        raise ImageError(f"depth is encoded as one of {known}, not {message.encoding[:64]!r}")
    kind, unit = _ENCODINGS[message.encoding]
    dtype = np.dtype(kind).newbyteorder(">" if message.is_bigendian else "<")
    shape = (message.height, message.width * dtype.itemsize, 1)
    rows = view_bytes(message.data, shape, message.step, message.encoding)
    return rows[..., 0].view(dtype), unit
