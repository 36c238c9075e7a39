"""RViz markers: the pyramid from the camera through the target's box, and its label."""

from __future__ import annotations

from typing import Any

import numpy as np
from geometry_msgs.msg import Point
from numpy.typing import NDArray
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from siamcar_ros.tracking import TrackResult
from siamcar_ros.tracking.overlay import COLORS, label

_FRUSTUM, _LABEL = "target_frustum", "target_label"
# Seconds after which a marker goes when no other follows, as when the node has ended.
_LIFETIME = 1


def frustum(
    header: Any,
    index: int,
    rays: NDArray[np.float64],
    depth: float,
    target: str,
    result: TrackResult,
) -> list[Marker]:
    """The pyramid's edges and, at its far end, id, score and state, colored by the state.

    Both are in the image's frame.
    """
    marker, text = (
        Marker(header=header, ns=namespace, id=index, type=kind, action=Marker.ADD)
        for namespace, kind in ((_FRUSTUM, Marker.LINE_LIST), (_LABEL, Marker.TEXT_VIEW_FACING))
    )
    blue, green, red = (channel / 255 for channel in COLORS[result.state])
    for each in (marker, text):
        each.lifetime.sec = _LIFETIME
        each.pose.orientation.w = 1.0
        each.color = ColorRGBA(r=red, g=green, b=blue, a=1.0)
    marker.scale.x = 0.004 * depth
    text.scale.z = 0.05 * depth
    text.text = label(target, result)
    x, y = rays.min(0).tolist()
    text.pose.position = Point(x=depth * x, y=depth * y - text.scale.z, z=depth)
    apex = Point()
    corners = [Point(x=depth * x, y=depth * y, z=depth) for x, y in rays.tolist()]
    for corner, following in zip(corners, corners[1:] + corners[:1], strict=True):
        marker.points += [apex, corner, corner, following]
    return [marker, text]


def frusta(markers: list[Marker], header: Any) -> MarkerArray:
    """All markers of one image; what was shown before goes."""
    clear = Marker(header=header, ns=_FRUSTUM, action=Marker.DELETEALL)
    return MarkerArray(markers=[clear, *markers])
