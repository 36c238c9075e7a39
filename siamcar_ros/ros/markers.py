"""RViz markers: the pyramid from the camera through the target's box."""

from __future__ import annotations

from typing import Any

import numpy as np
from geometry_msgs.msg import Point
from numpy.typing import NDArray
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from siamcar_ros.tracking import TrackResult
from siamcar_ros.tracking.overlay import COLORS

_NAMESPACE = "target_frustum"
# Seconds after which a frustum goes when no other follows, as when the node has ended.
_LIFETIME = 1


def frustum(
    header: Any, index: int, rays: NDArray[np.float64], depth: float, result: TrackResult
) -> Marker:
    """The pyramid's edges as a LINE_LIST in the image's frame, colored by the track's state."""
    marker = Marker(header=header, ns=_NAMESPACE, id=index, type=Marker.LINE_LIST)
    marker.action = Marker.ADD
    marker.lifetime.sec = _LIFETIME
    marker.pose.orientation.w = 1.0
    marker.scale.x = 0.004 * depth
    blue, green, red = (channel / 255 for channel in COLORS[result.state])
    marker.color = ColorRGBA(r=red, g=green, b=blue, a=1.0)
    apex = Point()
    corners = [Point(x=depth * x, y=depth * y, z=depth) for x, y in rays.tolist()]
    for corner, following in zip(corners, corners[1:] + corners[:1], strict=True):
        marker.points += [apex, corner, corner, following]
    return marker


def frusta(markers: list[Marker], header: Any) -> MarkerArray:
    """All frusta of one image; what was shown before goes."""
    clear = Marker(header=header, ns=_NAMESPACE, action=Marker.DELETEALL)
    return MarkerArray(markers=[clear, *markers])
