"""The depth of a target, on scenes whose depths are known."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from siamcar_ros.data.images import ImageError
from siamcar_ros.ros.depth import depth_image, target_depth

BOX = (100.0, 60.0, 60.0, 80.0)


def scene(target: float = 4.0, background: float = 9.0) -> NDArray[np.float64]:
    """An ellipse that fills the box before a wall, with a sensor's noise of 1 %."""
    rows, columns = np.mgrid[:240, :320] + 0.5
    inside = ((columns - 130) / 30) ** 2 + ((rows - 100) / 40) ** 2 < 1
    depth = np.where(inside, target, background)
    return depth * (1 + 0.01 * np.random.default_rng(0).normal(size=depth.shape))


def holes(depth: NDArray[np.float64]) -> NDArray[np.float64]:
    """Half of the pixels are unknown, in all the ways in which cameras say so."""
    kind = np.random.default_rng(1).integers(0, 8, depth.shape)
    for value, number in ((0.0, 0), (np.nan, 1), (np.inf, 2), (-1.0, 3)):
        depth[kind == number] = value
    return depth


def branch(depth: NDArray[np.float64]) -> NDArray[np.float64]:
    """Something narrow hangs before the target."""
    depth[:, 126:132] = 1.5
    return depth


def thin(depth: NDArray[np.float64]) -> NDArray[np.float64]:
    """The target is a grid through whose gaps the wall shows: two thirds of the box."""
    depth[:, np.arange(320) % 3 > 0] = 9.0
    return depth


def slanted(depth: NDArray[np.float64]) -> NDArray[np.float64]:
    """The target's surface recedes by a tenth across the box."""
    return depth * np.where(depth < 6, np.linspace(0.95, 1.05, 60).repeat(1)[_columns()], 1.0)


def _columns() -> NDArray[np.int64]:
    return np.clip(np.arange(320) - 100, 0, 59)


@pytest.mark.parametrize("change", [lambda depth: depth, holes, branch, thin, slanted])
def test_the_target_is_found_before_its_background(change: object) -> None:
    found = target_depth(change(scene()), BOX)  # type: ignore[operator]
    assert found is not None
    assert found.distance == pytest.approx(4.0, rel=0.02)
    assert found.deviation < 0.2
    assert found.extent < 0.6


def test_a_flat_target_has_the_noise_of_the_sensor_and_no_depth() -> None:
    found = target_depth(scene(), BOX)
    assert found is not None
    assert found.deviation == pytest.approx(0.04, rel=0.1)
    assert found.extent == pytest.approx(2 * 1.645 * 0.04, rel=0.1)


def test_boxes_past_the_border_and_millimeters() -> None:
    depth = (1000 * scene()).astype(np.uint16)
    depth[:, :100] = 0
    whole, part = (target_depth(depth[:, cut:], (100 - cut, 60, 60, 80), 0.001) for cut in (0, 120))
    assert whole is not None
    assert part is not None
    assert (whole.distance, part.distance) == pytest.approx((4.0, 4.0), rel=0.02)


@pytest.mark.parametrize(
    "depth",
    [
        np.zeros((240, 320)),
        np.full((240, 320), np.nan),
        np.where(np.arange(320) % 50 == 0, scene(), np.nan),  # 2 % are known
    ],
)
def test_too_few_pixels_give_no_depth(depth: NDArray[np.float64]) -> None:
    assert target_depth(depth, BOX) is None


@pytest.mark.parametrize("box", [(400.0, 0.0, 20.0, 20.0), (-90.0, -90.0, 30.0, 30.0)])
def test_a_box_outside_the_image_has_no_depth(box: tuple[float, float, float, float]) -> None:
    assert target_depth(scene(), box) is None


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize(("encoding", "kind", "unit"), [("16UC1", "u2", 0.001), ("32FC1", "f4", 1)])
def test_messages_are_read_with_padded_rows(
    encoding: str, kind: str, unit: float, big_endian: bool
) -> None:
    pixels = np.arange(12).reshape(3, 4)
    data = np.zeros((3, 24), np.uint8)
    stored = pixels.astype((">" if big_endian else "<") + kind)
    data[:, : 4 * stored.itemsize] = np.ascontiguousarray(stored).view(np.uint8)
    message = SimpleNamespace(
        height=3, width=4, step=24, encoding=encoding, is_bigendian=big_endian, data=data.tobytes()
    )
    found, found_unit = depth_image(message)
    np.testing.assert_array_equal(found, pixels)
    assert found_unit == unit
    for change, reason in (
        ({"encoding": "bgr8"}, "16UC1, mono16, 32FC1, not 'bgr8'"),
        ({"height": 4}, "72 bytes of data; it needs "),
        ({"step": 3}, "has step 3; a row needs "),
        ({"height": 0}, "image is empty: "),
    ):
        with pytest.raises(ImageError, match=reason):
            depth_image(SimpleNamespace(**(vars(message) | change)))
