"""Tracks through a bag frame by frame: every image once, in order, whatever the machine's speed."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from siamcar_ros.data.image_messages import ImageError, message_to_bgr
from siamcar_ros.geometry import Image
from siamcar_ros.bags.reader import Bag, BagError, Recorded
from siamcar_ros.bags.start import Start
from siamcar_ros.data.annotations import read_boxes
from siamcar_ros.data.detections import Box, detection_box, stamp_of
from siamcar_ros.evaluation.metrics import iou
from siamcar_ros.evaluation.one_pass import Tracker

#: States of a frame beside those of the tracker.
BEFORE, STARTED, SKIPPED = "before", "started", "skipped"


class GroundTruth:
    """Boxes to score against: by the image's place on its topic, or by its stamp.

    Attributes:
        source: the topic or file that they come from.
        notes: what was odd.
    """

    def __init__(self, source: str, rows: list[Box | None], stamps: list[int] | None) -> None:
        """Take boxes in the order of the images, or with the stamp of each (nanoseconds)."""
        self.source = source
        self.notes: list[str] = []
        self._rows = rows
        self._by_stamp = None if stamps is None else dict(zip(stamps, rows, strict=True))
        self._matched = 0

    @classmethod
    def from_file(cls, path: str | Path) -> GroundTruth:
        """Read a text file with a row x,y,w,h per image of the topic, `nan` where it is absent.

        Raises:
            SequenceError: a line that is not a box.
        """
        rows: list[Box | None] = [
            (row[0], row[1], row[2], row[3]) if np.isfinite(row).all() else None
            for row in read_boxes(path).tolist()
        ]
        return cls(str(path), rows, None)

    @classmethod
    def from_topic(cls, bag: Bag, topic: str) -> GroundTruth:
        """Read a topic of vision_msgs/Detection2D; a box belongs to the image of the same stamp.

        Raises:
            BagError: the topic is not there or of another type.
        """
        topic = bag.detection_topic(topic)
        messages = [m.message for m in bag.messages(topic) if m.message is not None]
        return cls(topic, [detection_box(m) for m in messages], [stamp_of(m) for m in messages])

    def box(self, index: int, stamp: int) -> Box | None:
        """Box for the topic's image number `index`; None where there is none."""
        if self._by_stamp is not None:
            self._matched += stamp in self._by_stamp
            return self._by_stamp.get(stamp)
        return self._rows[index] if index < len(self._rows) else None

    def check(self, images: int) -> None:
        """Add to `notes` what does not fit a topic of so many images, once all were asked for."""
        rows = len(self._rows)
        if self._by_stamp is not None:
            if self._matched < images:
                self.notes.append(
                    f"{self.source}: {images - self._matched} of {images} images have no ground"
                    " truth of the same stamp and are not scored"
                )
        elif rows < images:
            self.notes.append(
                f"{self.source}: {rows} rows for {images} images; from image {rows + 1} on none is"
                " scored"
            )
        elif rows > images:
            self.notes.append(f"{self.source}: {rows} rows for {images} images; the rest is unused")


@dataclass(frozen=True)
class ReplayFrame:
    """What became of one image.

    Attributes:
        index: place on the topic, from 0.
        time: of recording, nanoseconds.
        stamp: of the header, nanoseconds; 0 where the message could not be read.
        frame_id: of the header.
        state: "before" the start, "started" on it, "skipped" where it does not decode, else the
            tracker's: "tracking", "uncertain", "lost".
        box: the tracker's (x, y, w, h), the given one on the frame it was started on.
        score: the tracker's in [0, 1]; NaN where it gave none.
        truth: the true box; None where it is absent or not known.
        seconds: that the tracker took.
        error: why the image was skipped.
    """

    index: int
    time: int
    stamp: int
    frame_id: str
    state: str
    box: Box | None = None
    score: float = math.nan
    truth: Box | None = None
    seconds: float = math.nan
    error: str = ""


