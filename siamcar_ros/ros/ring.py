"""The most recent images, so that a target can be started on a past one."""

from __future__ import annotations

import sys
import threading
from collections import deque
from pathlib import Path

from siamcar_ros.ros.frame import Frame


class FrameRing:
    """Recent frames in the order of their stamps, limited in age and in bytes.

    The newest frame is always kept, whatever its size. Thread-safe.
    """

    def __init__(self, *, seconds: float, memory: int) -> None:
        self._lock = threading.Lock()
        self._frames: deque[Frame] = deque()
        self._bytes = 0
        self._seconds, self._memory = seconds, memory
        self._full = False

    def __len__(self) -> int:
        return len(self._frames)

    def resize(self, *, seconds: float, memory: int) -> None:
        """Set new limits: seconds since a frame's arrival, and bytes of all frames."""
        with self._lock:
            self._seconds, self._memory, self._full = seconds, memory, False
            self._trim()

    def push(self, frame: Frame) -> str:
        """Keep `frame`, the newest by its stamp, and forget those over the limits.

        When memory limits it for the first time, the result says what the ring holds.
        """
        with self._lock:
            self._frames.append(frame)
            self._bytes += frame.size
            if not self._trim() or self._full:
                return ""
            self._full = True
            held = frame.received - self._frames[0].received
            return (
                f"the memory for past images, {self._memory / 1e6:g} MB, holds the last "
                f"{held:.1f} s ({len(self._frames)} images), not {self._seconds:g} s"
            )

    def clear(self) -> None:
        """Forget every frame."""
        with self._lock:
            self._frames.clear()
            self._bytes = 0

    def newest(self) -> Frame | None:
        """Return the newest frame, if there is one."""
        with self._lock:
            return self._frames[-1] if self._frames else None

    def span(self) -> tuple[Frame, Frame] | None:
        """Return the oldest and the newest frame, if there is one."""
        with self._lock:
            return (self._frames[0], self._frames[-1]) if self._frames else None

    def at(self, stamp: int) -> Frame | None:
        """Return the frame with exactly this stamp, if it is kept."""
        with self._lock:
            return next((each for each in self._frames if each.stamp == stamp), None)

    def after(self, frame: Frame, *, skip: float = 0.0) -> Frame | None:
        """Return the first frame received after `frame`; None if `frame` is the newest.

        Frames received less than `skip` seconds after `frame` are skipped, except for the newest.
        """
        with self._lock:
            later = [each for each in self._frames if each.received > frame.received]
        due = (each for each in later if each.received >= frame.received + skip)
        return next(due, later[-1]) if later else None

    def _trim(self) -> bool:
        """Forget frames over the limits; return whether memory was the reason for one."""
        scarce = False
        oldest = self._frames[-1].received - self._seconds if self._frames else 0.0
        while len(self._frames) > 1 and (
            self._frames[0].received < oldest or self._bytes > self._memory
        ):
            scarce |= self._frames[0].received >= oldest
            self._bytes -= self._frames.popleft().size
        return scarce


def free_memory() -> int:
    """Return the bytes of memory that are free here: of the machine, or of a container's share."""
    group, free = Path("/sys/fs/cgroup"), sys.maxsize
    try:
        meminfo = Path("/proc/meminfo").read_text()
        free = 1024 * int(meminfo.split("MemAvailable:")[1].split()[0])
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
        cached = (group / "memory.stat").read_text().split("inactive_file ")[1].split()[0]
        return min(free, limit - used + int(cached))  # files read long ago make way
    except (OSError, ValueError, IndexError):  # not Linux, or a container without a limit
        return free
