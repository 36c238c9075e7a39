"""Places where a lost target may be, and those that turned out to be something else."""

from __future__ import annotations

import math
from typing import NamedTuple

Point = tuple[float, float]

_REMEMBERED = 40  # frames
_LEAST_MOTION = 0.15  # box sides; anything less may be jitter of the box
_LEAST_FRAMES = 3  # in which a candidate's motion can be told
_ALIGNED = 0.8  # the least cosine of the angle between two motions in the same direction
_SPEED_RATIO = (0.4, 2.5)  # limits of the ratio of two speeds that are about the same


class Candidate(NamedTuple):
    """A place where a lost target may be.

    Attributes:
        center, size: of the box, image pixels.
        first: its center when it was first looked at, moved since as the camera moved the picture.
        confirmed: frames that showed the target there.
        frames: frames for which it has been looked at.
        elsewhere: it was found beyond the region around the target's expected place.
    """

    center: Point
    size: Point
    first: Point
    confirmed: int = 0
    frames: int = 0
    elsewhere: bool = False

    def shifted(self, motion: Point) -> Candidate:
        """The candidate moved by (dx, dy) image pixels, as the camera turns."""
        return self._replace(center=added(self.center, motion), first=added(self.first, motion))

    def moves_like(self, velocity: Point) -> bool:
        """Whether it has moved about as far and in about the direction expected of the target.

        `velocity` is in image pixels per frame, without the camera's motion.
        """
        moved = (self.center[0] - self.first[0], self.center[1] - self.first[1])
        expected = (self.frames * velocity[0], self.frames * velocity[1])
        distance, expected_distance = math.hypot(*moved), math.hypot(*expected)
        least = _LEAST_MOTION * math.sqrt(self.size[0] * self.size[1])
        if self.frames < _LEAST_FRAMES or min(distance, expected_distance) < least:
            return False
        cosine = (moved[0] * expected[0] + moved[1] * expected[1]) / (distance * expected_distance)
        slowest, fastest = _SPEED_RATIO
        return cosine > _ALIGNED and slowest < distance / expected_distance < fastest


class LookAlike(NamedTuple):
    """A place that was taken for the target and was not it; forgotten after so many `frames`."""

    center: Point
    frames: int = _REMEMBERED

    def shifted(self, motion: Point) -> LookAlike:
        """The place moved by (dx, dy) image pixels, as the camera turns."""
        return self._replace(center=added(self.center, motion))


def added(point: Point, motion: Point) -> Point:
    """The sum of two vectors."""
    return point[0] + motion[0], point[1] + motion[1]
