"""Rays from the camera through points of its image, and the bearing of a target."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from geometry_msgs.msg import Vector3
from numpy.typing import ArrayLike, NDArray

from siamcar_ros.geometry import Box
from siamcar_ros.msg import Bearing

_FISHEYE = ("equidistant", "fisheye")
# The models that both ROS and OpenCV know. Without a name, the number of coefficients decides.
_UNDERSTOOD = ("", "plumb_bob", "rational_polynomial", *_FISHEYE)
_WIDEST = math.tan(math.radians(89))
MOST_STRETCH = 0.02
"""By which share the aspect ratio of a scaled image may differ: its sides are whole pixels."""

# The variance of a uniform distribution over a length of 1, and by which share a score of 1 reduces
# it.
_UNIFORM, _SURE = 1 / 12, 0.75


class CameraModelError(ValueError):
    """No ray can be computed from a camera_info; the message says why."""


def corner_rays(
    info: Any, box: Box, image_size: tuple[int, int], *, rectified: bool
) -> NDArray[np.float64]:
    """Return the rays through a box's corners, clockwise from the top left, as (4, 2).

    Args:
        info: see `rays`.
        box: (x, y, w, h) in pixels of the image.
        image_size: see `rays`.
        rectified: see `rays`.

    Raises:
        CameraModelError: see `rays`.
    """
    x, y, w, h = box
    corners = [[x, y], [x + w, y], [x + w, y + h], [x, y + h]]
    return rays(info, corners, image_size, rectified=rectified)


def middle_rays(
    info: Any, box: Box, image_size: tuple[int, int], *, rectified: bool
) -> NDArray[np.float64]:
    """Return the rays through a box's center and the middles of its sides, as (5, 2).

    The sides are the left, right, upper and lower one. Arguments and errors are those of
    `corner_rays`.
    """
    x, y, w, h = box
    cx, cy = x + w / 2, y + h / 2
    points = [[cx, cy], [x, cy], [x + w, cy], [cx, y], [cx, y + h]]
    return rays(info, points, image_size, rectified=rectified)


def bearing(
    info: Any, box: Box, score: float, image_size: tuple[int, int], *, rectified: bool
) -> Bearing:
    """Return the bearing of a box's center in the camera's optical frame.

    The covariance assumes that the target's center is distributed uniformly over the box at a score
    of 0, and with half that standard deviation at a score of 1.

    Args:
        info: see `rays`.
        box: (x, y, w, h) in pixels of the image.
        score: of the target, in [0, 1].
        image_size: see `rays`.
        rectified: see `rays`.

    Raises:
        CameraModelError: see `rays`.
    """
    across, down = middle_rays(info, box, image_size, rectified=rectified).T
    azimuth = np.arctan(across)
    elevation = np.arctan2(-down, np.hypot(across, 1.0))
    direction = np.array([across[0], down[0], 1.0])
    direction /= np.linalg.norm(direction)
    share = _UNIFORM * (1 - _SURE * score)
    variances = share * (azimuth[2] - azimuth[1]) ** 2, share * (elevation[3] - elevation[4]) ** 2
    return Bearing(
        direction=Vector3(**dict(zip("xyz", direction.tolist(), strict=True))),
        azimuth=float(azimuth[0]),
        elevation=float(elevation[0]),
        covariance=[float(variances[0]), 0.0, 0.0, float(variances[1])],
    )


def rays(
    info: Any, points: ArrayLike, image_size: tuple[int, int], *, rectified: bool
) -> NDArray[np.float64]:
    """Return where the rays through points of the image meet the plane 1 m in front of the camera.

    Args:
        info: sensor_msgs/CameraInfo. Its distortion is undone (plumb_bob, rational_polynomial and
            equidistant models), a stereo camera's R applied; binning and region of interest are
            taken into account.
        points: (N, 2), x and y in pixels of the image.
        image_size: width and height of the image; one scaled from camera_info's size, by the same
            factor in both directions, is allowed.
        rectified: the image is rectified, so P is used and no distortion.

    Returns:
        (N, 2): x to the right and y downward, in the optical frame.

    Raises:
        CameraModelError: the camera is not calibrated, or its calibration does not fit this image.
    """
    matrix, distortion, turn, fisheye = _lens(info, rectified=rectified)
    scale, offset = _to_sensor(info, image_size)
    pixels = np.asarray(points, np.float64) * scale + offset
    try:
        undistort = cv2.fisheye.undistortPoints if fisheye else cv2.undistortPoints
        found = undistort(pixels[:, None], matrix, distortion, R=turn)
    except cv2.error as error:
        raise _not_understood(info) from error
    found = np.asarray(found, np.float64).reshape(-1, 2)
    if not np.isfinite(found).all():
        raise CameraModelError("camera_info gives no finite ray: its numbers are not a camera's")
    # Where an equidistant lens sees more than 90 degrees off its axis, OpenCV silently clips.
    angles = np.hypot(*((pixels - matrix[:2, 2]) / matrix[[0, 1], [0, 1]]).T)
    if np.hypot(*found.T).max() > _WIDEST or (fisheye and angles.max() >= math.pi / 2):
        raise CameraModelError("the box reaches 89 degrees and more off the camera's axis")
    return found


def project(
    info: Any, directions: ArrayLike, image_size: tuple[int, int], *, rectified: bool
) -> NDArray[np.float64]:
    """Return where points are seen in the image: the inverse of `rays`.

    Args:
        info: see `rays`.
        directions: (N, 3), points or directions in the optical frame, all with z > 0.
        image_size: see `rays`.
        rectified: see `rays`.

    Returns:
        (N, 2): x and y in pixels of the image, possibly outside it.

    Raises:
        CameraModelError: see `rays`.
    """
    matrix, distortion, turn, fisheye = _lens(info, rectified=rectified)
    scale, offset = _to_sensor(info, image_size)
    raw = np.asarray(directions, np.float64) @ turn  # the inverse of the turn
    none = np.zeros(3)
    try:
        onto = cv2.fisheye.projectPoints if fisheye else cv2.projectPoints
        found, _ = onto(raw[:, None], none, none, matrix, distortion)
    except cv2.error as error:
        raise _not_understood(info) from error
    return (np.asarray(found, np.float64).reshape(-1, 2) - offset) / scale


def _lens(
    info: Any, *, rectified: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], bool]:
    """Return camera matrix, distortion, rotation into the optical frame, and if it is a fisheye.

    The optical frame is that of the rectified image: R rotates a stereo camera's raw rays into it.
    """
    if rectified:
        matrix = np.array(info.p, np.float64).reshape(3, 4)[:, :3]
        distortion, turn = np.zeros(4), np.eye(3)
    else:
        matrix = np.array(info.k, np.float64).reshape(3, 3)
        distortion = np.array(info.d, np.float64)
        turn = np.array(info.r, np.float64).reshape(3, 3)
        if not turn.any():  # not filled in
            turn = np.eye(3)
    if not (matrix[0, 0] > 0 and matrix[1, 1] > 0):  # or they are NaN
        which = "P" if rectified else "K"
        raise CameraModelError(f"camera_info's {which} has no focal length: calibrate the camera")
    if not distortion.any():
        distortion = np.zeros(4)
    elif info.distortion_model not in _UNDERSTOOD:
        raise CameraModelError(f"distortion model {info.distortion_model!r} is not understood")
    elif info.distortion_model in _FISHEYE:
        return matrix, distortion[:4], turn, True
    return matrix, distortion, turn, False


def _not_understood(info: Any) -> CameraModelError:
    return CameraModelError(
        f"distortion model {info.distortion_model!r} with {len(info.d)} coefficients is not "
        "understood"
    )


def _to_sensor(
    info: Any, image_size: tuple[int, int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scale (2,) and offset (2,) from image coordinates to those of K and P."""
    binning = np.array([max(1, info.binning_x), max(1, info.binning_y)], np.float64)
    roi = info.roi
    region = np.array([roi.width or info.width, roi.height or info.height], np.float64)
    # The camera sent region / binning pixels; an image of another size has been scaled.
    scale = np.where(region > 0, region / np.array(image_size), binning)
    stretch = (scale[0] / binning[0]) / (scale[1] / binning[1])
    if abs(stretch - 1) > MOST_STRETCH:
        sent = " by ".join(f"{each:g}" for each in region / binning)
        raise CameraModelError(
            f"camera_info is for images of {sent}, these are {image_size[0]} by {image_size[1]}"
        )
    # The origin of boxes is the corner of the first pixel, that of camera models its center.
    return scale, np.array([roi.x_offset, roi.y_offset]) - 0.5
