"""Scores a live tracker: what it answered, how late, and what a robot had in hand.

There are two overlaps. `overlap_answered` compares each box with the true one of the same image:
the tracker's quality on the images that it processed. `overlap_in_hand` compares each true box,
when it arrives, with the newest box received by then: what a robot acts on, dropped frames and
latency included (the streaming accuracy of Li et al., "Towards Streaming Perception", 2020).
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np

from siamcar_ros.evaluation.metrics import iou
from siamcar_ros.geometry import Box

# Largest numbers of true boxes that wait for a detection, and of detections for a true box.
_WAITING = 1000


class LiveScore:
    """Accumulates true boxes and detections as they arrive, in either order.

    Stamps are in nanoseconds, times in seconds of one clock, boxes (x, y, w, h) in pixels. If
    stamps go back by more than `time_jump` seconds, a new pass begins. Memory grows by a few
    numbers per frame.
    """

    def __init__(self, time_jump: float = 1.0) -> None:
        self._jump = round(time_jump * 1e9)
        self._passes = [_Pass()]

    def begin(self, stamp: int) -> None:
        """Count frames from this stamp on, not from the first one that is answered."""
        self._passes[-1].first = stamp

    def add_truth(self, stamp: int, box: Box | None, shown: float) -> bool:
        """Add the true box of an image that was published at `shown`; None if the target is absent.

        Return whether a new pass began with it.
        """
        newest = self._passes[-1].newest_truth
        jumped = newest is not None and stamp < newest - self._jump
        if jumped:
            self._passes.append(_Pass())
        self._passes[-1].add_truth(stamp, box, shown)
        return jumped

    def add_detection(self, stamp: int, box: Box, arrival: float) -> None:
        """Add the tracker's box for the image with that stamp."""
        current = self._passes[-1]
        if current.newest_truth is not None:
            if stamp > current.newest_truth + self._jump:
                return  # it belongs to the previous pass
        elif current.in_hand is not None and stamp < current.in_hand[0] - self._jump:
            current = _Pass()
            self._passes.append(current)
        current.add_detection(stamp, box, arrival)

    def summary(self) -> list[dict[str, Any]]:
        """Return the scores of each pass as JSON values; None where nothing can be scored.

        `frames` are those with a true box, or known to be without a target, since the first image
        that was answered, or since `begin`. `untouched_at_end` is how many true boxes in a row, up
        to the last, the box in hand did not touch. `latency_ms` counts from `shown` to the
        detection's arrival.
        """
        return [each.summary() for each in self._passes]


class _Pass:
    """One run through the images; stamps rise within it."""

    def __init__(self) -> None:
        self.newest_truth: int | None = None
        self.in_hand: tuple[int, Box] | None = None  # the detection with the newest stamp
        self.first: int | None = None  # stamp from which on frames count
        self._truths: OrderedDict[int, tuple[Box | None, float]] = OrderedDict()
        self._detections: OrderedDict[int, tuple[Box, float]] = OrderedDict()
        self._arrivals: list[float] = []  # of the first and the last detection
        self._frames = self._detected = self._untouched = 0
        self._overlaps, self._overlaps_in_hand = array("d"), array("d")
        self._latencies = array("d")  # of the answered frames

    def add_truth(self, stamp: int, box: Box | None, shown: float) -> None:
        self.newest_truth = max(stamp, self.newest_truth or stamp)
        if self.first is not None:
            self._frames += stamp >= self.first
        if self.in_hand is not None and box is not None:
            overlap = float(iou([self.in_hand[1]], [box])[0])
            self._overlaps_in_hand.append(overlap)
            self._untouched = 0 if overlap else self._untouched + 1
        if stamp in self._detections:
            self._match((box, shown), self._detections.pop(stamp))
        else:
            _remember(self._truths, stamp, (box, shown))

    def add_detection(self, stamp: int, box: Box, arrival: float) -> None:
        if self.first is None:
            self.first = stamp
            self._frames = sum(known >= stamp for known in self._truths)
        elif stamp < self.first:
            return  # of a target that was tracked before
        self._arrivals = [*self._arrivals[:1], arrival]
        self._detected += 1
        if self.in_hand is None or stamp > self.in_hand[0]:
            self.in_hand = (stamp, box)
        if stamp in self._truths:
            self._match(self._truths.pop(stamp), (box, arrival))
        else:
            _remember(self._detections, stamp, (box, arrival))

    def summary(self) -> dict[str, Any]:
        lasted = self._arrivals[-1] - self._arrivals[0] if self._arrivals else 0.0
        answered = len(self._latencies)
        return {
            "frames": self._frames,
            "answered": answered,
            "unanswered": self._frames - answered,
            "detections": self._detected,
            "detections_per_second": round((self._detected - 1) / lasted, 2) if lasted else None,
            "overlap_answered": _mean(self._overlaps),
            "overlap_in_hand": _mean(self._overlaps_in_hand),
            "untouched_at_end": self._untouched,
            "latency_ms": spread(self._latencies),
        }

    def _match(self, truth: tuple[Box | None, float], detection: tuple[Box, float]) -> None:
        if truth[0] is not None:
            self._overlaps.append(float(iou([detection[0]], [truth[0]])[0]))
        self._latencies.append(1e3 * (detection[1] - truth[1]))


def _mean(values: array[float]) -> float | None:
    return round(float(np.mean(values)), 6) if values else None


def _remember(waiting: OrderedDict[int, Any], stamp: int, value: Any) -> None:
    waiting[stamp] = value
    if len(waiting) > _WAITING:
        waiting.popitem(last=False)


def spread(values: Sequence[float] | array[float]) -> dict[str, float] | None:
    """Return median, 90th and 99th percentile and maximum; None if there are no values."""
    if not values:
        return None
    numbers = np.percentile(np.asarray(values, np.float64), [50, 90, 99, 100]).round(3).tolist()
    return dict(zip(("median", "p90", "p99", "max"), numbers, strict=True))


def describe(score: dict[str, Any]) -> list[str]:
    """Return one pass of `LiveScore.summary` as short phrases."""
    if not score["detections"]:
        return ["no detection yet"]
    rate = score["detections_per_second"]
    often = f" ({rate:.1f} per second)" if rate else ""
    phrases = [f"{score['frames']} frames, {score['answered']} answered{often}"]
    if score["latency_ms"]:
        told = "latency {median:.1f} ms (median), {p99:.1f} ms (99th percentile)"
        phrases.append(told.format(**score["latency_ms"]))
    if score["overlap_in_hand"] is None:
        return [*phrases, "overlap unknown: there are no true boxes"]
    answered, in_hand = score["overlap_answered"], score["overlap_in_hand"]
    shown = "-" if answered is None else f"{answered:.3f}"
    return [*phrases, f"overlap {shown} on answered frames, {in_hand:.3f} in hand"]
