"""The law of the pan-tilt controller, alone and in a loop with a mount that lags."""

from __future__ import annotations

import math
from collections import deque

import numpy as np
import pytest

from siamcar_ros.ros.pan_tilt import Pair, PanTiltLaw, PanTiltSettings
from siamcar_ros.tracking import TrackState

TRACKING, UNCERTAIN, LOST = TrackState.TRACKING, TrackState.UNCERTAIN, TrackState.LOST


def settled(law: PanTiltLaw, now: float = 0.0) -> Pair:
    """The rates of a mount that stands still, once the acceleration's limit no longer matters."""
    for _ in range(20):
        law.moved(now, np.zeros(2))
        found = law.rates(now)
        now += 0.02
    return found


def at_rest(**settings: float) -> PanTiltLaw:
    """A law that has been told the angles of its mount: 0."""
    law = PanTiltLaw(PanTiltSettings(**settings))
    law.moved(-0.01, np.zeros(2))
    return law


def pair(pan: float, tilt: float = 0.0) -> Pair:
    return np.array((pan, tilt))


def test_the_camera_turns_towards_the_target_within_the_limits() -> None:
    law = at_rest(gain=4.0, max_rate=0.5)
    law.see(0.0, TRACKING, pair(0.05, -0.1))
    np.testing.assert_allclose(settled(law), (0.2, -0.4))
    law.see(9.0, TRACKING, pair(-1.0, 1.0))
    np.testing.assert_allclose(settled(law, 9.0), (-0.5, 0.5))


def test_small_errors_are_not_corrected() -> None:
    law = at_rest(dead_band=0.01)
    law.see(0.0, TRACKING, pair(0.009, -0.009))
    np.testing.assert_array_equal(settled(law), (0, 0))


def test_rates_change_no_faster_than_the_acceleration() -> None:
    law = PanTiltLaw(PanTiltSettings(max_acceleration=2.0, max_rate=1.0, timeout=9.0))
    law.see(0.0, TRACKING, pair(1.0))
    found = [law.rates(0.1 * step)[0] for step in range(8)]
    assert np.diff(found).max() <= 0.2 + 1e-12
    assert found[-1] == 1.0


def moving_target(
    law: PanTiltLaw, rate: float, seconds: float, tracked_until: float = math.inf
) -> tuple[list[float], Pair]:
    """Errors of a camera that obeys, 100 a second, and its last rates; a target of constant rate.

    The target is UNCERTAIN after a while, with a box that is wrong.
    """
    camera, errors = 0.0, []
    for step in range(round(seconds * 100)):
        now = step / 100
        errors.append(rate * now - camera)
        if step % 3 == 0:
            known = now < tracked_until
            law.see(now, TRACKING if known else UNCERTAIN, pair(errors[-1] if known else 0.5))
        rates = law.rates(now)
        camera += rates[0] / 100
    return errors, rates


def test_a_moving_target_is_followed_without_lag_and_at_its_last_rate_while_uncertain() -> None:
    errors, rates = moving_target(PanTiltLaw(PanTiltSettings()), 0.3, 4.9, tracked_until=4.0)
    assert np.abs(errors[300:]).max() < 0.005
    np.testing.assert_allclose(rates, (0.3, 0.0), atol=0.01)
    _, rates = moving_target(PanTiltLaw(PanTiltSettings(coast=0.5)), 0.3, 5.0, tracked_until=4.0)
    np.testing.assert_array_equal(rates, (0, 0))


@pytest.mark.parametrize("state", [None, LOST])
def test_the_camera_stops_without_a_target(state: TrackState | None) -> None:
    law = at_rest()
    law.see(0.0, TRACKING, pair(0.5, 0.5))
    assert settled(law)[0] > 0
    law.see(0.5, state)
    np.testing.assert_array_equal(settled(law, 0.5), (0, 0))


