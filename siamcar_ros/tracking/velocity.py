"""What the boxes of several images say of a target: its velocity, and for how long it is lost."""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from siamcar_ros.geometry import Box, box_center
from siamcar_ros.tracking.interface import TrackResult, TrackState

# Seconds of a target's past from which its velocity is estimated.
_WINDOW = 0.3
# Images; at a higher rate the window is shorter.
_MOST_IMAGES = 32


class Motion:
    """The recent places of one target.

    Attributes:
        velocity: of the box's center in pixels per second, (x, y): the slope of a line fitted to
            the places of the last 0.3 s in which the target was seen, or to the last two if they
            are farther apart; NaN until there are two.
        lost: seconds since the target was last seen; 0 unless it is lost.
    """

    def __init__(self, started: int) -> None:
        """Begin with the stamp of the image on which the target was started, in nanoseconds."""
        self.velocity = (math.nan, math.nan)
        self.lost = 0.0
        self._seen = started
        self._places: deque[tuple[int, float, float]] = deque(maxlen=_MOST_IMAGES)

    def add(self, stamp: int, result: TrackResult) -> None:
        """Take in the result of one more image; stamps are in nanoseconds."""
        if result.state is TrackState.LOST:
            self.lost = max(0.0, (stamp - self._seen) / 1e9)
            return
        self._seen, self.lost = stamp, 0.0
        self._add_place(stamp, result.box)

    def _add_place(self, stamp: int, box: Box) -> None:
        places = self._places
        if places and stamp <= places[-1][0]:
            places.clear()  # stamps went back
            self.velocity = (math.nan, math.nan)
        places.append((stamp, *box_center(box)))
        while len(places) > 2 and stamp - places[0][0] > _WINDOW * 1e9:
            places.popleft()
        if len(places) < 2:
            return
        values = np.array([((at - stamp) / 1e9, x, y) for at, x, y in places])
        values -= values.mean(0)
        time = values[:, 0]
        x, y = (time @ values[:, 1:] / (time @ time)).tolist()
        self.velocity = x, y
