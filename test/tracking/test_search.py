"""Where a lost target is looked for, and how the camera's motion is seen."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siamcar_ros.tracking import motion, search
from siamcar_ros.tracking.stored_image import StoredImage


@given(
    width=st.integers(40, 2000),
    height=st.integers(40, 1500),
    side=st.floats(20, 3000),
    budget=st.integers(1, 5),
    x=st.floats(-1000, 3000),
)
@settings(max_examples=60, deadline=None)
def test_the_whole_frame_is_covered_in_turn_from_the_nearest(
    width: int, height: int, side: float, budget: int, x: float
) -> None:
    seen = np.zeros((-(-height // 10), -(-width // 10)), bool)
    ys, xs = (np.arange(n) * 10 for n in seen.shape)
    distances: list[float] = []
    for frame in range(20000):
        regions = search.elsewhere((x, 50.0), side, (width, height), frame * budget, budget)
        assert 1 <= len(regions) <= budget
        for (cx, cy), factor, coarse in regions:
            half = (0.75 if coarse else 0.6) * side * factor / 2 + 1e-6
            seen |= (np.abs(ys - cy) <= half)[:, None] & (np.abs(xs - cx) <= half)
            distances.append(np.hypot(cx - x, cy - 50))
        if seen.all():
            break
    assert seen.all()
    assert distances[0] == min(distances)


def test_large_frames_are_searched_coarsely_in_a_third_of_the_regions() -> None:
    def regions(width: int, height: int) -> list[search.Region]:
        return search.elsewhere((0.0, 0.0), 80.0, (width, height), 0, 1000)

    fine, coarse = regions(480, 270), regions(1920, 1080)
    assert not any(each.coarse for each in fine)
    assert all(each.coarse for each in coarse)
    assert len(coarse) < 16 * len(fine) / 3
    assert not any(each.coarse for each in regions(1500, 600))  # 25 by 10
    assert all(each.coarse for each in regions(1501, 600))
    plain = search.elsewhere((0.0, 0.0), 80.0, (1920, 1080), 0, 1000, coarse=False)
    assert len(plain) > 12 * len(fine)
    assert not any(each.coarse for each in plain)


def test_what_lies_near_is_searched_at_its_own_scale_and_a_coarser_one() -> None:
    factors = [search.near((5.0, 6.0), frames).factor for frames in range(8)]
    assert set(factors[:2]) == {1.0, 1.5}
    assert factors[:2] * 4 == factors


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    noise = np.random.default_rng(3).integers(0, 256, (90, 120, 3), np.uint8)
    return cv2.resize(noise, (1600, 1200), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (640, 480), (200, 160)])
def test_the_camera_s_motion_is_measured_in_image_pixels(
    scene: np.ndarray, width: int, height: int
) -> None:
    scene = cv2.resize(scene, (width * 5 // 4, height * 5 // 4), interpolation=cv2.INTER_AREA)
    dx, dy = round(0.03 * width), round(-0.02 * height)
    first = scene[60 : 60 + height - 60, 40 : 40 + width - 40].copy()
    second = scene[60 - dy : height - dy, 40 - dx : width - dx].copy()
    first[-height // 3 :, : width // 3] = second[-height // 3 :, : width // 3] = 0
    shift = motion.camera_shift(
        motion.thumbnail(first), motion.thumbnail(second), first.shape[1::-1]
    )
    assert shift == pytest.approx((dx, dy), abs=0.004 * width)


def test_the_camera_s_motion_in_a_wide_strip(scene: np.ndarray) -> None:
    first, second = scene[100:200, :1500], scene[106:206, 8:1508]
    shift = motion.camera_shift(motion.thumbnail(first), motion.thumbnail(second), (1500, 100))
    assert shift == pytest.approx((-8, -6), abs=1.5)


def test_no_motion_is_claimed_where_none_can_be_seen(scene: np.ndarray) -> None:
    gray = motion.thumbnail(np.full((480, 640, 3), 90, np.uint8))
    other = motion.thumbnail(np.random.default_rng(4).integers(0, 256, (480, 640, 3), np.uint8))
    assert motion.camera_shift(motion.thumbnail(scene), other, (640, 480)) == (0, 0)
    assert motion.camera_shift(gray, gray, (640, 480)) == (0, 0)
    assert motion.camera_shift(gray, motion.thumbnail(scene[:300]), (640, 480)) == (0, 0)


def test_the_small_copy_does_not_depend_on_the_order_of_channels(scene: np.ndarray) -> None:
    small = motion.thumbnail(scene)
    for order, image in (
        ("bgra", np.dstack((scene, scene[..., 0]))),
        ("rgb", np.ascontiguousarray(scene[..., ::-1])),
    ):
        np.testing.assert_allclose(motion.thumbnail(StoredImage(image, order)), small, atol=1)
    gray = np.ascontiguousarray(scene[..., 0])
    assert motion.thumbnail(gray).shape == small.shape