def test_the_camera_stops_if_nothing_is_heard_and_if_the_bearing_is_unknown() -> None:
    law = at_rest(timeout=0.5)
    law.see(0.0, TRACKING, pair(0.5))
    assert settled(law)[0] > 0
    np.testing.assert_array_equal(settled(law, 0.6), (0, 0))
    law.see(1.0, TRACKING, None)
    np.testing.assert_array_equal(settled(law, 1.0), (0, 0))


def test_a_lost_target_is_searched_for_first_on_the_side_where_it_went() -> None:
    settings = PanTiltSettings(search_after=1.0, search_rate=0.2, search_width=0.4, timeout=2.0)
    law = PanTiltLaw(settings)
    moving_target(law, -0.3, 3.0)
    path, pan = [], 0.0
    for step in range(2500):
        now = 3.0 + step / 100
        law.see(now, LOST)
        rates = law.rates(now)
        assert abs(rates[0]) <= 0.3
        if now > 3.5:
            pan += rates[0] / 100
            path.append(pan)
    sweep = np.array(path)
    assert abs(sweep[:40]).max() == 0  # it stands still first
    turns = sweep[1:-1][np.diff(np.sign(np.diff(sweep))) != 0]
    ends = [turns[0], turns[-3], turns[-2], turns[-1]]
    assert np.min(sweep) < -0.4
    assert np.max(sweep) > 0.3
    assert min(ends) < 0 < max(ends)
    assert sweep[: len(sweep) // 8].min() < -0.1
    law.see(99.0, LOST)
    law.settings = PanTiltSettings(search_rate=0.0)
    np.testing.assert_array_equal(settled(law, 99.0), (0, 0))


def test_the_mount_comes_to_rest_at_its_limits() -> None:
    law = PanTiltLaw(PanTiltSettings(pan_right=0.5, tilt_down=-0.2, max_acceleration=4.0))
    angles, rates = np.zeros(2), np.zeros(2)
    for step in range(400):
        law.moved(step / 100, angles)
        law.see(step / 100, TRACKING, pair(1.0, -1.0))
        rates = law.rates(step / 100)
        angles = angles + rates / 100
        assert angles[0] < 0.51
        assert angles[1] > -0.21
    np.testing.assert_allclose(angles, (0.5, -0.2), atol=0.01)
    np.testing.assert_allclose(rates, (0, 0), atol=0.05)


def test_a_tilted_camera_pans_farther_for_the_same_bearing() -> None:
    law = PanTiltLaw(PanTiltSettings(gain=1.0, timeout=9.0))
    tilted = pair(0.0, math.radians(60))
    law.moved(0.0, tilted)
    law.see(0.0, TRACKING, pair(0.05, 0.0))
    for step in range(20):
        law.moved(step / 50, tilted)
        rates = law.rates(step / 50)
    assert rates[0] == pytest.approx(0.1, rel=0.01)  # about a vertical axis: 1 / cos(60)


def test_limits_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(ValueError, match="less than pan_right"):
        PanTiltSettings(pan_left=1.0, pan_right=0.0)


@pytest.mark.parametrize("measured", [True, False])
@pytest.mark.parametrize("delay", [1, 3, 6])
def test_the_loop_is_stable_with_a_late_mount_and_late_images(delay: int, measured: bool) -> None:
    """A target swings by 10 degrees in 8 s; images are 30 a second and `delay` of them late."""
    law, late = PanTiltLaw(PanTiltSettings()), deque([(0.0, 0.0)] * delay, maxlen=delay)
    camera = rate = 0.0
    errors = []
    for step in range(1800):
        now = step / 90
        target = 0.17 * math.sin(2 * math.pi * now / 8.0)
        if measured:
            law.moved(now, pair(camera))
        if step % 3 == 0:
            errors.append(target - camera)
            bearing, taken = late[0]
            law.see(now, TRACKING, pair(bearing), now - taken)
            late.append((target - camera, now))
        rate += (law.rates(now)[0] - rate) * (1 - math.exp(-1 / 90 / 0.05))
        camera += rate / 90
    assert np.abs(errors[60:]).max() < 0.025
