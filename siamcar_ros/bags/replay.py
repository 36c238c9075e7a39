"""Track through a bag offline: every image once, in order, however slow the machine."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from siamcar_ros.bags.reader import Bag, Recorded
from siamcar_ros.data.annotations import read_boxes
from siamcar_ros.data.detections import detection_box, stamp_of
from siamcar_ros.data.image_messages import ImageDecoder, ImageError
from siamcar_ros.evaluation.one_pass import Tracker
from siamcar_ros.evaluation.protocols import Score, score
from siamcar_ros.geometry import Box, Image, parse_box

#: States of a frame beside those of the tracker.
BEFORE, STARTED, SKIPPED = "before", "started", "skipped"
#: A row of boxes for a frame without one.
NO_BOX = (math.nan,) * 4


@dataclass(frozen=True)
class Start:
    """Where tracking starts: on the first image at or after the given time that has a box."""

    box: Box | None = None  # (x, y, w, h) in pixels; None takes the ground truth's
    seconds: float | None = None  # since the bag's start; None: from there on


def parse_start(text: str) -> Start:
    """Read `x,y,w,h`, `x,y,w,h@seconds` or `@seconds`; ValueError if it is none of these."""
    numbers, at, moment = text.partition("@")
    try:
        box = parse_box(numbers) if numbers or not at else None
        seconds = float(moment) if at else None
        if seconds is None or math.isfinite(seconds):
            return Start(box, seconds)
    except ValueError:
        pass
    raise ValueError(
        f"cannot read {text!r} as a start: expected x,y,w,h (pixels), x,y,w,h@seconds since the"
        " bag's start, or @seconds with a ground truth"
    )


class GroundTruth:
    """True boxes, by the image's index on its topic or by its stamp in nanoseconds.

    Attributes:
        source: the topic or file that they come from.
        notes: anything unusual about them.
    """

    def __init__(self, source: str, boxes: dict[int, Box | None], *, by_stamp: bool) -> None:
        self.source = source
        self.notes: list[str] = []
        self._boxes, self._by_stamp = boxes, by_stamp
        self._matched = 0

    @classmethod
    def from_file(cls, path: str | Path) -> GroundTruth:
        """Read a text file with a row x,y,w,h per image of the topic, `nan` where it is absent."""
        rows = [(x, y, w, h) for x, y, w, h in read_boxes(path).tolist()]
        boxes = {i: row if np.isfinite(row).all() else None for i, row in enumerate(rows)}
        return cls(str(path), boxes, by_stamp=False)

    @classmethod
    def from_topic(cls, bag: Bag, topic: str) -> GroundTruth:
        """Read a topic of vision_msgs/Detection2D. A box belongs to the image of the same stamp."""
        topic = bag.detection_topic(topic)
        boxes: dict[int, Box | None] = {}
        unreadable: list[str] = []
        for recorded in bag.messages(topic):
            if recorded.message is None:
                unreadable.append(str(recorded.error))
                continue
            stamp, box = stamp_of(recorded.message), detection_box(recorded.message)
            if boxes.setdefault(stamp, box) != box:
                raise ValueError(
                    f"{topic}: different boxes have the same stamp, so that it is unknown which"
                    " images they belong to; give a row per image with --ground-truth"
                )
        truth = cls(topic, boxes, by_stamp=True)
        if unreadable:
            count, first = len(unreadable), unreadable[0]
            truth.notes.append(f"{topic}: {count} messages cannot be read ({first})")
        return truth

    def box(self, index: int, stamp: int) -> Box | None:
        """The true box in image number `index` of the topic; None if there is none."""
        key = stamp if self._by_stamp else index
        self._matched += key in self._boxes
        return self._boxes.get(key)

    def check(self, images: int) -> None:
        """Add to `notes` how the boxes fit the topic's `images`, after the last `box`."""
        rows = len(self._boxes)
        if self._by_stamp and self._matched < images:
            self.notes.append(
                f"{self.source}: {images - self._matched} of {images} images have no ground truth"
                " of the same stamp and are not scored"
            )
        elif not self._by_stamp and rows != images:
            rest = (
                f"no image from {rows + 1} on is scored" if rows < images else "the rest is unused"
            )
            self.notes.append(f"{self.source}: {rows} rows for {images} images; {rest}")


