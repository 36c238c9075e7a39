"""One-pass evaluation: start on the first frame's box, track to the end, never correct."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from siamcar_ros.data import Sequence, SequenceError, read_image
from siamcar_ros.geometry import Box, Image


class Tracked(Protocol):
    """The result of an update.

    It may also have a `score` in [0, 1] and a `state`, a word or a member of an enumeration:
    "tracking", "uncertain" or "lost". Both are recorded.
    """

    @property
    def box(self) -> Any:
        """(x, y, w, h), 0-based, pixels."""


class Tracker(Protocol):
    """The two methods that a tracker needs; images are BGR uint8 (H, W, 3)."""

    def init(self, image: Image, box: Box) -> Any:
        """Start on the target in `box`."""

    def update(self, image: Image) -> Tracked:
        """Find the target in the next frame."""


class Run(NamedTuple):
    """The result of one pass over a sequence of N frames.

    Attributes:
        boxes: (N, 4) float64 in the sequence's own coordinates (`Sequence.origin`); the first row
            is the given box.
        scores: (N,) float64, the tracker's score per frame; 1 on the first, NaN where the tracker
            has none.
        times: (N,) float64 seconds per frame, without reading the image; NaN where the image did
            not decode, in which case box and state repeat the previous ones.
        states: N words, the tracker's state per frame; empty for a tracker without.
    """

    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    times: NDArray[np.float64]
    states: tuple[str, ...] = ()


def run_sequence(
    tracker: Tracker, sequence: Sequence, *, on_frame: Callable[[int], None] | None = None
) -> Run:
    """Run a tracker over a sequence from the first frame's box.

    `on_frame` is called with the index of each finished frame.

    Raises:
        SequenceError: the first frame has no box or does not decode.
    """
    sequence.check_start()
    n = len(sequence)
    boxes, scores, times = np.zeros((n, 4)), np.full(n, np.nan), np.full(n, np.nan)
    states = ["tracking"]
    shift = np.array([sequence.origin, sequence.origin, 0, 0], np.float64)
    for i, path in enumerate(sequence.frames):
        image = read_image(path)
        if image is None:
            if i == 0:
                raise SequenceError(f"{sequence.name}: the first frame does not decode: {path}")
            boxes[i] = boxes[i - 1]
            states.append(states[-1])
        elif i == 0:
            x, y, w, h = (sequence.boxes[0] - shift).tolist()
            begin = time.perf_counter()
            tracker.init(image, (x, y, w, h))
            times[0] = time.perf_counter() - begin
            boxes[0], scores[0] = sequence.boxes[0], 1.0
        else:
            begin = time.perf_counter()
            result = tracker.update(image)
            times[i] = time.perf_counter() - begin
            boxes[i] = np.asarray(result.box, np.float64) + shift
            scores[i] = getattr(result, "score", np.nan)
            state = getattr(result, "state", None)
            states.append(str(getattr(state, "value", state or "")))
        if on_frame is not None:
            on_frame(i)
    return Run(boxes, scores, times, tuple(states) if all(states) else ())
