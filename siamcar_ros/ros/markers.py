"""RViz markers: the pyramid from the camera through the target's box."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from geometry_msgs.msg import Point
from numpy.typing import NDArray
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from siamcar_ros.tracking import TrackResult
from siamcar_ros.tracking.overlay import COLORS

Box = tuple[float, float, float, float]

_NAMESPACE = "target_frustum"
_FISHEYE = ("equidistant", "fisheye")
# Those that ROS names and OpenCV has; without a name it goes by the number of coefficients.
_UNDERSTOOD = ("", "plumb_bob", "rational_polynomial", *_FISHEYE)
_WIDEST = math.tan(math.radians(89))
# An image scaled to whole pixels may differ so much from its camera's proportions.
_MOST_STRETCH = 0.02
# Seconds after which a frustum goes when no other follows, as when the node has ended.
_LIFETIME = 1


class CameraModelError(ValueError):
    """A camera_info that no ray can be computed from; the message says why."""


def corner_rays(
    info: Any, box: Box, image_size: tuple[int, int], *, rectified: bool
) -> NDArray[np.float64]:
    """Where the rays through a box's corners meet the plane one metre before the camera.

    Args:
        info: sensor_msgs/CameraInfo. Its distortion is undone (plumb_bob, rational_polynomial and
            equidistant models); binning and region of interest are taken into account.
        box: (x, y, w, h) in pixels of the image.
        image_size: width and height of the image; one scaled from camera_info's size, by the same
            factor in both directions, is allowed.
        rectified: the image is rectified, so P is used and no distortion.

    Returns:
        (4, 2): x to the right and y downward, in the optical frame; corners clockwise from the top
        left.

    Raises CameraModelError where the camera is not calibrated, or its calibration is not one of
    this image.
    """
    if rectified:
        matrix = np.array(info.p, np.float64).reshape(3, 4)[:, :3]
        distortion = np.zeros(0)
    else:
        matrix = np.array(info.k, np.float64).reshape(3, 3)
        distortion = np.array(info.d, np.float64)
    if not (matrix[0, 0] > 0 and matrix[1, 1] > 0):  # NaN is no focal length, either
        which = "P" if rectified else "K"
        raise CameraModelError(f"camera_info's {which} has no focal length: calibrate the camera")
    x, y, w, h = box
    corners = np.array([[x, y], [x + w, y], [x + w, y + h], [x, y + h]], np.float64)
    corners = _full_resolution(corners, info, image_size)
    if distortion.any() and info.distortion_model not in _UNDERSTOOD:
        raise CameraModelError(f"distortion model {info.distortion_model!r} is not understood")
    fisheye = distortion.any() and info.distortion_model in _FISHEYE
    try:
        if fisheye:
            rays = cv2.fisheye.undistortPoints(corners[:, None], matrix, distortion[:4])
        else:
            rays = cv2.undistortPoints(
                corners[:, None], matrix, distortion if distortion.size else None
            )
    except cv2.error as error:
        raise CameraModelError(
            f"distortion model {info.distortion_model!r} with {distortion.size} coefficients is "
            "not understood"
        ) from error
    rays = np.asarray(rays, np.float64).reshape(4, 2)
    if not np.isfinite(rays).all():
        raise CameraModelError("camera_info gives no finite ray: its numbers are not a camera's")
    # An equidistant lens shows an angle as a distance; OpenCV stops at 90 degrees unsaid.
    angles = np.hypot(*((corners - matrix[:2, 2]) / matrix[[0, 1], [0, 1]]).T)
    if np.hypot(*rays.T).max() > _WIDEST or (fisheye and angles.max() >= math.pi / 2):
        raise CameraModelError("the box reaches 89 degrees and more off the camera's axis")
    return rays


def _full_resolution(
    points: NDArray[np.float64], info: Any, image_size: tuple[int, int]
) -> NDArray[np.float64]:
    """Edges of pixels in the image -> sample positions on the sensor, which K and P speak of."""
    binning = np.array([max(1, info.binning_x), max(1, info.binning_y)], np.float64)
    roi = info.roi
    region = np.array([roi.width or info.width, roi.height or info.height], np.float64)
    # What the camera sent has region / binning pixels; an image of another size was scaled since.
    scale = np.where(region > 0, region / np.array(image_size), binning)
    stretch = (scale[0] / binning[0]) / (scale[1] / binning[1])
    if abs(stretch - 1) > _MOST_STRETCH:
        sent = " by ".join(f"{each:g}" for each in region / binning)
        raise CameraModelError(
            f"camera_info is for images of {sent}, these are {image_size[0]} by {image_size[1]}"
        )
    # Boxes count from pixels' edges, camera models from their middles.
    return points * scale + np.array([roi.x_offset, roi.y_offset]) - 0.5


def frustum(
    header: Any, index: int, rays: NDArray[np.float64], depth: float, result: TrackResult
) -> Marker:
    """The pyramid's edges as a LINE_LIST in the image's frame, coloured by the track's state."""
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
