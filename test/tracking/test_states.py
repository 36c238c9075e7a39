"""When a track is certain, uncertain, lost and found, whatever the network."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siamcar_ros.tracking import TrackerParams, TrackState
from siamcar_ros.tracking.candidate import LookAlike
from siamcar_ros.tracking.search import Region
from siamcar_ros.tracking.track import Sighting, Track

FRAME = (640, 480)
STILL = (0.0, 0.0)
PLACE, SIZE = (320.0, 240.0), (40.0, 60.0)
SURE, UNSURE, LOST = TrackState.TRACKING, TrackState.UNCERTAIN, TrackState.LOST
PARAMS = TrackerParams(
    uncertain_below=0.5,
    certain_above=0.75,
    lost_below=0.4,
    lost_after=8,
    found_after=3,
    redetect=True,
    camera_motion=True,
)
VIEW = np.zeros((90, 160), np.uint8)


def track(**facts: Any) -> Track:
    return replace(Track((), (0, 0, 0), PLACE, SIZE), **facts)


def seen(score: float, center: tuple[float, float] = PLACE) -> Sighting:
    return Sighting(center, SIZE, score, score)


def states(start: Track, *scores: float, params: TrackerParams = PARAMS) -> list[TrackState]:
    found = []
    for score in scores:
        start = start.after(seen(score), STILL, VIEW, FRAME, params)
        found.append(start.state)
    return found


def test_a_few_bad_frames_are_no_loss_and_certainty_returns_late() -> None:
    assert states(track(), *[0.0] * 5, 0.6, 0.7, 0.8, 0.6, 0.45) == (
        [UNSURE] * 7 + [SURE, SURE, UNSURE]
    )


def test_frames_count_toward_a_loss_the_more_the_lower_they_score() -> None:
    assert states(track(), *[0.0] * 8).index(LOST) == 7
    assert states(track(), *[0.2] * 16).index(LOST) == 15
    assert LOST not in states(track(), *[0.0, 0.0, 0.0, 0.0, 0.8] * 20)
    # One of 1.5 times lost_below takes half a frame away.
    assert states(track(), *[0.0] * 7, 0.6, *[0.0] * 8).index(LOST) == 9
    assert LOST not in states(track(), *[0.5] * 200)
    assert states(track(), *[0.4] * 200).index(LOST) == 24  # uncertain for too long
    assert LOST not in states(track(), *([0.4] * 24 + [0.8]) * 5)
    assert LOST not in states(track(), *[0.0] * 200, params=replace(PARAMS, lost_below=0.0))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.booleans(), st.booleans())
@settings(max_examples=100, deadline=None)
def test_nothing_lost_is_reported_as_found_before_it_is_confirmed(
    scores: list[float], redetect: bool, camera_motion: bool
) -> None:
    params = replace(PARAMS, redetect=redetect, camera_motion=camera_motion)
    each, confirmed = track(), 0
    for score in scores:
        before, each = each.state, each.after(seen(score), STILL, VIEW, FRAME, params)
        if each.state is SURE:
            assert score >= params.uncertain_below
        confirmed = confirmed + (score >= params.certain_above) if before is LOST else 0
        if before is LOST and each.state is not LOST:
            assert confirmed >= params.found_after


def lost(**facts: Any) -> Track:
    return track(state=LOST, doubt=8.0, **facts)


def test_an_unseen_box_stays_with_the_world_and_goes_on() -> None:
    each = lost(velocity=(4.0, 0.0), look_alikes=(LookAlike((10.0, 10.0)),))
    moved = each.carried((-30.0, 5.0))
    assert moved.center == pytest.approx((320 - 30 + 4, 245))
    assert moved.look_alikes[0].center == pytest.approx((-20, 15))
    assert 0 < moved.velocity[0] < 4
    assert track(velocity=(4.0, 0.0)).carried((-30.0, 5.0)).center == PLACE
    # Out of the picture it is remembered, within a frame's reach, and looked for at the border.
    far = moved
    for _ in range(50):
        far = far.carried((-30.0, 0.0)).after(seen(0.0), STILL, VIEW, FRAME, PARAMS)
    assert far.result.state is LOST
    assert far.center[0] == -640
    assert far.region(FRAME, PARAMS).center[0] == 0


def test_a_candidate_is_looked_at_until_it_is_confirmed() -> None:
    there, after = (500.0, 100.0), []
    each = lost(candidate=None).considering([seen(0.6, there), seen(0.5)], PARAMS)
    assert each.region(FRAME, PARAMS) == Region(there, 1.0)
    for score in (0.9, 0.7, 0.9, 0.9):
        each = each.after(seen(score, there), STILL, VIEW, FRAME, PARAMS)
        after.append(each.state)
    assert after == [LOST, LOST, LOST, SURE]
    assert each.center == there
    assert each.candidate is None
    assert each.doubt == each.lost_frames == 0


@pytest.mark.parametrize(("away", "found"), [(160, LOST), (140, SURE)])
def test_a_candidate_away_from_the_expected_place_must_score_higher(
    away: float, found: TrackState
) -> None:
    params = replace(PARAMS, found_above=0.9)
    place = (PLACE[0] + away, PLACE[1])  # half the usual region is 100 pixels
    each = lost().considering([seen(0.8, place)], params)
    assert states(each, 0.85, 0.85, 0.85, params=params) == [LOST, LOST, found]
    assert states(each, 0.95, 0.95, 0.95, params=params) == [LOST, LOST, SURE]


@pytest.mark.parametrize(
    ("usual", "score", "found"),
    [(0.96, 0.85, LOST), (0.96, 0.91, SURE), (0.99, 0.95, LOST), (0.8, 0.76, SURE)],
)
def test_a_target_found_again_must_score_about_as_high_as_before(
    usual: float, score: float, found: TrackState
) -> None:
    each = lost(usual_score=usual).considering([seen(score)], PARAMS)
    assert states(each, score, score, score)[-1] is found


@pytest.mark.parametrize(
    ("velocity", "step", "found"),
    [
        ((3.0, 0.0), (3.0, 0.0), SURE),
        ((3.0, 0.0), (4.0, -1.0), SURE),  # about as fast, and nearly the same way
        ((3.0, 0.0), (0.0, 0.0), LOST),  # a parked look-alike
        ((3.0, 0.0), (-3.0, 0.0), LOST),
        ((3.0, 0.0), (12.0, 0.0), LOST),
        ((0.0, 0.0), (3.0, 0.0), LOST),
        ((0.5, 0.0), (0.5, 0.0), LOST),  # no more than boxes jitter
    ],
)
def test_a_candidate_that_moves_as_the_target_did_may_score_lower(
    velocity: tuple[float, float], step: tuple[float, float], found: TrackState
) -> None:
    camera = (-7.0, 2.0)
    x, y = PLACE
    each = lost(usual_score=0.96, velocity=velocity).considering([seen(0.85)], PARAMS)
    for _ in range(9):
        each = each.carried(camera)
        x, y = x + camera[0] + step[0], y + camera[1] + step[1]
        each = each.after(seen(0.85, (x, y)), camera, VIEW, FRAME, PARAMS)
        if each.state is SURE:
            break
    assert each.state is found


def test_a_place_that_is_not_accepted_has_a_low_score() -> None:
    calibrated = {"score": 0.8, "evidence": (1.0,)}
    assert track(**calibrated).result.score == 0.8
    assert lost(**calibrated).result.score == pytest.approx(0.2)
    assert lost(score=0.8).result.score == 0.8


@pytest.mark.parametrize(("score", "frames"), [(0.1, 1), (0.6, PARAMS.found_after + 7)])
def test_a_wrong_candidate_is_remembered_for_40_images(score: float, frames: int) -> None:
    there = (500.0, 100.0)
    each = lost().considering([seen(0.6, there)], PARAMS)
    for _ in range(frames):
        assert each.candidate is not None
        each = each.after(seen(score, there), STILL, VIEW, FRAME, PARAMS)
    assert each.candidate is None
    assert each.center == PLACE
    again = each.considering([seen(0.9, there), seen(0.5, (100.0, 400.0))], PARAMS)
    assert again.candidate is not None
    assert again.candidate.center == (100.0, 400.0)
    for _ in range(40):
        assert each.considering([seen(0.9, there)], PARAMS).candidate is None
        each = each.after(seen(0.0), STILL, VIEW, FRAME, PARAMS)
    assert each.considering([seen(0.9, there)], PARAMS).candidate is not None


def test_only_what_is_close_to_a_look_alike_is_taken_for_it() -> None:
    each = lost(look_alikes=(LookAlike((500.0, 100.0)),))  # half a box's side is 24.5 pixels
    assert each.considering([seen(0.9, (524.0, 100.0))], PARAMS).candidate is None
    assert each.considering([seen(0.9, (525.0, 100.0))], PARAMS).candidate is not None


def test_a_score_below_half_of_lost_below_shows_nothing() -> None:
    there = (330.0, 240.0)
    for score, shown in ((0.19, False), (0.2, True)):
        considered = lost().considering([seen(score, there)], PARAMS)
        assert (considered.candidate is not None) is shown
        followed = track(state=UNSURE).after(seen(score, there), STILL, VIEW, FRAME, PARAMS)
        assert followed.center == (there if shown else PLACE)


def test_only_sure_frames_are_learned() -> None:
    class Model:
        learned = 0

        def learn(self, *_: Any) -> Model:
            self.learned += 1
            return self

    each, features = track(online=Model()), np.zeros((1, 3, 3), np.float32)
    for score, confidence, learned in (
        (0.7, 0.4, 1),
        (0.69, 0.9, 1),
        (0.9, 0.39, 1),
        (0.9, 0.9, 2),
    ):
        sighting = seen(score)._replace(confidence=confidence, features=features)
        each = each.after(sighting, STILL, VIEW, FRAME, PARAMS)
        assert each.online.learned == learned  # type: ignore[union-attr, attr-defined]


def test_the_usual_peak_is_a_running_mean_over_the_frames_in_which_it_is_tracked() -> None:
    each, usual = track(), []
    for score, peak in ((0.9, 0.8), (0.9, 0.6), (0.3, 0.1)):
        sighting = seen(score)._replace(evidence=(peak,))
        each = each.after(sighting, STILL, VIEW, FRAME, PARAMS)
        usual.append(each.usual_peak)
    assert usual == pytest.approx([0.8, 0.78, 0.78])


@pytest.mark.parametrize("frames", [6, 60])
def test_the_target_s_velocity_is_learned_without_the_camera_s(frames: int) -> None:
    each = track()
    for i in range(frames):
        x = 300.0 + 2 * i
        each = replace(each, center=(x, 240.0)).after(
            seen(0.9, (x + 5, 240)), (3, 0), VIEW, FRAME, PARAMS
        )
    assert each.velocity == pytest.approx((2, 0), abs=1e-9)
    assert math.isnan(each.usual_peak)


def test_the_camera_is_followed_where_it_matters() -> None:
    def wanted(each: Track) -> tuple[bool, bool]:
        return each.wants_view, each.follows_camera

    # Two frames in a row out of six give a sure target's velocity.
    expected = [*[(False, False)] * 4, (True, False), (True, True)] * 2
    assert [wanted(track(frames=i)) for i in range(12)] == expected
    assert wanted(track(state=UNSURE)) == wanted(lost()) == (True, True)
    assert wanted(track(look_alikes=(LookAlike(PLACE),))) == (True, True)


def test_the_velocity_of_a_target_that_was_found_again_is_learned_anew() -> None:
    there, x = (500.0, 100.0), 100.0
    found = track(followed=200, velocity=(2.0, 0.0), state=LOST, doubt=8.0)
    found = found.considering([seen(0.9, there)], PARAMS)
    while found.state is not SURE:
        found = found.after(seen(0.9, there), STILL, VIEW, FRAME, PARAMS)
    found = replace(found, center=(x, 100.0), frames=0)
    for _ in range(6):
        x += 10
        found = found.after(seen(0.9, (x, 100.0)), STILL, VIEW, FRAME, PARAMS)
    assert found.velocity == pytest.approx((10, 0))