@dataclass(frozen=True)
class ReplayFrame:
    """The result for one image."""

    index: int  # place on the topic, from 0
    time: int  # of recording, nanoseconds
    stamp: int  # of the header, nanoseconds; 0 if the message could not be read
    frame_id: str  # of the header
    state: str  # `BEFORE`, `STARTED`, `SKIPPED` if it does not decode, or the tracker's
    box: Box | None = None  # the tracker's (x, y, w, h); the given one on the frame of the start
    score: float = math.nan  # the tracker's in [0, 1]; NaN if it gave none
    truth: Box | None = None  # the true box; None if the target is absent or its box unknown
    seconds: float = math.nan  # that the tracker took
    error: str = ""  # why the image was skipped


def replay(
    bag: Bag,
    tracker: Tracker,
    topic: str,
    start: Start,
    truth: GroundTruth | None = None,
    *,
    depth: str = "auto",
) -> Iterator[tuple[ReplayFrame, Image | None]]:
    """Run a tracker over the images of a topic.

    An image that does not decode is skipped: the tracker does not see it, and a start that was due
    on it moves to the next one. 16-bit images are scaled as `depth` says; see ImageDecoder.
    Yields each frame from the topic's first on, with its BGR image (a view of the message) or None.
    """
    if start.box is None and truth is None:
        raise ValueError("nothing says where the target is: give a box (--init) or a ground truth")
    begin = _start_time(bag, start)
    decoder = ImageDecoder(depth, say=bag.notes.append)
    started, refusals, times = False, [], []
    for index, recorded in enumerate(bag.messages(topic)):
        times.append(recorded.time)
        stamp, frame_id, image, error = _read(recorded, decoder)
        refusals += [error] if error else []
        true_box = None if truth is None else truth.box(index, stamp)
        given = start.box or true_box
        state, box, score, seconds = SKIPPED, None, math.nan, math.nan
        clock = time.perf_counter()
        if image is not None and started:
            result = tracker.update(image)
            seconds = time.perf_counter() - clock
            x, y, width, height = map(float, result.box)
            box, score = (x, y, width, height), float(getattr(result, "score", math.nan))
            state = getattr(result, "state", "tracking")
            state = str(getattr(state, "value", state))
        elif image is not None and recorded.time >= begin and given is not None:
            tracker.init(image, given)
            seconds = time.perf_counter() - clock
            state, box, score, started = STARTED, given, 1.0, True
        elif image is not None:
            state = BEFORE
        head = (index, recorded.time, stamp, frame_id)
        yield ReplayFrame(*head, state, box, score, true_box, seconds, error), image
    if truth is not None:
        truth.check(len(times))
    if not started:
        raise ValueError(_no_start(bag, topic, start, times, refusals))


def _read(recorded: Recorded, decoder: ImageDecoder) -> tuple[int, str, Image | None, str]:
    """Return stamp, frame_id and pixels of an image message; without pixels, the reason."""
    message = recorded.message
    if message is None:
        return 0, "", None, recorded.error
    stamp, frame_id = stamp_of(message), str(message.header.frame_id)
    try:
        return stamp, frame_id, decoder.decode(message), ""
    except ImageError as refusal:
        return stamp, frame_id, None, str(refusal)


def _start_time(bag: Bag, start: Start) -> int:
    if start.seconds is None:
        return bag.start
    begin = bag.start + round(start.seconds * 1e9)
    if not bag.start <= begin <= bag.end:
        raise ValueError(
            f"the start at {start.seconds:g} s lies outside {bag.path}, which is"
            f" {bag.seconds(bag.end):.3f} s long"
        )
    return begin


def _no_start(bag: Bag, topic: str, start: Start, times: list[int], refusals: list[str]) -> str:
    if not times:
        return f"no image of {topic} in {bag.path} is readable"
    moment = "" if start.seconds is None else f" at or after {start.seconds:g} s"
    lacking = " and has a ground truth to start from" if start.box is None else ""
    first, last = bag.seconds(times[0]), bag.seconds(times[-1])
    text = (
        f"no image{moment} decodes{lacking}; the {len(times)} images of {topic} in {bag.path} lie"
        f" from {first:.3f} s to {last:.3f} s"
    )
    return ": ".join([text, *refusals[:1]])


def replay_score(frames: list[ReplayFrame]) -> Score | None:
    """Score the frames after the start that decode and have a true box; None if there are none."""
    return score(
        [f.box or NO_BOX for f in frames],
        [f.truth or NO_BOX for f in frames],
        counted=np.array([f.box is not None and f.state != STARTED for f in frames]),
    )
