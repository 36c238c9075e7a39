"""A tracker node for the operator's page: its images, its targets, its state."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from std_msgs.msg import Header

from siamcar_ros.data.detections import stamp_of
from siamcar_ros.data.image_messages import ImageDecoder, ImageError
from siamcar_ros.geometry import Box
from siamcar_ros.msg import TrackArray
from siamcar_ros.ros.client import TrackerClient
from siamcar_ros.ros.frame import Frame
from siamcar_ros.ros.image_subscription import VIDEO, ImageSubscription
from siamcar_ros.ros.messages import bbox_to_box
from siamcar_ros.tracking.stored_image import StoredImage

# Images and their bytes that may wait for the tracker's result, and seconds after which an image is
# shown without one.
_WAITING, _WAITING_BYTES, _PATIENCE = 300, 64_000_000, 1.0
# Seconds without /diagnostics that are reported: at first, and later, as status_rate may be 0.1 Hz.
_FIRST_SILENCE, _SILENCE = 3.0, 12.0


class View(NamedTuple):
    """An image and the tracker's result for it; None if that has not arrived in time."""

    frame: Frame
    tracks: TrackArray | None

    def image(self) -> StoredImage:
        """Return the pixels; raise ValueError if they cannot be decoded."""
        try:
            return self.frame.image()
        except ImageError as error:
            raise ValueError(f"the page cannot show these images: {error}") from error

    def described(self) -> dict[str, Any]:
        """Return the header and the targets for JSON; boxes are x, y, w, h in pixels."""
        header, tracks = self.frame.header, []
        for track in self.tracks.tracks if self.tracks is not None else []:
            described = {name: getattr(track, name) for name in ("id", "class_id", "state")}
            described["box"] = [_finite(each) for each in bbox_to_box(track.bbox)]
            described["score"] = _finite(track.score, 3)
            described["lost"] = _finite(track.seconds_lost)
            tracks.append(described)
        stamp = [header.stamp.sec, header.stamp.nanosec]
        return {"stamp": stamp, "frame_id": header.frame_id, "tracks": tracks}


class Camera:
    """Subscribes to a tracker's results and to its images, of which it keeps the newest.

    `tracker` is the node's full name. `changed` is called when there is a new view, in the client's
    thread.

    Attributes:
        client: of the tracker.
        view: the newest image with its targets; None before the first.
    """

    def __init__(self, tracker: str, changed: Callable[[], None]) -> None:
        self.view: View | None = None
        self._tracker, self._changed = tracker, changed
        self._decoder = ImageDecoder()
        self._frames: deque[Frame] = deque(maxlen=_WAITING)  # that wait for the tracker's result
        self._tracks: deque[TrackArray] = deque(maxlen=8)
        self._matched_at = -math.inf
        self._report: DiagnosticStatus | None = None
        self._reported_at = time.monotonic()
        self._topic = ""  # of the tracker's images, as it reports it
        self._images: ImageSubscription | None = None
        self.client = TrackerClient(tracker)
        self.close = self.client.close
        subscribe = self.client.node.create_subscription
        subscribe(TrackArray, f"{tracker}/tracks", self._on_tracks, 10)
        subscribe(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    def start(self, box: Box, stamp: tuple[int, int], frame_id: str, target: str) -> str:
        """Start a target as `TrackerClient.init_target` does; return a message for the operator.

        `stamp` is seconds and nanoseconds of the image on which the box was drawn.
        """
        header = Header(frame_id=frame_id)
        header.stamp.sec, header.stamp.nanosec = stamp
        return f"{self.client.init_target(box, header, target)} is being tracked"

    def figures(self) -> dict[str, Any]:
        """Return the figures of the node's newest status for JSON; empty before the first."""
        status = self.client.status
        if status is None:
            return {}
        names = ("received", "tracked", "dropped", "failed")
        counters = {name: getattr(status, f"frames_{name}") for name in names}
        latency = None if status.state == status.IDLE else _finite(1e3 * status.total_latency)
        uses = {name: getattr(status, name) for name in ("network", "backend", "device")}
        return {"latency_ms": latency} | counters | uses

    def notice(self) -> str:
        """Return what is wrong, in the node's own words if it reports it; empty if nothing is."""
        if not self.client.twins:
            return f"{self._tracker} is not in the ROS graph: it has ended, or cannot be reached"
        report, silent = self._report, time.monotonic() - self._reported_at
        if silent > (_FIRST_SILENCE if report is None else _SILENCE):
            return (
                f"{self._tracker} sends no /diagnostics: it is still loading its network, or it "
                "hangs"
            )
        if report is None:
            return ""
        if self._images is None:
            nothing = "it subscribes to no images that this page can show: Image, CompressedImage"
            return f"{self._tracker}: {report.message}; {nothing}"
        return "" if report.level == DiagnosticStatus.OK else f"{self._tracker}: {report.message}"

    # Called in the client's thread

    def _look(self, report: DiagnosticStatus) -> None:
        """Subscribe to the image topic that the tracker reports."""
        values = {each.key: each.value for each in report.values}
        topic, transport = values.get("image topic", ""), values.get("image transport", "raw")
        if topic == self._topic:
            return
        if self._images is not None:
            self._images.destroy()
        self._topic, self._images = topic, None
        if topic and transport not in VIDEO:
            self._images = ImageSubscription(
                self.client.node,
                transport=transport,
                reliability="auto",
                on_message=self._on_image,
                topic=topic.removesuffix(f"/{transport}") if transport != "raw" else topic,
            )

    def _on_image(self, message: Any) -> None:
        self._frames.append(Frame(message, self._decoder))
        while len(self._frames) > 2 and sum(each.size for each in self._frames) > _WAITING_BYTES:
            self._frames.popleft()
        self._match()

    def _on_tracks(self, message: TrackArray) -> None:
        self._tracks.append(message)
        self._match()

    def _match(self) -> None:
        """Show the newest image for which the tracker's result has arrived."""
        tracks, now = {stamp_of(each): each for each in self._tracks}, time.monotonic()
        found = next((each for each in reversed(self._frames) if each.stamp in tracks), None)
        if found is not None:
            self.view, self._matched_at = View(found, tracks[found.stamp]), now
            while self._frames.popleft() is not found:
                pass
        elif self._frames and now - self._matched_at > _PATIENCE:
            newest = self._frames[-1]
            if self.view is not None and self.view.frame is newest:
                return  # pages take a new view as a sign that the camera is alive
            self.view = View(newest, None)  # its result may still arrive
        else:
            return
        self._changed()

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == f"{self._tracker}: tracker":
                self._look(status)
                self._report, self._reported_at = status, time.monotonic()


def _finite(value: float, digits: int = 1) -> float:
    """Return a rounded number; 0 if it is not finite, which JSON cannot represent."""
    return round(value, digits) if math.isfinite(value) else 0.0
