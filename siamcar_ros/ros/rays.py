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
# The models that both ROS and OpenCV know, and the numbers of coefficients that OpenCV takes.
# Without a name, the number decides.
_MODELS = ("", "plumb_bob", "rational_polynomial", *_FISHEYE)
_COUNTS = (4, 5, 8, 12, 14)
_WIDEST = math.tan(math.radians(89))
MOST_STRETCH = 0.02
"""Relative tolerance of the aspect ratio of a scaled image, as its sides are whole pixels."""

# The variance of a uniform distribution of width 1, and the share of it that a score of 1 removes.
_UNIFORM, _SURE = 1 / 12, 0.75


class CameraModelError(ValueError):
    """No ray can be computed from a camera_info; the message says why."""


class CameraModel:
    """The model of a camera, for images of one size.

    Rays are given by where they meet the plane 1 m in front of the camera, in its optical frame: x
    to the right, y downward. Points and boxes are in pixels of the image.

    Args:
        info: sensor_msgs/CameraInfo. Its distortion is undone (plumb_bob, rational_polynomial and
            equidistant models), a stereo camera's R applied; binning and region of interest are
            taken into account.
        image_size: width and height of the image; one scaled from camera_info's size, by the same
            factor in both directions, is allowed.
        rectified: the image is rectified, so P is used and no distortion.

    Raises:
        CameraModelError: the camera is not calibrated, or its calibration does not fit this image.
            The methods raise it, too.
    """

    def __init__(self, info: Any, image_size: tuple[int, int], *, rectified: bool) -> None:
        self._fisheye = not rectified and info.distortion_model in _FISHEYE
        self._distortion, self._turn = np.zeros(4), np.eye(3)
        if rectified:
            self._matrix = np.array(info.p, np.float64).reshape(3, 4)[:, :3]
        else:
            self._matrix = np.array(info.k, np.float64).reshape(3, 3)
            if np.any(info.d):
                self._distortion = np.array(info.d[:4] if self._fisheye else info.d, np.float64)
            if np.any(info.r):
                self._turn = np.array(info.r, np.float64).reshape(3, 3)
        if not (self._matrix[0, 0] > 0 and self._matrix[1, 1] > 0):  # or they are NaN
            which = "P" if rectified else "K"
            raise CameraModelError(
                f"camera_info's {which} has no focal length: calibrate the camera"
            )
        count = len(self._distortion)
        if self._distortion.any() and not (info.distortion_model in _MODELS and count in _COUNTS):
            name = info.distortion_model
            raise CameraModelError(
                f"distortion model {name!r} with {count} coefficients is not understood"
            )

        # The camera sent region / binning pixels; an image of another size has been scaled.
        binning = np.array([max(1, info.binning_x), max(1, info.binning_y)], np.float64)
        roi = info.roi
        region = np.array([roi.width or info.width, roi.height or info.height], np.float64)
        self._scale = np.where(region > 0, region / np.array(image_size), binning)
        stretch = self._scale / binning
        if abs(stretch[0] / stretch[1] - 1) > MOST_STRETCH:
            sent = " by ".join(f"{each:g}" for each in region / binning)
            raise CameraModelError(
                f"camera_info is for images of {sent}, these are {image_size[0]} by {image_size[1]}"
            )
        # The origin of boxes is the corner of the first pixel, that of camera models its center.
        self._offset = np.array([roi.x_offset, roi.y_offset]) - 0.5

    def rays(self, points: ArrayLike) -> NDArray[np.float64]:
        """Return the rays (N, 2) through points (N, 2) of the image."""
        pixels = np.asarray(points, np.float64) * self._scale + self._offset
        undistort = cv2.fisheye.undistortPoints if self._fisheye else cv2.undistortPoints
        found = undistort(pixels[:, None], self._matrix, self._distortion, R=self._turn)
        found = np.asarray(found, np.float64).reshape(-1, 2)
        if not np.isfinite(found).all():
            raise CameraModelError(
                "camera_info gives no finite ray: its numbers are not a camera's"
            )
        # Where an equidistant lens sees more than 90 degrees off its axis, OpenCV silently clips.
        offsets = (pixels - self._matrix[:2, 2]) / self._matrix[[0, 1], [0, 1]]
        clipped = self._fisheye and np.hypot(*offsets.T).max() >= math.pi / 2
        if clipped or np.hypot(*found.T).max() > _WIDEST:
            raise CameraModelError("the box reaches 89 degrees and more off the camera's axis")
        return found

    def corner_rays(self, box: Box) -> NDArray[np.float64]:
        """Return the rays (4, 2) through a box's corners, clockwise from the top left."""
        x, y, w, h = box
        return self.rays([[x, y], [x + w, y], [x + w, y + h], [x, y + h]])

    def middle_rays(self, box: Box) -> NDArray[np.float64]:
        """Return the rays (5, 2) through a box's center and the middles of its sides.

        The sides are the left, right, upper and lower one.
        """
        x, y, w, h = box
        cx, cy = x + w / 2, y + h / 2
        return self.rays([[cx, cy], [x, cy], [x + w, cy], [cx, y], [cx, y + h]])

    def bearing(self, box: Box, score: float) -> Bearing:
        """Return the bearing of a box's center in the camera's optical frame.

        The covariance assumes that the target's center is distributed uniformly over the box at a
        score of 0, and with half that standard deviation at a score of 1.
        """
        across, down = self.middle_rays(box).T
        azimuth = np.arctan(across)
        elevation = np.arctan2(-down, np.hypot(across, 1.0))
        direction = np.array([across[0], down[0], 1.0])
        x, y, z = (direction / np.linalg.norm(direction)).tolist()
        share = _UNIFORM * (1 - _SURE * score)
        sides = azimuth[2] - azimuth[1], elevation[3] - elevation[4]
        variances = [float(share * side**2) for side in sides]
        return Bearing(
            direction=Vector3(x=x, y=y, z=z),
            azimuth=float(azimuth[0]),
            elevation=float(elevation[0]),
            covariance=[variances[0], 0.0, 0.0, variances[1]],
        )

    def project(self, directions: ArrayLike) -> NDArray[np.float64]:
        """Return where points or directions (N, 3), with z > 0, are seen: the inverse of `rays`.

        The result (N, 2) may lie outside the image.
        """
        raw = np.asarray(directions, np.float64) @ self._turn  # the inverse of the turn
        onto = cv2.fisheye.projectPoints if self._fisheye else cv2.projectPoints
        none = np.zeros(3)
        found, _ = onto(raw[:, None], none, none, self._matrix, self._distortion)
        return (np.asarray(found, np.float64).reshape(-1, 2) - self._offset) / self._scale
