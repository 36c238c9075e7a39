"""The tracker of one target: boxes in and out, frames of every kind, failures, parameters."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from siamcar_ros.geometry import context_side
from siamcar_ros.model import build_model
from siamcar_ros.tracking import (
    DECODERS,
    SiamCarTracker,
    TargetError,
    TrackerParams,
)
from siamcar_ros.tracking.stored_image import StoredImage

BOX = (300.0, 200.0, 40.0, 80.0)


def show(network: Any, w: float, h: float, **more: Any) -> None:
    """Let the network see a target of this size in image pixels, by default where it was."""
    scale = 127 / context_side(w, h)
    network.show((w * scale, h * scale), **more)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("geometry", [(25, 32), (17, 63)])
@given(x=st.floats(0, 300), y=st.floats(0, 200), w=st.floats(4, 200), aspect=st.floats(0.4, 2.5))
@settings(max_examples=20, deadline=None)
def test_a_box_given_and_read_back_is_the_same(
    given_maps: Any,
    decoder: str,
    geometry: tuple[int, int],
    x: float,
    y: float,
    w: float,
    aspect: float,
) -> None:
    network, h = given_maps(*geometry), w * aspect
    tracker = SiamCarTracker(network, TrackerParams(decoder=decoder))
    frame = np.zeros((720, 640, 3), np.uint8)
    tracker.init(frame, (x, y, w, h))
    assert tracker.result.box == pytest.approx((x, y, w, h), abs=1e-9)
    show(network, w, h)
    for _ in range(10):
        box = tracker.update(frame).box
    assert box == pytest.approx((x, y, w, h), rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("geometry", [(25, 32), (17, 63)])
def test_the_last_center_lies_on_the_middle_cell(
    given_maps: Any, geometry: tuple[int, int]
) -> None:
    network = given_maps(*geometry)
    tracker = SiamCarTracker(network)
    frame = np.zeros((480, 640, 3), np.uint8)
    frame[240, 320] = 255  # the pixel whose middle is the box's center
    tracker.init(frame, (300.5, 200.5, 40, 80))
    show(network, 40, 80)
    tracker.update(frame)
    cell = network.offset + 8 * (network.score_size - 1) // 2
    for image, brightest in ((network.templates[0], 63), (network.inputs[0], cell)):
        row, column = np.unravel_index(image[0, 0].argmax(), image.shape[2:])
        assert (row, column) == (brightest, brightest)


@pytest.mark.parametrize("decoder", DECODERS)
def test_it_follows_what_the_maps_show(network: Any, decoder: str) -> None:
    tracker = SiamCarTracker(
        network, TrackerParams(decoder=decoder, lr=1.0, penalty_k=0.0, window_influence=0.1)
    )
    frame = np.zeros((480, 640, 3), np.uint8)
    tracker.init(frame, BOX)
    scale = 127 / context_side(40, 80)
    network.show((44 * scale, 84 * scale), column=14, row=11)
    x, y, w, h = tracker.update(frame).box
    assert (x + w / 2, y + h / 2) == pytest.approx((320 + 16 / scale, 240 - 8 / scale), abs=1.5)
    assert (w, h) == pytest.approx((44, 84), abs=0.5)


FRAMES: dict[str, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    "BGRA": lambda bgr: np.dstack((bgr, bgr[..., 0])),
    "a view of RGB": lambda bgr: bgr[..., ::-1].copy()[..., ::-1],
    "columns first": np.asfortranarray,
    "read-only": lambda bgr: np.frombuffer(bgr.tobytes(), np.uint8).reshape(bgr.shape),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_the_same_picture_in_another_form(
    network: Any, frame: NDArray[np.uint8], kind: str
) -> None:
    show(network, 40, 80)
    for picture in (frame, FRAMES[kind](frame)):
        tracker = SiamCarTracker(network)
        tracker.init(picture, (-10, 420, 50, 90))
        tracker.update(picture)
    np.testing.assert_array_equal(*network.templates)
    np.testing.assert_array_equal(*network.inputs)


@pytest.mark.parametrize("shape", [(480, 640), (480, 640, 1)])
def test_gray_frames(network: Any, frame: NDArray[np.uint8], shape: tuple[int, ...]) -> None:
    show(network, 40, 80)
    gray = frame[..., 0]
    for picture in (np.dstack((gray, gray, gray)), gray.reshape(shape)):
        tracker = SiamCarTracker(network)
        tracker.init(picture, (-10, 420, 50, 90))
        tracker.update(picture)
    np.testing.assert_array_equal(*network.templates)
    np.testing.assert_array_equal(*network.inputs)


@pytest.mark.parametrize("shape", [(480, 640), (1, 1), (3, 2000), (2000, 3), (40, 30)])
@pytest.mark.parametrize(
    "box",
    [
        (0, 0, 2, 2),
        (-5, -5, 6, 6),
        (0.5, 0.5, 0.25, 0.25),
        (-3000, -2000, 9000, 7000),
        (-999, 0, 1000, 1),
        (-1e5, -1e5, 9e5, 9e5),
    ],
)
@pytest.mark.parametrize("decoder", DECODERS)
def test_small_large_and_overhanging_targets(
    network: Any, shape: tuple[int, int], box: tuple[float, ...], decoder: str
) -> None:
    tracker = SiamCarTracker(network, TrackerParams(decoder=decoder))
    frame = np.full((*shape, 3), 90, np.uint8)
    tracker.init(frame, box)
    assert tracker.result.box == pytest.approx(box, rel=1e-9)
    for column in (12, 0, 24, 23):
        network.show((60, 60), column=column, row=24 - column)
        result = tracker.update(frame)
        x, y, w, h = result.box
        assert all(map(math.isfinite, result.box))
        # The center stays in the frame, and the box is no larger than it.
        assert 0 <= x + w / 2 <= shape[1]
        assert 0 <= y + h / 2 <= shape[0]
        assert 1 <= w <= shape[1]
        assert 1 <= h <= shape[0]
        assert 0 <= result.score <= 1


@pytest.mark.parametrize(
    ("box", "why"),
    [
        ((math.nan, 0, 10, 10), "finite"),
        ((0, math.inf, 10, 10), "finite"),
        ((0, 0, 0, 10), "area"),
        ((0, 0, 10, -1), "area"),
        ((640, 0, 10, 10), "outside"),
        ((0, 480, 10, 10), "outside"),
        ((-10, 0, 10, 10), "outside"),
        ((0, -20, 10, 20), "outside"),
        ((0, 0, 2e6, 10), "larger"),
        ((0, 0, 10), "four numbers"),
        (((0, 0, 10, 10),), "four numbers"),
        (("a", 0, 10, 10), "four numbers"),
        (None, "four numbers"),
    ],
)
def test_a_bad_box_is_refused_and_the_old_target_kept(network: Any, box: Any, why: str) -> None:
    tracker = SiamCarTracker(network)
    frame = np.zeros((480, 640, 3), np.uint8)
    tracker.init(frame, BOX)
    with pytest.raises(TargetError, match=why):
        tracker.init(frame, box)
    assert tracker.result.box == pytest.approx(BOX)


@pytest.mark.parametrize(
    ("image", "why"),
    [
        (None, "did reading it fail"),
        ([[1, 2], [3, 4]], "numpy array, not list"),
        (np.zeros((480, 640, 3)), "uint8, not float64"),
        (np.zeros((480, 640, 3), np.uint16), "uint8, not uint16"),
        (np.zeros((480, 640, 2), np.uint8), "480, 640, 2"),
        (np.zeros((1, 480, 640, 3), np.uint8), "1, 480, 640, 3"),
        (np.zeros(640, np.uint8), "640"),
        (np.zeros((0, 640, 3), np.uint8), "empty"),
        (StoredImage(np.zeros((480, 640, 3), np.uint8), "grb"), "one of bgr, .*, not 'grb'"),
        (StoredImage(np.zeros((480, 640, 3), np.uint8), "gray"), r"'gray' is \(H, W\), not"),
        (StoredImage(np.zeros((480, 640, 3), np.uint8), "rgba"), r"'rgba' is \(H, W, 4\), not"),
    ],
)
def test_a_bad_image_is_refused_and_the_target_kept(network: Any, image: Any, why: str) -> None:
    tracker = SiamCarTracker(network)
    tracker.init(np.zeros((480, 640, 3), np.uint8), BOX)
    before = tracker.result
    for call in (lambda: tracker.update(image), lambda: tracker.init(image, BOX)):
        with pytest.raises(TargetError, match=why):
            call()
    assert tracker.result == before


def test_without_a_target_there_is_nothing_to_update(network: Any) -> None:
    tracker = SiamCarTracker(network)
    frame = np.zeros((480, 640, 3), np.uint8)
    for _ in range(2):
        with pytest.raises(TargetError, match="init"):
            tracker.update(frame)
        tracker.init(frame, BOX)
        tracker.stop()


def broken_value(index: int, value: float) -> Callable[[Any], Any]:
    """Maps of which one has one damaged cell."""

    def damage(maps: Any) -> Any:
        copies = [part.copy() for part in maps]
        copies[index][0, 0, 3, 4] = value
        return tuple(copies)

    return damage


def break_shape(maps: Any) -> Any:
    return maps[0][..., :-1], maps[1], maps[2]


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (break_shape, "24"),
        (broken_value(0, math.nan), "cls map is not finite"),
        (broken_value(0, math.inf), "cls map is not finite"),
        (broken_value(1, math.nan), "reg map is not finite"),
        (broken_value(2, math.nan), "cen map is not finite"),
        (broken_value(2, math.inf), "cen map is not finite"),
    ],
)
@pytest.mark.parametrize("decoder", DECODERS)
def test_a_failed_update_leaves_the_track_as_it_was(
    network: Any, damage: Callable[[Any], Any], why: str, decoder: str
) -> None:
    tracker, fresh = (SiamCarTracker(network, TrackerParams(decoder=decoder)) for _ in range(2))
    frame = np.zeros((480, 640, 3), np.uint8)
    for each in (tracker, fresh):
        each.init(frame, BOX)
    network.show((50, 90), column=14)
    good = network.maps
    network.maps = damage(good)
    with pytest.raises(RuntimeError, match=why):
        tracker.update(frame)
    network.maps = good
    assert tracker.update(frame) == fresh.update(frame)


def test_two_tracks_share_one_network(network: Any, frame: NDArray[np.uint8]) -> None:
    together = [SiamCarTracker(network), SiamCarTracker(network)]
    alone = SiamCarTracker(network)
    boxes = (BOX, (100.0, 100.0, 60.0, 30.0))
    for tracker, box in zip(together, boxes, strict=True):
        tracker.init(frame, box)
    alone.init(frame, BOX)
    for column in (13, 11, 14, 12):
        network.show((55, 70), column=column)
        together[1].update(frame)
        assert together[0].update(frame) == alone.update(frame)


def test_maps_may_be_tensors(network: Any) -> None:
    trackers = [SiamCarTracker(network), SiamCarTracker(network)]
    frame = np.zeros((480, 640, 3), np.uint8)
    for tracker in trackers:
        tracker.init(frame, BOX)
    network.show((50, 90), column=14)
    first = trackers[0].update(frame)
    network.maps = tuple(torch.from_numpy(part).requires_grad_() for part in network.maps)
    assert trackers[1].update(frame) == first


def test_a_network_may_take_the_pixels(network: Any, frame: NDArray[np.uint8]) -> None:
    network.show((50, 90))
    for network.takes_pixels in (False, True):
        tracker = SiamCarTracker(network)
        tracker.init(frame, BOX)
        tracker.update(frame)
    for planes, pixels in (network.templates, network.inputs):
        assert (planes.dtype, pixels.dtype) == (np.float32, np.uint8)
        np.testing.assert_array_equal(planes, pixels.transpose(0, 3, 1, 2))


@pytest.mark.parametrize(
    "wrong",
    [
        {"decoder": "best"},
        {"penalty_k": -0.1},
        {"penalty_k": math.nan},
        {"penalty_k": math.inf},
        {"window_influence": 1.1},
        {"lr": "0.3"},
        {"lr": True},
        {"uncertain_below": -1},
        {"lost_below": 0.9},
        {"lost_after": 0},
        {"lost_after": 2.5},
        {"redetect": "yes"},
        {"certain_above": 2},
        {"found_after": 0},
        {"search_regions": -1},
        {"search_regions": 1.0},
        {"camera_motion": 1},
        {"calibrated": None},
    ],
)
def test_bad_parameters_are_named(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=name):
        TrackerParams(**wrong)


def test_a_real_network_runs_and_times_its_stages(frame: NDArray[np.uint8]) -> None:
    tracker = SiamCarTracker(build_model("compact").eval())
    tracker.init(frame, BOX)
    result = tracker.update(frame)
    assert 0 <= result.score <= 1
    assert set(tracker.timings) == {"crop", "network", "decode"}
    assert min(tracker.timings.values()) > 0
