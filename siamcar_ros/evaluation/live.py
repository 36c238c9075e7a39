"""Scores a tracker that runs live: what it answered, how late, and what a robot had in hand.

Two overlaps are told apart. That of the *answered* frames compares each box with the true one of
its own image: what the tracker can do on the images that it got. That *in hand* compares, whenever
a true box arrives, the newest box received by then: what a robot acts on, with drops and delay paid
for (the streaming accuracy of Li et al., "Towards Streaming Perception", 2020).
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np

from siamcar_ros.data.detections import Box
from siamcar_ros.evaluation.metrics import iou

# True boxes that still wait for their answer, and answers for their true box.
_WAITING = 1000


class LiveScore:
    """Takes true boxes and detections as they arrive, in any order of the two.

    Stamps are nanoseconds, arrivals seconds of a steady clock, boxes (x, y, w, h) in pixels. When
    stamps go back by more than `time_jump` seconds a new pass begins. Memory grows by one number a
    frame.
    """

    def __init__(self, time_jump: float = 1.0) -> None:
        self._jump = round(time_jump * 1e9)
        self._passes = [_Pass()]

    def add_truth(self, stamp: int, box: Box | None, arrival: float) -> bool:
        """Take the true box of the image of that stamp, None where the target is absent.

        Returns whether a new pass began with it.
        """
        newest = self._passes[-1].newest_truth
        jumped = newest is not None and stamp < newest - self._jump
        if jumped:
            self._passes.append(_Pass())
        self._passes[-1].add_truth(stamp, box, arrival)
        return jumped

    def add_detection(self, stamp: int, box: Box, arrival: float) -> None:
        """Take the tracker's box for the image of that stamp."""
        current = self._passes[-1]
        if current.newest_truth is not None:
            if stamp > current.newest_truth + self._jump:
                return  # on its way since the pass before
        elif current.in_hand is not None and stamp < current.in_hand[0] - self._jump:
            current = _Pass()
            self._passes.append(current)
        current.add_answer(stamp, box, arrival)

    def summary(self) -> list[dict[str, Any]]:
        """The scores of each pass, as JSON values; None where there is nothing to score.

        `frames` are those with a true box, or known to be without target, since the first image
        that was answered; `latency_ms` is from the arrival of the true box to that of the answer.
        """
        return [each.summary() for each in self._passes]


class _Pass:
    """One run through the images; stamps rise within it."""

    def __init__(self) -> None:
        self.newest_truth: int | None = None
        self.in_hand: tuple[int, Box] | None = None  # the answer of the newest stamp
        self._truths: OrderedDict[int, tuple[Box | None, float]] = OrderedDict()
        self._answers: OrderedDict[int, tuple[Box, float]] = OrderedDict()
        self._first_answer: int | None = None
        self._arrivals = (0.0, 0.0)  # of the first and the last answer
        self._frames = self._answered = self._detections = 0
        self._overlap, self._overlap_in_hand = _Mean(), _Mean()
        self._latencies = array("d")

    def add_truth(self, stamp: int, box: Box | None, arrival: float) -> None:
        self.newest_truth = max(stamp, self.newest_truth or stamp)
        if self.in_hand is not None and self._first_answer is not None:
            self._frames += stamp >= self._first_answer
            self._overlap_in_hand.add(self.in_hand[1], box)
        if stamp in self._answers:
            self._match((box, arrival), self._answers.pop(stamp))
        else:
            _remember(self._truths, stamp, (box, arrival))

    def add_answer(self, stamp: int, box: Box, arrival: float) -> None:
        if self._first_answer is None:
            self._first_answer = stamp
            self._arrivals = (arrival, arrival)
            self._frames = sum(known >= stamp for known in self._truths)
        self._arrivals = (self._arrivals[0], arrival)
        self._detections += 1
        if self.in_hand is None or stamp > self.in_hand[0]:
            self.in_hand = (stamp, box)
        if stamp in self._truths:
            self._match(self._truths.pop(stamp), (box, arrival))
        else:
            _remember(self._answers, stamp, (box, arrival))

    def summary(self) -> dict[str, Any]:
        lasted = self._arrivals[1] - self._arrivals[0]
        return {
            "frames": self._frames,
            "answered": self._answered,
            "unanswered": self._frames - self._answered,
            "detections": self._detections,
            "detections_per_second": round((self._detections - 1) / lasted, 2) if lasted else None,
            "overlap_answered": self._overlap.value(),
            "overlap_in_hand": self._overlap_in_hand.value(),
            "latency_ms": spread(self._latencies),
        }

    def _match(self, truth: tuple[Box | None, float], answer: tuple[Box, float]) -> None:
        self._answered += 1
        self._overlap.add(answer[0], truth[0])
        self._latencies.append(1e3 * (answer[1] - truth[1]))


class _Mean:
    """Mean overlap of the pairs that have a true box."""

    def __init__(self) -> None:
        self._sum, self._count = 0.0, 0

    def add(self, box: Box, truth: Box | None) -> None:
        if truth is not None:
            self._sum += float(iou([box], [truth])[0])
            self._count += 1

    def value(self) -> float | None:
        return round(self._sum / self._count, 6) if self._count else None


def _remember(waiting: OrderedDict[int, Any], stamp: int, value: Any) -> None:
    waiting[stamp] = value
    if len(waiting) > _WAITING:
        waiting.popitem(last=False)


def spread(values: Sequence[float] | array[float]) -> dict[str, float] | None:
    """Median, 90th and 99th percentile and maximum; None of nothing."""
    if not values:
        return None
    numbers = np.percentile(np.asarray(values, np.float64), [50, 90, 99, 100]).round(3).tolist()
    return dict(zip(("median", "p90", "p99", "max"), numbers, strict=True))
