"""What the worker tracks, and what it hands out for a frame."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import NamedTuple

from siamcar_ros.geometry import Box
from siamcar_ros.ros.frame import Frame
from siamcar_ros.tracking import TrackResult
from siamcar_ros.tracking.stored_image import StoredImage


class Ending(NamedTuple):
    """Why a target is no longer tracked.

    Attributes:
        replaced: another target was started in its place.
        reason: in words.
    """

    replaced: bool
    reason: str


@dataclass(frozen=True, eq=False)
class Target:
    """A target as it was started; starting it again makes a new one.

    Attributes:
        id: the track's name.
        class_id: as given at the start; may be empty.
        started: stamp in nanoseconds of the image on which it was started.
        box: x, y, w, h in pixels of that image, top-left corner and size.
        message: what was done, for the caller and the log.
        ended: has a result once the target is no longer tracked.
    """

    id: str = ""
    class_id: str = ""
    started: int = 0
    box: Box = (0.0, 0.0, 0.0, 0.0)
    message: str = ""
    ended: Future[Ending] = field(default_factory=Future)


@dataclass(frozen=True, eq=False)
class Tracked:
    """The results of one frame.

    Attributes:
        frame: the frame.
        image: its pixels; None if they were not decoded.
        results: by track, oldest first; empty if there was nothing to track.
        stages: seconds spent in each of `messages.STAGES`.
        targets: by track, the targets of `results`.
    """

    frame: Frame
    image: StoredImage | None = None
    results: dict[str, TrackResult] = field(default_factory=dict)
    stages: dict[str, float] = field(default_factory=dict)
    targets: dict[str, Target] = field(default_factory=dict)


@dataclass
class Progress:
    """How far the tracker has come with a target.

    Attributes:
        target: as it was started.
        last: the last frame that was searched for it, or on which it was started.
        catching_up: it was started on a past frame and has not reached the newest one.
        result: the newest; None before the first.
    """

    target: Target
    last: Frame
    catching_up: bool
    result: TrackResult | None = None