def replay(
    bag: Bag, tracker: Tracker, topic: str, start: Start, truth: GroundTruth | None = None
) -> Iterator[tuple[ReplayFrame, Image | None]]:
    """Run a tracker over the images of a topic.

    An image that does not decode is given as skipped, the tracker does not see it. If that happens
    at the start, the next image is started on.

    Args:
        bag: an open bag.
        tracker: any object with `init(image, box)` and `update(image).box`.
        topic: of the images, as `Bag.image_topic` gives it.
        start: where to start.
        truth: what to put beside the boxes.

    Yields:
        each frame with its image (BGR, a view of the message), from the topic's first on.

    Raises:
        BagError: no box to start from, or no image at or after the start; found before the first
            frame is given where it can be.
        TargetError: the tracker refuses the box.
    """
    if start.box is None and truth is None:
        raise BagError("nothing says where the target is: give a box (--init) or a ground truth")
    begin = _start_time(bag, start)
    started = False
    images = 0
    first, last = math.nan, math.nan
    reason = ""  # why the first of the images that cannot be used cannot
    for index, recorded in enumerate(bag.messages(topic)):
        images += 1
        last = bag.seconds(recorded.time)
        first = last if index == 0 else first
        stamp, frame_id, image, error = _read(recorded)
        reason = reason or error
        true_box = None if truth is None else truth.box(index, stamp)
        given = start.box or true_box
        state, box, score, seconds = SKIPPED, None, math.nan, math.nan
        if image is not None:
            if started:
                clock = time.perf_counter()
                result = tracker.update(image)
                seconds = time.perf_counter() - clock
                x, y, width, height = map(float, result.box)
                box, score = (x, y, width, height), float(getattr(result, "score", math.nan))
                state = str(getattr(getattr(result, "state", None), "value", "tracking"))
            elif recorded.time >= begin and given is not None:
                clock = time.perf_counter()
                tracker.init(image, given)
                seconds = time.perf_counter() - clock
                state, box, score, started = STARTED, given, 1.0, True
            else:
                state = BEFORE
        yield (
            ReplayFrame(
                index, recorded.time, stamp, frame_id, state, box, score, true_box, seconds, error
            ),
            image,
        )
    if truth is not None:
        truth.check(images)
    if not started:
        why = f": {reason}" if reason else ""
        raise BagError(_no_start(bag, topic, start, images, first, last) + why)


def _read(recorded: Recorded) -> tuple[int, str, Image | None, str]:
    """Stamp, frame_id and pixels of an image message; in place of pixels, why there are none."""
    message = recorded.message
    if message is None:
        return 0, "", None, recorded.error
    stamp, frame_id = stamp_of(message), str(message.header.frame_id)
    try:
        return stamp, frame_id, message_to_bgr(message), ""
    except ImageError as refusal:
        return stamp, frame_id, None, str(refusal)


def _start_time(bag: Bag, start: Start) -> int:
    if start.seconds is None:
        return bag.start
    begin = bag.start + round(start.seconds * 1e9)
    if not bag.start <= begin <= bag.end:
        raise BagError(
            f"the start at {start.seconds:g} s lies outside {bag.path}, which is"
            f" {bag.seconds(bag.end):.3f} s long"
        )
    return begin


def _no_start(bag: Bag, topic: str, start: Start, images: int, first: float, last: float) -> str:
    if images == 0:
        return f"no image of {topic} in {bag.path} is readable"
    told = f"the {images} images of {topic} in {bag.path} lie from {first:.3f} s to {last:.3f} s"
    moment = "" if start.seconds is None else f" at or after {start.seconds:g} s"
    if start.box is None:
        return f"no image{moment} decodes and has a ground truth to start from; {told}"
    return f"no image{moment} decodes; {told}"


def overlaps(frames: list[ReplayFrame]) -> NDArray[np.float64]:
    """Overlap of every frame (N,); NaN where nothing is to score.

    Scored are the frames after the start that decode and have a true box.
    """
    nothing = (math.nan,) * 4
    scored = [f.box is not None and f.state != STARTED for f in frames]
    boxes = np.array([f.box or nothing for f in frames], np.float64).reshape(-1, 4)
    truth = np.array([f.truth or nothing for f in frames], np.float64).reshape(-1, 4)
    return np.where(scored, iou(boxes, truth), np.nan)
