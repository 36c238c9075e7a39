"""Detection2D messages as boxes, whatever Python class they are of: rclpy's or rosbags'."""

from __future__ import annotations

from typing import Any

import numpy as np

from siamcar_ros.geometry import Box, box_around


def stamp_of(message: Any) -> int:
    """The header's stamp in nanoseconds."""
    stamp = message.header.stamp
    return int(stamp.sec) * 10**9 + int(stamp.nanosec)


def detection_box(message: Any) -> Box | None:
    """Box of a Detection2D of any Python class; None where it shows no target.

    vision_msgs before 4 has the center's x and y directly in `bbox.center`; both are read.
    """
    bbox = message.bbox
    center = getattr(bbox.center, "position", bbox.center)
    x, y, width, height = float(center.x), float(center.y), float(bbox.size_x), float(bbox.size_y)
    if not (np.isfinite((x, y, width, height)).all() and width > 0 and height > 0):
        return None
    return box_around((x, y), (width, height))
