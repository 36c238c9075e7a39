"""Cutting: where each sample comes from, what lies beyond the border, and what it costs."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from siamcar_ros.geometry import context_side
from siamcar_ros.runtime.network import as_planes
from siamcar_ros.tracking.crop import crop_square, mean_color
from siamcar_ros.tracking.stored_image import CHANNELS, StoredImage

PADDING = (10.0, 120.0, 230.0)
Image = NDArray[np.uint8]


def crop(
    image: Image | StoredImage,
    center: tuple[float, float],
    step: float,
    n: int = 31,
    anchor: float = 15,
) -> Image:
    out = np.empty((n, n, 3), np.uint8)
    crop_square(image, center, step, anchor, PADDING, out)
    return out


def test_at_full_scale_the_pixels_come_as_they_are(frame: Image) -> None:
    # The middle of pixel (200, 300) is at (300.5, 200.5).
    np.testing.assert_array_equal(crop(frame, (300.5, 200.5), 1.0), frame[185:216, 285:316])


@given(x=st.floats(80, 120), y=st.floats(80, 120), step=st.floats(0.05, 3), anchor=st.floats(0, 30))
@settings(max_examples=60, deadline=None)
def test_each_sample_shows_its_place(x: float, y: float, step: float, anchor: float) -> None:
    # Blue grows with x and green with y, by one a pixel; OpenCV interpolates to 1/32 pixel.
    ramp = np.broadcast_to(np.arange(200, dtype=np.uint8), (200, 200))
    image = np.dstack((ramp, ramp.T, ramp))
    out = crop(image, (x, y), step, anchor=anchor)
    place = (np.arange(31) - anchor) * step
    inside = (place + x > 1) & (place + x < 199)
    expected = np.broadcast_to(x - 0.5 + place, (31, 31))
    assert np.abs(out[15, inside, 0] - expected[15, inside]).max() <= 0.6
    inside = (place + y > 1) & (place + y < 199)
    assert np.abs(out[inside, 15, 1] - (y - 0.5 + place)[inside]).max() <= 0.6


@given(dx=st.integers(-60, 60), dy=st.integers(-60, 60), step=st.floats(0.1, 3))
@settings(max_examples=40, deadline=None)
def test_a_frame_shifted_with_its_target_gives_the_same_crop(dx: int, dy: int, step: float) -> None:
    image = np.random.default_rng(1).integers(0, 256, (400, 400, 3), np.uint8)
    shifted = np.roll(image, (dy, dx), (0, 1))
    one = crop(image, (200.3, 199.6), step)
    other = crop(shifted, (200.3 + dx, 199.6 + dy), step)
    assert np.abs(one.astype(int) - other).max() <= 1


def test_beyond_the_border_lies_the_padding(frame: Image) -> None:
    out = crop(frame, (0.5, 0.5), 1.0)
    np.testing.assert_array_equal(out[:15], np.broadcast_to(PADDING, (15, 31, 3)))
    np.testing.assert_array_equal(out[:, :15], np.broadcast_to(PADDING, (31, 15, 3)))
    np.testing.assert_array_equal(out[15:, 15:], frame[:16, :16])


@pytest.mark.parametrize("center", [(-500.0, 100.0), (300.0, 9000.0), (1e7, -1e7)])
def test_a_square_wholly_outside_is_padding(frame: Image, center: tuple[float, float]) -> None:
    np.testing.assert_array_equal(crop(frame, center, 1.0), np.broadcast_to(PADDING, (31, 31, 3)))


@pytest.mark.parametrize("shape", [(1, 1), (1, 640), (480, 1), (2, 3)])
def test_frames_of_a_pixel_or_a_line(shape: tuple[int, int]) -> None:
    image = np.full((*shape, 3), 77, np.uint8)
    out = crop(image, (shape[1] / 2, shape[0] / 2), 0.01)
    assert (out[15, 15] == 77).all()


LAYOUTS: dict[str, Callable[[Image], Image]] = {
    "channels reversed": lambda image: image[..., ::-1].copy()[..., ::-1],
    "upside down": lambda image: image[::-1].copy()[::-1],
    "left to right": lambda image: image[:, ::-1].copy()[:, ::-1],
    "columns first": np.asfortranarray,
    "part of a wider frame": lambda image: np.pad(image, ((3, 5), (7, 9), (0, 0)))[3:-5, 7:-9],
    "every second pixel": lambda image: image.repeat(2, 0).repeat(2, 1)[::2, ::2],
    "read-only": lambda image: np.frombuffer(image.tobytes(), np.uint8).reshape(image.shape),
    "three of four channels": lambda image: np.dstack((image, image[..., 0]))[..., :3],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("step", [0.3, 1.7, 60.0])
def test_the_layout_in_memory_does_not_matter(frame: Image, layout: str, step: float) -> None:
    laid_out = LAYOUTS[layout](frame)
    np.testing.assert_array_equal(laid_out, frame)
    np.testing.assert_array_equal(
        crop(laid_out, (333.3, 200.2), step), crop(frame, (333.3, 200.2), step)
    )


ORDERS: dict[str, Callable[[Image], Image]] = {
    "bgr": lambda bgr: bgr,
    "rgb": lambda bgr: bgr[..., ::-1].copy(),
    "bgra": lambda bgr: np.dstack((bgr, bgr[..., 0])),
    "rgba": lambda bgr: np.dstack((bgr[..., ::-1], bgr[..., 0])),
    "gray": lambda bgr: bgr[..., 1].copy(),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("step", [0.3, 1.7, 60.0])
def test_the_order_of_the_channels_does_not_matter(frame: Image, order: str, step: float) -> None:
    assert set(ORDERS) == set(CHANNELS)
    stored = StoredImage(ORDERS[order](frame), order)
    seen = np.dstack([frame[..., 1]] * 3) if order == "gray" else frame
    np.testing.assert_array_equal(stored.bgr(), seen)
    inside = crop(stored, (333.3, 200.2), step), crop(seen, (333.3, 200.2), step)
    if order == "gray" and step > 10:  # the padding of a gray frame is gray
        inside = inside[0][14:17, 14:17], inside[1][14:17, 14:17]
    np.testing.assert_array_equal(*inside)
    assert mean_color(stored) == pytest.approx(mean_color(seen))


def test_grey_seen_as_three_channels(frame: Image) -> None:
    gray = frame[..., 0]
    view = np.broadcast_to(gray[..., None], frame.shape)
    for step in (0.3, 5.0):
        np.testing.assert_array_equal(
            crop(view, (320.3, 240.2), step)[10:20, 10:20],
            crop(np.dstack((gray, gray, gray)), (320.3, 240.2), step)[10:20, 10:20],
        )
    assert mean_color(view) == mean_color(gray)


def test_grey_and_bgra_are_read_as_bgr(frame: Image) -> None:
    gray = frame[..., 0]
    as_bgr = crop(np.dstack((gray, gray, gray)), (600.3, 470.8), 2.1)
    # The padding of a gray frame is gray, too.
    out = np.empty((31, 31, 3), np.uint8)
    for image in (gray, gray[..., None]):
        crop_square(image, (600.3, 470.8), 2.1, 15, (10, 10, 10), out)
        inside = (as_bgr != PADDING).all(2)
        np.testing.assert_array_equal(out[:8, :8], as_bgr[:8, :8])
        assert inside[:8, :8].all()
    # That of a track begun in color has the color's brightness.
    crop_square(gray, (600.3, 470.8), 2.1, 15, (255, 0, 0), out)
    assert out[-1, -1].tolist() == [29, 29, 29]
    bgra = np.dstack((frame, np.zeros(frame.shape[:2], np.uint8)))
    np.testing.assert_array_equal(crop(bgra, (600.3, 470.8), 2.1), crop(frame, (600.3, 470.8), 2.1))


def test_frames_longer_than_opencv_reads() -> None:
    ramp = np.linspace(0, 250, 70_000).astype(np.uint8)
    image = np.repeat(np.repeat(ramp[None, :, None], 60, axis=0), 3, axis=2)
    out = np.empty((127, 127, 3), np.uint8)
    step = 500.0
    crop_square(image, (35_000.0, 30.0), step, 63.0, (7.0, 7.0, 7.0), out)
    expected = np.interp(35_000 + step * (np.arange(127) - 63), np.arange(70_000), ramp)
    np.testing.assert_allclose(out[63, :, 1], expected, atol=3)
    assert (out[0] == 7).all()


def test_only_the_part_under_the_square_is_touched() -> None:
    # 30 GB, were it ever copied.
    frame = np.broadcast_to(np.array([5, 6, 7], np.uint8), (100_000, 100_000, 3))
    tracemalloc.start()
    try:
        assert (crop(frame, (70_000, 99_990), 0.5) == (5, 6, 7)).all()
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
        assert mean_color(frame) == (5, 6, 7)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


@given(w=st.floats(1e-3, 1e5), h=st.floats(1e-3, 1e5), factor=st.floats(1.001, 100))
def test_the_template_grows_with_the_target_and_holds_it(w: float, h: float, factor: float) -> None:
    side = context_side(w, h)
    assert context_side(w * factor, h * factor) == pytest.approx(side * factor)
    assert context_side(w, h * factor) > side
    assert side == pytest.approx(context_side(h, w))
    assert side * side >= 2 * w * h


def test_mean_color_reads_every_layout() -> None:
    image = np.zeros((10, 20, 4), np.uint8)
    image[:, :10] = (2, 4, 6, 200)
    assert mean_color(image) == mean_color(image[..., :3]) == (1, 2, 3)
    assert mean_color(image[..., 2]) == mean_color(image[..., 2:3]) == (3, 3, 3)


def test_planes_are_the_crops_channels_first(frame: Image) -> None:
    crops = np.stack((frame[:31, :31], frame[100:131, 200:231]))
    planes = as_planes(crops)
    assert planes.dtype == np.float32
    np.testing.assert_array_equal(planes, crops.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(as_planes(planes), planes)
