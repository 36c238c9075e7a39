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
# Seconds after which RViz removes a marker that is not replaced, as when the node has ended.
_LIFETIME = 1


def frustum(
    header: Any,
    index: int,
    rays: NDArray[np.float64],
    depth: float,
    target: str,
    result: TrackResult,
) -> list[Marker]:
    """Return the markers of one target, colored by its state: pyramid, and label at its far end.

    `index` tells the targets apart, `rays` are the four through the box's corners, `depth` is that
    of the pyramid in meters.
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
    """Return the message for all markers of one image, which replace the previous ones."""
    clear = Marker(header=header, ns=_FRUSTUM, action=Marker.DELETEALL)
    return MarkerArray(markers=[clear, *markers])
