"""The targets that the worker tracks, and its results for a frame."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import NamedTuple

from siamcar_ros.geometry import Box
from siamcar_ros.ros.frame import Frame
from siamcar_ros.tracking import TrackResult, TrackState
from siamcar_ros.tracking.stored_image import StoredImage

_PATH = 300  # boxes of a target that are kept: 10 s of 30 images each


class Ending(NamedTuple):
    """Why a target is no longer tracked."""

    replaced: bool  # another target was started in its place
    reason: str


@dataclass(frozen=True, eq=False)
class Target:
    """A target as it was started; starting it again makes a new one."""

    id: str = ""  # the track's name
    class_id: str = ""  # as given at the start; may be empty
    started: int = 0  # stamp of the image on which it was started, in nanoseconds
    box: Box = (0.0, 0.0, 0.0, 0.0)  # x, y, w, h in pixels of that image
    message: str = ""  # what was done, for the caller and the log
    ended: Future[Ending] = field(default_factory=Future)  # done once it is no longer tracked


@dataclass(frozen=True, eq=False)
class Tracked:
    """The results of one frame; by track, oldest first."""

    frame: Frame
    image: StoredImage | None = None  # its pixels; None if they were not decoded
    results: dict[str, TrackResult] = field(default_factory=dict)
    stages: dict[str, float] = field(default_factory=dict)  # seconds by TrackStatus's names
    targets: dict[str, Target] = field(default_factory=dict)  # of `results`


@dataclass
class Progress:
    """How far the tracker has come with a target."""

    target: Target
    last: Frame  # the last frame in which it was searched for, or the one on which it was started
    catching_up: bool  # it was started on a past frame and has not reached the newest one
    lost: bool = False
    path: deque[tuple[int, Box]] = field(default_factory=lambda: deque(maxlen=_PATH))

    def add(self, frame: Frame, result: TrackResult) -> None:
        """Take the result of a frame."""
        self.last, self.lost = frame, result.state is TrackState.LOST
        self.path.append((frame.stamp, result.box))

    def place(self, stamp: int) -> Box:
        """Return its box in the frame that is nearest to a stamp in nanoseconds."""
        start = self.target.started, self.target.box
        return min((start, *self.path), key=lambda each: abs(each[0] - stamp))[1]
