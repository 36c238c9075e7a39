"""A target that gets lost, and is searched for in the whole frame."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from siamcar_ros.geometry import context_side
from siamcar_ros.tracking import SiamCarTracker, TargetError, TrackerParams, TrackState
from siamcar_ros.tracking.candidate import LookAlike
from siamcar_ros.tracking.engine import TrackingEngine
from siamcar_ros.tracking.track import Sighting, Track


def test_states_follow_the_scores(network: Any) -> None:
    tracker = SiamCarTracker(network, TrackerParams(lost_after=2))
    frame = np.zeros((480, 640, 3), np.uint8)
    tracker.init(frame, (300.0, 200.0, 40.0, 80.0))
    states = []
    for logit in (3.0, -0.5, -4, -4, 3, -4, -4, -4, -4, -0.5, 3):
        scale = 127 / context_side(40, 80)
        network.show((40 * scale, 80 * scale), logit=logit)
        states.append(tracker.update(frame).state)
    sure, unsure, lost = TrackState.TRACKING, TrackState.UNCERTAIN, TrackState.LOST
    assert states == [sure] + 3 * [unsure] + [sure] + 2 * [unsure] + 3 * [lost] + [sure]


@pytest.mark.parametrize("found_after", [1, 3])
def test_a_lost_target_is_sought_around_its_place_and_found(network: Any, found_after: int) -> None:
    params = TrackerParams(lost_after=1, redetect=True, found_after=found_after, lr=1.0)
    tracker = SiamCarTracker(network, params)
    frame = np.zeros((480, 640, 3), np.uint8)
    frame[240, 360] = 255  # where the target comes back: 40 pixels to the right
    tracker.init(frame, (300.5, 200.5, 40, 80))
    network.show((45, 90), logit=-5)
    while tracker.result.state is not TrackState.LOST:
        tracker.update(frame)
    held = tracker.result.box
    network.show((30, 60), column=20, logit=-5)
    distances = []
    for _ in range(4):
        result = tracker.update(frame)
        assert result.state is TrackState.LOST
        assert result.box == held
        distances.append(int(network.inputs[-1][0, 0].argmax()) % 255 - 128)
    # The same 40 pixels are fewer in the larger region.
    assert distances[:2] == distances[2:]
    assert distances[0] < distances[1]
    network.show((30, 60), column=12 + distances[0] / 8, logit=6)
    for confirmed in range(1, found_after + 1):
        result = tracker.update(frame)
        assert result.state is (
            TrackState.TRACKING if confirmed == found_after else TrackState.LOST
        )
        # From the first sight on it is looked at in the middle of a region of the usual size.
        network.show((46, 92), logit=6)
    x, y, w, h = result.box
    assert (x + w / 2, y + h / 2) == pytest.approx((360.5, 240.5), abs=2)


class Painted:
    """A network that knows its target by its brightness."""

    score_size, offset, stride, takes_pixels = 25, 32, 8, True

    def __init__(self, given: Any) -> None:
        self.given, self.regions = given, 0

    def template(self, z: Any) -> Any:
        return (np.zeros((len(z), 1, 1, 1), np.float32),)

    def __call__(self, x: Any, template: Any) -> Any:
        self.regions += len(x)
        parts = []
        for crop in x:
            bright = np.argwhere(crop[..., 0] > 40)
            seen = len(bright) > 0
            row, column = bright.mean(0) if seen else (0.0, 0.0)
            self.given.show(
                (40, 40),
                column=12 + (column - 128) / 8,
                row=12 + (row - 128) / 8,
                logit=6 if seen else -5,
            )
            parts.append(self.given.maps)
        return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


@pytest.mark.parametrize("camera_motion", [False, True])
def test_a_target_is_found_in_a_corner_of_the_frame(network: Any, camera_motion: bool) -> None:
    painted = Painted(network)
    params = TrackerParams(
        lost_after=2, redetect=True, found_after=2, search_regions=3, camera_motion=camera_motion
    )
    tracker = SiamCarTracker(painted, params)
    blank, here = (np.zeros((480, 640, 3), np.uint8) for _ in range(2))
    here[230:250, 310:330] = 255
    tracker.init(here, (310, 230, 20, 20))
    assert tracker.update(here).state is TrackState.TRACKING
    for _ in range(20):
        before = painted.regions
        result = tracker.update(blank)
        assert painted.regions - before == (4 if result.state is TrackState.LOST else 1)
    assert result.state is TrackState.LOST
    there = blank.copy()
    there[440:460, 590:610] = 255
    for _ in range(40):
        result = tracker.update(there)
        if result.state is TrackState.TRACKING:
            break
    x, y, w, h = result.box
    assert result.state is TrackState.TRACKING
    assert (x + w / 2, y + h / 2) == pytest.approx((600, 450), abs=8)


@pytest.mark.parametrize("search_regions", [1, 2])
def test_a_detector_s_boxes_are_looked_at_in_turn_and_the_frame_as_well(
    network: Any, search_regions: int
) -> None:
    params = TrackerParams(lost_after=1, redetect=True, search_regions=search_regions)
    blank = np.zeros((960, 1280, 3), np.uint8)
    here, there = blank.copy(), blank.copy()
    here[230:250, 310:330] = 255
    there[840:860, 1090:1110] = 255
    clutter = [(600.0, 40.0, 20.0, 20.0), (900.0, 300.0, 20.0, 20.0)]
    needed = {}
    for boxes in (
        [],
        [(1090.0, 840.0, 20.0, 20.0)],
        [*clutter, (1090.0, 840.0, 20.0, 20.0)],
        clutter,
    ):
        tracker = SiamCarTracker(Painted(network), params)
        tracker.init(here, (310, 230, 20, 20))
        while tracker.result.state is not TrackState.LOST:
            tracker.update(blank)
        for frame in range(1, 300):
            if tracker.update(there, candidates=boxes).state is TrackState.TRACKING:
                needed[len(boxes)] = frame
                break
    alone, with_one, with_three, misled = (needed[n] for n in (0, 1, 3, 2))
    assert with_one <= 3
    assert with_three <= 7  # two frames a box where there is one region a frame
    assert alone < misled <= 2 * alone + 2


@pytest.mark.parametrize("search_regions", [1, 2, 4])
@pytest.mark.parametrize("every", [1, 2, 3])
def test_every_box_of_a_slow_detector_is_looked_at(
    network: Any, search_regions: int, every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes = [(100.0 * i, 50.0, 20.0, 20.0) for i in range(3)]
    looked: list[float] = []
    look = TrackingEngine._look

    def watched(self: Any, image: Any, tracks: Any, regions: Any, *rest: Any) -> Any:
        looked.extend(each.center[0] - 10 for each in regions if each.center[1] == 60)
        return look(self, image, tracks, regions, *rest)

    monkeypatch.setattr(TrackingEngine, "_look", watched)
    params = TrackerParams(lost_after=1, redetect=True, search_regions=search_regions)
    tracker = SiamCarTracker(Painted(network), params)
    tracker.init(np.zeros((480, 640, 3), np.uint8), (310, 230, 20, 20))
    for frame in range(61):
        tracker.update(np.zeros((480, 640, 3), np.uint8), boxes if frame % every == 0 else None)
    times = [looked.count(box[0]) for box in boxes]
    assert max(times) - min(times) <= 1
    assert min(times) >= 60 // every // 6 - 1


def test_a_search_uses_no_window_and_no_smoothing_and_coarsely_another_template(
    network: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[tuple[Any, ...]] = []
    look = TrackingEngine._look

    def watched(
        self: Any, image: Any, tracks: Any, regions: Any, template: Any, params: TrackerParams
    ) -> Any:
        (coarse,) = {each.coarse for each in regions}
        other = template is tracks[0].coarse_template
        looked.append((coarse, other, params.online, params.window_influence, params.lr))
        return look(self, image, tracks, regions, template, params)

    params = TrackerParams(lost_after=1, redetect=True, search_regions=2, online=True)
    tracker = SiamCarTracker(Painted(network), params)
    blank = np.zeros((1080, 1920, 3), np.uint8)
    tracker.init(blank, (310, 230, 20, 20))
    while tracker.result.state is not TrackState.LOST:
        tracker.update(blank)
    monkeypatch.setattr(TrackingEngine, "_look", watched)
    tracker.update(blank, candidates=[(900.0, 300.0, 20.0, 20.0)])
    near, at_candidate, far = looked
    assert near == (False, False, True, params.window_influence, params.lr)
    assert at_candidate == (False, False, True, 0.0, 1.0)
    assert far == (True, True, False, 0.0, 1.0)


def test_equal_candidates_and_those_that_are_not_finite(network: Any) -> None:
    params = TrackerParams(lost_after=1, redetect=True, search_regions=4)
    track = Track((), (0, 0, 0), (320.0, 240.0), (40.0, 60.0), look_alikes=(LookAlike((9.0, 9.0)),))
    features = np.zeros((2, 3, 3), np.float32)
    twice = [Sighting((400.0, 300.0), (40.0, 60.0), 0.9, 0.9, features=features.copy())] * 2
    twice[1] = twice[1]._replace(features=features.copy())
    considered = track.considering(twice, params)
    assert considered.candidate is not None
    assert considered.candidate.center == (400.0, 300.0)
    tracker = SiamCarTracker(network, params)
    tracker.init(np.zeros((480, 640, 3), np.uint8), (300.0, 200.0, 40.0, 80.0))
    network.show((40, 80))
    with pytest.raises(TargetError, match="a candidate's box or the camera's motion is not finite"):
        tracker.update(np.zeros((480, 640, 3), np.uint8), candidates=[(np.nan, 1.0, 2.0, 3.0)])


def test_a_lost_target_is_sought_inside_a_frame_that_got_smaller(network: Any) -> None:
    tracker = SiamCarTracker(network, TrackerParams(lost_after=1, redetect=True))
    tracker.init(np.zeros((480, 640, 3), np.uint8), (540, 380, 40, 40))
    network.show((40, 40), logit=-5)
    for _ in range(2):
        tracker.update(np.zeros((480, 640, 3), np.uint8))
    small = np.full((240, 320, 3), 255, np.uint8)
    for _ in range(2):
        x, y, w, h = tracker.update(small).box
    assert (x + w / 2, y + h / 2) == (320, 240)
    assert network.inputs[-1].max() == 255
