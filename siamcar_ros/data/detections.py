"""Detection2D messages as boxes, whatever Python class they are of: rclpy's or rosbags'."""

from __future__ import annotations

from typing import Any

import numpy as np

Box = tuple[float, float, float, float]


def stamp_of(message: Any) -> int:
    """The header's stamp in nanoseconds."""
    stamp = message.header.stamp
    return int(stamp.sec) * 10**9 + int(stamp.nanosec)


def detection_box(message: Any) -> Box | None:
    """Box of a Detection2D of any Python class; None where it shows no target.

    vision_msgs before 4 has the centre's x and y directly in `bbox.center`; both are read.
    """
    bbox = message.bbox
    centre = getattr(bbox.center, "position", bbox.center)
    x, y, width, height = float(centre.x), float(centre.y), float(bbox.size_x), float(bbox.size_y)
    if not (np.isfinite((x, y, width, height)).all() and width > 0 and height > 0):
        return None
    return (x - width / 2, y - height / 2, width, height)
