"""Several targets in one call of the network."""

from __future__ import annotations

from typing import Any, ClassVar

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from siamcar_ros.model import build_model
from siamcar_ros.tracking import (
    MultiTracker,
    SiamCarTracker,
    TargetError,
    TrackerParams,
    TrackState,
)

BOXES = {
    "car": (300.0, 200.0, 40.0, 80.0),
    "dog": (-10.0, 400.0, 60.0, 60.0),
    "ball": (500.0, 20.0, 8.0, 9.0),
}


@pytest.fixture(scope="module")
def compact() -> Any:
    import torch

    torch.manual_seed(0)
    return build_model("compact").eval()


@pytest.mark.parametrize("decoder", ["upsampled", "paper", "regressed"])
def test_together_as_alone(compact: Any, frame: NDArray[np.uint8], decoder: str) -> None:
    params = TrackerParams(decoder=decoder)
    together = MultiTracker(compact, params)
    alone = {name: SiamCarTracker(compact, params) for name in BOXES}
    for name, box in BOXES.items():
        together.add(frame, box, name)
        alone[name].init(frame, box)
    for shift in (0, 3, -5):
        picture = np.roll(frame, shift, 1)
        results = together.update(picture)
        assert list(results) == list(BOXES)
        for name, tracker in alone.items():
            expected = tracker.update(picture)
            np.testing.assert_allclose(results[name].box, expected.box, atol=0.05)
            assert results[name].score == pytest.approx(expected.score, abs=1e-4)
            # From the same place in the next frame: a crop is cut at 1/32 of a pixel, so that the
            # last digit of a place can change far more of what is seen.
            tracker._track = together._track(name)


class FromPixels:
    """A network whose maps are the picture's own brightness, target by target."""

    score_size, offset, stride, takes_pixels, gives_features = 25, 32, 8, True, True
    calibration: ClassVar[Any] = {
        "alone": {"peak": 1, "constant": -4},
        "online": {"peak": 1, "confidence": 1, "constant": -4.5},
    }

    def template(self, z: Any) -> Any:
        return (z.mean((1, 2), keepdims=True),)

    def observe(self, x: Any, template: Any) -> Any:
        features = x[:, 32:225:8, 32:225:8].transpose(0, 3, 1, 2).astype(np.float32)
        level = features - template[0].astype(np.float32).transpose(0, 3, 1, 2)
        cls, cen = level[:, :2] / 16, level[:, 2:] / 64
        return (cls, 20 + abs(features[:, [0, 1, 2, 0]]) / 8, cen), features

    def __call__(self, x: Any, template: Any) -> Any:
        return self.observe(x, template)[0]


@pytest.mark.parametrize("online", [False, True])
def test_lost_and_found_together_as_alone(online: bool) -> None:
    params = TrackerParams(
        decoder="regressed",
        lost_after=1,
        found_after=2,
        lost_below=0.5,
        redetect=True,
        camera_motion=True,
        search_regions=2,
        online=online,
    )
    rng = np.random.default_rng(5)
    frames = rng.integers(0, 256, (40, 120, 160, 3), np.uint8)
    frames = np.stack([cv2.GaussianBlur(each, (0, 0), 3) * 2 for each in frames])
    boxes = {"a": (60, 40, 20, 20), "b": (-5, 90, 30, 20), "c": (10, 10, 8, 12)}
    given = [(100.0, 50.0, 20.0, 20.0)]
    together = MultiTracker(FromPixels(), params)
    alone = {name: SiamCarTracker(FromPixels(), params) for name in boxes}
    for name, box in boxes.items():
        together.add(frames[0], box, name)
        alone[name].init(frames[0], box)
    states = set()
    for image in frames[1:]:
        results = together.update(image, candidates=given)
        for name, tracker in alone.items():
            assert results[name] == tracker.update(image, given)
        states |= {result.state for result in results.values()}
    assert states == set(TrackState)


def test_one_call_whatever_the_number(network: Any, frame: NDArray[np.uint8]) -> None:
    tracker = MultiTracker(network)
    network.show((50, 50))
    one = network.maps
    for n, (name, box) in enumerate(BOXES.items(), start=1):
        tracker.add(frame, box, name)
        network.maps = tuple(np.repeat(part, n, 0) for part in one)
        tracker.update(frame)
        assert [len(x) for x in network.inputs] == list(range(1, n + 1))


def test_some_are_updated_and_the_rest_stay(network: Any, frame: NDArray[np.uint8]) -> None:
    tracker = MultiTracker(network)
    for name, box in BOXES.items():
        tracker.add(frame, box, name)
    network.show((50, 50), column=14)
    results = tracker.update(frame, ["dog"])
    assert list(results) == ["dog"]
    network.show((50, 50))
    x, _, w, _ = tracker.update(frame, ["car"])["car"].box
    assert x + w / 2 == pytest.approx(320)
    with pytest.raises(TargetError, match=r"'cat'.*'car', 'dog', 'ball'"):
        tracker.update(frame, ["car", "cat"])


def test_the_search_begins_where_the_cameras_motion_moved_the_target(
    network: Any, frame: NDArray[np.uint8]
) -> None:
    tracker = MultiTracker(network)
    tracker.add(frame, BOXES["car"], "car")
    network.show((50, 50))  # in the middle of the search
    motion = {"car": (-30.0, 12.0), "gone": (1.0, 1.0)}
    x, y, w, h = tracker.update(frame, motion=motion)["car"].box
    assert (x + w / 2, y + h / 2) == pytest.approx((320 - 30, 240 + 12))
    assert tracker.result("car").box == (x, y, w, h)
    with pytest.raises(TargetError, match="'dog'"):
        tracker.result("dog")


def test_adding_replacing_and_removing(network: Any, frame: NDArray[np.uint8]) -> None:
    tracker = MultiTracker(network, max_targets=2)
    assert tracker.update(frame) == {}
    assert not tracker.active
    tracker.add(frame, BOXES["car"], "car")
    tracker.add(frame, BOXES["dog"], "dog")
    with pytest.raises(TargetError, match="2 targets"):
        tracker.add(frame, BOXES["ball"], "ball")
    tracker.add(frame, BOXES["ball"], "car")
    with pytest.raises(TargetError, match="outside"):
        tracker.add(frame, (-100, 0, 20, 20), "dog")
    assert tracker.ids == ("car", "dog")
    tracker.remove("dog")
    with pytest.raises(TargetError, match="dog"):
        tracker.remove("dog")
    network.show((60, 60))
    assert list(tracker.update(frame)) == ["car"]
    x, _, w, _ = tracker.update(frame)["car"].box
    assert x + w / 2 == pytest.approx(504)
    tracker.stop()
    assert len(tracker) == 0


def test_one_failure_leaves_all_tracks(network: Any, frame: NDArray[np.uint8]) -> None:
    tracker, fresh = MultiTracker(network), MultiTracker(network)
    for each in (tracker, fresh):
        for name, box in BOXES.items():
            each.add(frame, box, name)
    network.show((50, 60), column=13)
    good = tuple(np.repeat(part, 3, 0) for part in network.maps)
    bad = tuple(part.copy() for part in good)
    bad[0][2] = np.nan
    network.maps = bad
    with pytest.raises(RuntimeError, match="finite"):
        tracker.update(frame)
    network.maps = good
    assert tracker.update(frame) == fresh.update(frame)


def test_there_is_room_for_one_at_least(network: Any) -> None:
    with pytest.raises(ValueError, match="max_targets"):
        MultiTracker(network, max_targets=0)
