"""Rays and bearings of boxes, through the models of cameras."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from node_harness import BOX, camera_info
from sensor_msgs.msg import CameraInfo

from siamcar_ros.geometry import Box
from siamcar_ros.ros.rays import CameraModel, CameraModelError


def corner_rays(
    info: CameraInfo, box: Box, size: tuple[int, int], *, rectified: bool
) -> np.ndarray:
    return CameraModel(info, size, rectified=rectified).corner_rays(box)


@pytest.mark.parametrize(
    "info",
    [
        camera_info("plumb_bob", [0.0] * 5),
        camera_info("plumb_bob", [-0.2, 0.05, 0.001, -0.001, 0.0]),
        camera_info("rational_polynomial", [-0.2, 0.05, 0.001, -0.001, 0.0, 0.01, 0.0, 0.0]),
        camera_info("equidistant", [0.05, -0.01, 0.0, 0.0]),
    ],
)
def test_rays_project_back_onto_the_corners(info: CameraInfo) -> None:
    rays = corner_rays(info, BOX, (320, 240), rectified=False)
    points = np.column_stack([rays, np.ones(4)])[:, None]
    matrix, coefficients = np.array(info.k).reshape(3, 3), np.array(info.d)
    zero = np.zeros(3)
    if info.distortion_model == "equidistant":
        pixels, _ = cv2.fisheye.projectPoints(points, zero, zero, matrix, coefficients)
    else:
        pixels, _ = cv2.projectPoints(points, zero, zero, matrix, coefficients)
    x, y, w, h = BOX
    corners = np.array([[x, y], [x + w, y], [x + w, y + h], [x, y + h]]) - 0.5
    np.testing.assert_allclose(pixels.reshape(4, 2), corners, atol=1e-2)


@pytest.mark.parametrize("coefficients", [[], [0.0] * 4])
def test_an_equidistant_lens_without_coefficients_is_no_pinhole(coefficients: list[float]) -> None:
    ideal = CameraModel(camera_info("equidistant", coefficients), (320, 240), rectified=False)
    # K has a focal length of 300 pixels: 150 pixels to the right is half a radian.
    ((x, y),) = ideal.rays([[160 + 150 + 0.5, 120.5]])
    assert (math.atan(x), y) == pytest.approx((0.5, 0.0))


def test_rays_know_binning_regions_scaling_and_rectified_images() -> None:
    whole = corner_rays(camera_info(), BOX, (320, 240), rectified=False)
    binned = camera_info()
    binned.binning_x = binned.binning_y = 2
    x, y, w, h = BOX
    half = (x / 2, y / 2, w / 2, h / 2)
    np.testing.assert_allclose(corner_rays(binned, half, (160, 120), rectified=False), whole)
    np.testing.assert_allclose(corner_rays(camera_info(), half, (160, 120), rectified=False), whole)
    region = camera_info()
    region.roi.x_offset, region.roi.y_offset, region.roi.width, region.roi.height = (
        100,
        80,
        160,
        120,
    )
    moved = (x - 100, y - 80, w, h)
    np.testing.assert_allclose(corner_rays(region, moved, (160, 120), rectified=False), whole)
    with pytest.raises(CameraModelError, match="P has no focal length"):
        corner_rays(camera_info(), BOX, (320, 240), rectified=True)
    with pytest.raises(CameraModelError, match="images of 160 by 120, these are 160 by 90"):
        corner_rays(binned, half, (160, 90), rectified=False)
    with pytest.raises(CameraModelError, match="'plumb_bob' with 3 coefficients"):
        corner_rays(camera_info("plumb_bob", [0.1] * 3), BOX, (320, 240), rectified=False)


def test_a_camera_that_cannot_be_is_refused() -> None:
    nowhere, wild = camera_info(), camera_info()
    nowhere.k = [math.nan] * 9
    wild.k[2] = math.nan
    wide = camera_info("equidistant", [1e-9, 0.0, 0.0, 0.0])
    wide.k[0] = wide.k[4] = 60.0
    for info, reason in (
        (nowhere, "K has no focal length"),
        (wild, "no finite ray"),
        (camera_info("plumb_bob", [math.nan] * 5), "no finite ray"),
        (
            camera_info("kannala_brandt4", [0.01] * 4),
            "'kannala_brandt4' with 4 coefficients is not understood",
        ),
        (wide, "89 degrees and more off"),
    ):
        with pytest.raises(CameraModelError, match=reason):
            corner_rays(info, (0.0, 100.0, 20.0, 20.0), (320, 240), rectified=False)


@pytest.mark.parametrize(
    ("info", "rectified"),
    [
        (camera_info("plumb_bob", [-0.2, 0.05, 0.001, -0.001, 0.0]), False),
        (camera_info("rational_polynomial", [-0.2, 0.05, 0.001, -0.001, 0.0, 0.01, 0, 0]), False),
        (camera_info("equidistant", [0.05, -0.01, 0.0, 0.0]), False),
        (camera_info("plumb_bob", [-0.2, 0.05, 0.001, -0.001, 0.0]), True),
    ],
)
def test_the_bearing_of_a_known_point_is_found(info: CameraInfo, rectified: bool) -> None:
    """A point up and to the right is projected into the image and found again."""
    azimuth, elevation = 0.2, 0.1
    point = np.array(
        [
            np.sin(azimuth) * np.cos(elevation),
            -np.sin(elevation),
            np.cos(azimuth) * np.cos(elevation),
        ]
    )
    matrix, zero = np.array(info.k).reshape(3, 3), np.zeros(3)
    coefficients = np.array(info.d)
    if rectified:
        info.p = [250.0, 0.0, 150.0, 0.0, 0.0, 250.0, 110.0, 0.0, 0.0, 0.0, 1.0, 0.0]
        matrix, coefficients = np.array(info.p).reshape(3, 4)[:, :3], np.zeros(4)
    if info.distortion_model == "equidistant":
        pixel, _ = cv2.fisheye.projectPoints(point[None, None], zero, zero, matrix, coefficients)
    else:
        pixel, _ = cv2.projectPoints(point[None, None], zero, zero, matrix, coefficients)
    x, y = (pixel.ravel() + 0.5).tolist()  # camera models count from pixels' centers
    model = CameraModel(info, (320, 240), rectified=rectified)
    found = model.bearing((x - 20, y - 10, 40, 20), 1.0)
    assert found.azimuth == pytest.approx(azimuth, abs=1e-4)
    assert found.elevation == pytest.approx(elevation, abs=1e-4)
    direction = [found.direction.x, found.direction.y, found.direction.z]
    np.testing.assert_allclose(direction, point, atol=1e-4)
    unsure = model.bearing((x - 20, y - 10, 40, 20), 0.0)
    np.testing.assert_allclose(unsure.covariance, 4 * found.covariance)
    # About 40 and 20 of some 300 pixels, uniform: a twelfth of the squares.
    deviations = np.sqrt(12 * unsure.covariance[[0, 3]])
    np.testing.assert_allclose(deviations, [40 / matrix[0, 0], 20 / matrix[1, 1]], rtol=0.25)
