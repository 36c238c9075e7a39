"""Frames of a tracker's worst sequences, with true and predicted boxes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from siamcar_ros.data import read_image
from siamcar_ros.evaluation.comparison import Comparison
from siamcar_ros.evaluation.metrics import Floats
from siamcar_ros.evaluation.presence import MISSED
from siamcar_ros.evaluation.protocols import TrackerScore
from siamcar_ros.evaluation.report.plots import TRUTH_COLOR, tracker_color
from siamcar_ros.geometry import Image, xywh_to_corners

_TILE = (360, 270)
_TILES = 5  # of a strip


@dataclass(frozen=True)
class Strip:
    """Frames of one sequence, and the tracker's average overlap on it."""

    sequence: str
    ao: float
    tiles: list[Image]  # BGR uint8, all of one size
    caption: str


def worst_strips(comparison: Comparison, focus: TrackerScore, count: int) -> list[Strip]:
    """Strips of the sequences with the tracker's lowest average overlap, with all boxes drawn."""
    worst = sorted(focus.sequences, key=lambda name: focus.sequences[name].measures["ao"])
    strips = [_strip(comparison, focus, name) for name in worst[:count]]
    return [strip for strip in strips if strip.tiles]


def lost_for_good(overlaps: Floats) -> int | None:
    """The first of the last frames that all miss the target (overlap below 0.1); None if the target
    was found in the end. NaN, a frame without the target, is neither.
    """
    scored = np.flatnonzero(np.isfinite(overlaps))
    found = np.flatnonzero(overlaps[scored] >= MISSED)
    rest = scored[found[-1] + 1 :] if len(found) else scored
    return int(rest[0]) if len(rest) else None


def describe_losses(overlaps: Floats) -> str:
    """How a target was missed, as a caption."""
    n, scored = len(overlaps), overlaps[np.isfinite(overlaps)]
    missed, end = scored < MISSED, lost_for_good(overlaps)
    if end is not None:
        return f"lost at frame {end + 1} of {n} and not found again"
    spells = np.count_nonzero(missed & ~np.append(False, missed[:-1]))
    if not spells:
        return "never lost"
    times = "once" if spells == 1 else f"{spells} times"
    return f"missed {times} and found again, {missed.sum()} of {n} frames"


def choose_frames(overlaps: Floats, count: int) -> list[int]:
    """Choose frames that show how a target was lost: the first, the last good one, later ones.

    If it was not lost for good, the frames of lowest overlap in equal parts of the sequence.
    `overlaps` is (N,), NaN where not scored; of the ascending indices there are `count`, at least
    three, or as many as there are frames.
    """
    n = len(overlaps)
    if n <= count:
        return list(range(n))
    lost = lost_for_good(overlaps)
    if lost is not None and lost >= 2:
        after = np.linspace(lost, n - 1, count - 1).round().astype(int)
        frames = {0, lost - 1, *after[: count - 2].tolist()}
    else:
        values = np.where(np.isnan(overlaps), np.inf, overlaps)
        parts = pairwise(np.linspace(1, n, count).round().astype(int).tolist())
        frames = {0, *(int(a + np.argmin(values[a:b])) for a, b in parts if b > a)}
    spare = iter(np.linspace(0, n - 1, 4 * count).round().astype(int).tolist())
    while len(frames) < count:
        frames.add(next(spare))
    return sorted(frames)[:count]


def _strip(comparison: Comparison, focus: TrackerScore, name: str) -> Strip:
    sequence, score = comparison.sequences[name], focus.sequences[name]
    tiles = []
    for frame in choose_frames(score.overlaps, _TILES):
        image = read_image(sequence.frames[frame])
        if image is None:
            continue
        shift = np.array([sequence.origin, sequence.origin, 0, 0])
        truth = sequence.boxes[frame] - shift
        boxes = {
            tracker: runs[name].boxes[frame] - shift for tracker, runs in comparison.runs.items()
        }
        window = _window([truth, boxes[focus.tracker]], image.shape[1], image.shape[0])
        tile = _cut(image, window)
        for index, tracker in reversed(list(enumerate(comparison.trackers))):
            _rectangle(tile, boxes[tracker.tracker], window, tracker_color(index), 2)
        _rectangle(tile, truth, window, TRUTH_COLOR, 1)
        _label(tile, f"#{frame + 1}", (6, 18), (255, 255, 255))
        for index, tracker in enumerate(comparison.trackers[:5]):
            overlap = tracker.sequences[name].overlaps[frame]
            if np.isfinite(overlap):
                place = (6 + 54 * index, _TILE[1] - 8)
                _label(tile, f"{overlap:.2f}", place, _bgr(tracker_color(index)))
        tiles.append(tile)
    return Strip(name, score.measures["ao"], tiles, describe_losses(score.overlaps))


def _cut(image: Image, window: tuple[int, int, int, int]) -> Image:
    """A part of the frame at the size of a tile, black outside the frame."""
    x, y, width, height = window
    view = cv2.warpAffine(image, np.array([[1.0, 0, -x], [0, 1.0, -y]]), (width, height))
    how = cv2.INTER_AREA if width > _TILE[0] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(view, _TILE, interpolation=how), np.uint8)


def _window(boxes: list[Floats], width: int, height: int) -> tuple[int, int, int, int]:
    """The part to show (x, y, width, height): around the boxes, in the shape of a tile."""
    aspect = _TILE[0] / _TILE[1]
    shown = [box for box in boxes if np.isfinite(box).all()] or [np.array([0, 0, width, height])]
    corners = np.clip(xywh_to_corners(shown), 0, (width, height, width, height))
    first, last = corners[:, :2].min(0), corners[:, 2:].max(0)
    center, size = (first + last) / 2, last - first
    side = max(1.8 * size[0], 1.8 * size[1] * aspect, 0.12 * width, 40)
    side = min(side, max(width, height * aspect))
    x = _inside(center[0], side, width)
    y = _inside(center[1], side / aspect, height)
    return round(x), round(y), round(side), round(side / aspect)


def _inside(center: float, side: float, length: int) -> float:
    """The start of an interval around `center` that stays within 0 ... length if it fits."""
    if side >= length:
        return (length - side) / 2
    return float(np.clip(center - side / 2, 0, length - side))


def _rectangle(
    tile: Image, box: Floats, window: tuple[int, ...], color: str, thickness: int
) -> None:
    if not np.isfinite(box).all():
        return
    scale = _TILE[0] / window[2]
    x, y = (box[:2] - window[:2]) * scale
    w, h = box[2:] * scale
    corners = (round(x), round(y)), (round(x + w), round(y + h))
    cv2.rectangle(tile, *corners, (255, 255, 255), thickness + 2, cv2.LINE_AA)
    cv2.rectangle(tile, *corners, _bgr(color), thickness, cv2.LINE_AA)


def _label(tile: Image, text: str, place: tuple[int, int], color: tuple[int, int, int]) -> None:
    font, size = cv2.FONT_HERSHEY_SIMPLEX, 0.5
    (width, height), _ = cv2.getTextSize(text, font, size, 1)
    x, y = place
    cv2.rectangle(tile, (x - 3, y - height - 3), (x + width + 3, y + 4), (24, 24, 24), -1)
    bright = tuple(min(255, int(c * 0.6 + 110)) for c in color)
    cv2.putText(tile, text, place, font, size, bright, 1, cv2.LINE_AA)


def _bgr(color: str) -> tuple[int, int, int]:
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return blue, green, red
