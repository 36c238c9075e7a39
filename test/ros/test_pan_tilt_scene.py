"""The simulation's scene: its boxes are true to its pixels and to the camera's angles."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from siamcar_ros.ros.pan_tilt_scene import FOCAL, Scene, _read


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene()


def test_the_car_is_hidden_once_and_almost_wholly(scene: Scene) -> None:
    visible = []
    for seconds in np.arange(0, 26, 0.2):
        pan, tilt = scene.view(seconds, 0.0, 0.0).target
        visible.append(scene.view(seconds, pan, tilt).visible)
    hidden = np.flatnonzero(np.array(visible) < 0.5)
    assert np.ptp(hidden) == len(hidden) - 1  # one time
    assert 0.8 < 0.2 * len(hidden) < 2.0
    assert 0.03 < min(visible) < 0.2
    assert max(visible) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("seconds", [0.0, 4.0, 8.0, 17.0])
def test_a_camera_turned_to_the_car_has_it_in_the_middle(scene: Scene, seconds: float) -> None:
    pan, tilt = scene.view(seconds, 0.1, -0.05).target
    x, y, w, h = scene.view(seconds, pan, tilt).box
    assert (x + w / 2, y + h / 2) == pytest.approx((320, 240), abs=3)  # the box is not a point
    left, low, _, _ = scene.view(seconds, pan + 0.05, tilt + 0.04).box
    assert (x - left, low - y) == pytest.approx((0.05 * FOCAL, 0.04 * FOCAL), rel=0.05)


def test_the_box_is_around_the_car_s_pixels(scene: Scene) -> None:
    pan, tilt = scene.view(0.0, 0.0, 0.0).target
    with_car, elsewhere = (scene.view(at, pan, tilt) for at in (0.0, 9.0))
    changed = np.abs(with_car.image.astype(int) - elsewhere.image).max(2) > 60
    changed[:, 500:] = False
    rows, columns = np.nonzero(changed)
    x, y, w, h = with_car.box
    found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert found == pytest.approx((x, y, x + w, y + h), abs=6)


@pytest.mark.slow
def test_the_pictures_that_ship_were_made_by_the_clip_s_generator() -> None:
    from clip.panorama import car_sheet, panorama
    from clip.render import Clip

    clip = Clip(0)
    assert cv2.PSNR(panorama(clip), _read("panorama.jpg")) > 28
    assert cv2.PSNR(car_sheet(clip), _read("car.webp")) > 28
