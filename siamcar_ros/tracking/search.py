"""Where to look for a lost target: regions that grow around its place, then cover the frame."""

from __future__ import annotations

import math
from typing import NamedTuple

# A target is found as well in a region of 1.25 times the usual side as in one of the usual side, as
# long as it lies within the inner 0.6 of it; at twice the side two out of three are still seen, but
# cannot be told from other things.
_FACTOR, _INNER = 1.25, 0.6
NEAR_FACTOR = 1.5
"""Side of the largest region around a lost target's place, as a multiple of the usual side."""

_NEAR = (NEAR_FACTOR, 1.0)


class Region(NamedTuple):
    """A square to search.

    Attributes:
        center: (x, y), image pixels.
        factor: its side as a multiple of the usual one.
    """

    center: tuple[float, float]
    factor: float


def near(place: tuple[float, float], frames: int) -> Region:
    """The region around a lost target's place, so many frames after it was lost."""
    return Region(place, _NEAR[frames % len(_NEAR)])


def elsewhere(
    place: tuple[float, float], side: float, frame_size: tuple[int, int], frames: int, budget: int
) -> list[Region]:
    """The regions of the whole frame whose turn it is.

    The frame is covered by overlapping regions, the nearest first, `budget` of them a frame; when
    all have been searched, they begin again.

    Args:
        place: (x, y) of the target as far as it is known, image pixels.
        side: of the usual search region, image pixels.
        frame_size: (width, height).
        frames: frames since the target was lost.
        budget: the number of regions.
    """
    width, height = frame_size
    step = side * _FACTOR * _INNER
    columns, rows = math.ceil(width / step), math.ceil(height / step)
    tiles = [
        ((column + 0.5) * width / columns, (row + 0.5) * height / rows)
        for row in range(rows)
        for column in range(columns)
    ]
    ranked = sorted(tiles, key=lambda tile: (math.dist(tile, place), tile))
    first = frames * budget
    return [
        Region(ranked[(first + i) % len(ranked)], _FACTOR) for i in range(min(budget, len(ranked)))
    ]
