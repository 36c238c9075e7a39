"""The most recent images, so that a target can be started on one that has passed."""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections import deque

from siamcar_ros.ros.frame import Frame


class FrameRing:
    """Recent frames in the order of their stamps, limited in number and in bytes.

    The newest frame is always kept, whatever its size. Thread-safe.
    """

    def __init__(self, *, length: int, memory: int) -> None:
        self._lock = threading.Lock()
        self._frames: deque[Frame] = deque()
        self._bytes = 0
        self._length = length
        self._memory = memory

    def __len__(self) -> int:
        return len(self._frames)

    def resize(self, *, length: int, memory: int) -> None:
        """Set new limits: frames, and bytes of pixels."""
        with self._lock:
            self._length, self._memory = length, memory
            self._trim()

    def push(self, frame: Frame) -> None:
        """Keep `frame`, the newest by its stamp; forget those over the limits."""
        with self._lock:
            self._frames.append(frame)
            self._bytes += frame.size
            self._trim()

    def clear(self) -> None:
        """Forget every frame."""
        with self._lock:
            self._frames.clear()
            self._bytes = 0

    def newest(self) -> Frame | None:
        """Return the newest frame, if there is one."""
        with self._lock:
            return self._frames[-1] if self._frames else None

    def span(self) -> tuple[int, int] | None:
        """Return the stamps of the oldest and the newest frame in nanoseconds, if there is one."""
        with self._lock:
            return (self._frames[0].stamp, self._frames[-1].stamp) if self._frames else None

    def at(self, stamp: int) -> Frame | None:
        """Return the frame with exactly this stamp, if it is kept."""
        with self._lock:
            index = bisect_left(self._frames, stamp, key=lambda frame: frame.stamp)
            if index < len(self._frames) and self._frames[index].stamp == stamp:
                return self._frames[index]
            return None

    def after(self, frame: Frame, *, skip: float = 0.0) -> Frame | None:
        """Return the first frame received after `frame`; None if `frame` is the newest.

        Frames received less than `skip` seconds after `frame` are skipped, except for the newest.
        """
        with self._lock:
            if not self._frames or self._frames[-1].received <= frame.received:
                return None
            first = bisect_right(self._frames, frame.received, key=lambda each: each.received)
            later = bisect_left(self._frames, frame.received + skip, key=lambda each: each.received)
            return self._frames[min(max(first, later), len(self._frames) - 1)]

    def _trim(self) -> None:
        while len(self._frames) > 1 and (
            len(self._frames) > self._length or self._bytes > self._memory
        ):
            self._bytes -= self._frames.popleft().size
