"""A target's velocity, and for how long it has been lost, by the images' stamps."""

from __future__ import annotations

import math

import pytest

from siamcar_ros.tracking import TrackResult, TrackState
from siamcar_ros.tracking.velocity import Motion


def test_velocity_is_the_slope_of_the_places_and_lost_counts_from_the_last_seen() -> None:
    motion = Motion(started=0)
    tenth = 10**8
    for index in range(8):  # turns around after 0.4 s, which the window has forgotten at the end
        x = 10.0 * index if index < 4 else 80.0 - 10.0 * index
        motion.add(index * tenth, TrackResult((x, 5.0 * index, 8, 6), 0.9, TrackState.TRACKING))
        if index == 0:
            assert math.isnan(motion.velocity[0])
        if index == 3:
            assert motion.velocity == pytest.approx((100.0, 50.0))
    assert motion.velocity == pytest.approx((-100.0, 50.0))
    motion.add(9 * tenth, TrackResult((900, 900, 8, 6), 0.0, TrackState.LOST))
    assert motion.lost == pytest.approx(0.2)
    assert motion.velocity == pytest.approx((-100.0, 50.0))
    motion.add(10 * tenth, TrackResult((0, 0, 8, 6), 0.9, TrackState.UNCERTAIN))
    assert motion.lost == 0.0
