"""A detector's boxes, which start targets and suggest where a lost one may be."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from rclpy.qos import QoSProfile
from vision_msgs.msg import Detection2DArray

from siamcar_ros.data.detections import detection_box, stamp_of
from siamcar_ros.geometry import Box, box_center, overlap
from siamcar_ros.ros.frame import Frame
from siamcar_ros.ros.targets import Target
from siamcar_ros.ros.worker import TrackWorker

if TYPE_CHECKING:
    from siamcar_ros.ros.node import TrackerNode

# Messages kept, and seconds by which one may be older or newer than the image of a point.
_KEPT = 100
_NEAR = 0.5
# A detection that overlaps a track's box of the same time by more is of the same object.
_SAME = 0.3
_LOG_PERIOD = 5.0


@dataclass(frozen=True)
class Detected:
    """One detection: its box (x, y, w, h) in pixels, and its best hypothesis."""

    box: Box
    score: float
    class_id: str


class Detections:
    """Subscribes to `detections`, keeps the recent ones, and starts targets on them."""

    def __init__(self, node: TrackerNode, worker: TrackWorker) -> None:
        self._node, self._worker, self._logger = node, worker, node.get_logger()
        self._messages: deque[tuple[int, list[Detected]]] = deque(maxlen=_KEPT)
        self._starting: Future[Target] | None = None
        node.subscribe(Detection2DArray, "detections", self._on_message, QoSProfile(depth=10))

    def at(self, point: tuple[float, float], stamp: int) -> tuple[Detected, Frame] | None:
        """Return the detection that contains a point, and its image; None if either is missing.

        The point is in pixels of the image of a stamp (ns). Only the message nearest in time
        counts, if it is at most half a second away. Of several detections in it, the one whose
        center is nearest to the point is taken.
        """
        near = min(list(self._messages), key=lambda each: abs(each[0] - stamp), default=None)
        if near is None or abs(near[0] - stamp) > _NEAR * 1e9:
            return None

        def off_center(each: Detected) -> float:
            """Largest distance to the box's middle, in halves of its size; above 1 is outside."""
            offset = np.subtract(point, box_center(each.box))
            return float(np.abs(2 * offset / each.box[2:]).max())

        best, frame = min(near[1], key=off_center, default=None), self._node.ring.at(near[0])
        if best is None or frame is None or off_center(best) > 1:
            return None
        return best, frame

    def _on_message(self, message: Detection2DArray) -> None:
        newest = self._node.ring.newest()
        frame_id = message.header.frame_id
        if newest is not None and frame_id not in ("", newest.header.frame_id):
            self._logger.warning(
                f"detections of frame_id {frame_id[:256]!r} are ignored: the images have "
                f"{newest.header.frame_id[:256]!r}",
                throttle_duration_sec=_LOG_PERIOD,
            )
            return
        found = []
        for each in message.detections:
            box = detection_box(each)
            best = max((r.hypothesis for r in each.results), key=lambda h: h.score, default=None)
            if box is not None and best is not None:
                found.append(Detected(box, best.score, best.class_id))
        stamp = stamp_of(message)
        if not stamp and newest is not None:
            stamp = newest.stamp
        self._messages.append((stamp, found))
        self._worker.look_at([each.box for each in found])
        self._start_best(found, stamp)

    def _start_best(self, found: list[Detected], stamp: int) -> None:
        """Start the best detection of `start_class` that is not tracked, if there is room."""
        settings = self._node.settings
        if self._starting is not None and not self._starting.done():
            return
        tracked = self._worker.places(stamp)
        if not settings.start_class or tracked is None:
            return
        free = [
            each
            for each in found
            if each.class_id == settings.start_class
            and each.score >= settings.start_score
            and not (tracked and overlap(each.box, tracked).max() > _SAME)
        ]
        if not free:
            return
        best, frame = max(free, key=lambda each: each.score), self._node.ring.at(stamp)
        if frame is None:
            self._logger.warning(
                "no target is started: no image is kept with the stamp of the detections",
                throttle_duration_sec=_LOG_PERIOD,
            )
            return
        self._starting = self._worker.init(frame, best.box, "", best.class_id)
        self._starting.add_done_callback(self._report)

    def _report(self, started: Future[Target]) -> None:
        if not started.cancelled() and (error := started.exception()):
            self._logger.warning(
                f"a detection starts no target: {error}", throttle_duration_sec=_LOG_PERIOD
            )
