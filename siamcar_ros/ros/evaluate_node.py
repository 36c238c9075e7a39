"""The executable `evaluate_node`: scores a live tracker against a ground-truth topic.

    ros2 run siamcar_ros evaluate_node --ros-args -p tracker:=/tracker -p report:=live.json

Subscribes to the tracker's `detection` and `status` and to `ground_truth` (vision_msgs/Detection2D
with the image's header). Logs latency, drops and overlap periodically and writes them as JSON at
the end, with the report of `siamcar replay` on the same bag if one is given: the difference is the
cost of real time. With `init` it also starts the tracker, and starts it again when stamps
go back by more than `time_jump`, as they do when a bag starts over. With `init:=ground_truth` an
idle tracker is started again on the next true box. A typed box belongs to one image: if someone
stops the tracker, it stays stopped.
"""

from __future__ import annotations

import json
import math
import sys
import time
from array import array
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.logging import get_logger
from rclpy.node import Node
from std_msgs.msg import Header
from vision_msgs.msg import Detection2D

from siamcar_ros.data.detections import detection_box, stamp_of
from siamcar_ros.data.video_messages import header_of
from siamcar_ros.evaluation.live import LiveScore, describe, spread
from siamcar_ros.geometry import Box, parse_box
from siamcar_ros.msg import TrackStatus
from siamcar_ros.ros.client import Detection, TargetRefused, TrackerClient, TrackerUnavailable
from siamcar_ros.ros.command_line import declare_read_only, run_node
from siamcar_ros.ros.image_subscription import ImageSubscription
from siamcar_ros.ros.parameters import TRANSPORTS

_FROM_TRUTH = "ground_truth"
# Fields of the tracker's last status that go into the report.
_REPORTED = (
    *("network", "backend", "device"),
    *("frames_received", "frames_tracked", "frames_dropped", "frames_failed"),
)
# An idle status that arrives within so many seconds of a start may have been sent before it.
_CROSSING = 0.3


class EvaluateNode(Node):
    """Subscribes to a tracker and to the truth; its callbacks run in the client's thread."""

    def __init__(self) -> None:
        super().__init__("evaluate_node")

        parameter = partial(declare_read_only, self)
        tracker = parameter("tracker", "tracker", "Name of the tracker node.")
        self.tracker = self.resolve_topic_name(tracker)
        self.truth = self.resolve_topic_name("ground_truth")
        self._init = parameter(
            "init",
            "",
            "Box to start the tracker on: 'x,y,w,h' in pixels on the first image, "
            f"'{_FROM_TRUTH}' for the first true box; empty starts nothing.",
        )
        self._box = None if self._init in ("", _FROM_TRUTH) else _typed_box(self._init)
        self._transport = parameter(
            "image_transport",
            "raw",
            "Of the image that a typed box is for.",
            choices=TRANSPORTS,
        )
        time_jump = parameter(
            "time_jump",
            1.0,
            "Seconds by which stamps must go back to begin a new pass.",
            range=(0.0, 3600.0),
        )
        period = parameter("period", 5.0, "Seconds between logged results.", range=(0.1, 3600.0))
        self._patience = parameter(
            "patience",
            0.5,
            "Seconds during which a start on one image is retried.",
            range=(0.0, 3600.0),
        )
        report = parameter("report", "", "JSON file to write at the end; empty: none.")
        replayed = parameter(
            "replay_report", "", "report.json of `siamcar replay` on the same bag, to compare with."
        )
        self._report_path = Path(report).expanduser() if report else None
        if self._report_path is not None:  # an unwritable path is refused now, not at the end
            self._report_path.parent.mkdir(parents=True, exist_ok=True)
            self._report_path.open("a").close()
        self._replayed = _read_replay(Path(replayed).expanduser()) if replayed else None

        self._score = LiveScore(time_jump)
        self._time_jump = round(1e9 * time_jump)
        self._latencies = array("d")  # in the node, milliseconds
        self._status: TrackStatus | None = None
        self._has_truth = False
        self._offered: tuple[Header, Box] | None = None  # where the tracker is to be started
        self._started_at: float | None = None
        self._first_header: Header | None = None  # of the image that a typed box is for
        self._newest_detection = 0  # its stamp; 0 for none since the start
        self._passes = 0
        self._images: ImageSubscription | None = None
        self.create_subscription(Detection2D, "ground_truth", self._on_truth, 200)
        self._await_image()
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(period, lambda: self.get_logger().info(self.phrases()), clock=steady)

    def run(self) -> None:
        """Score until the context ends; start the tracker as `init` says."""
        with TrackerClient(self.tracker, self._on_detection, self._on_status, self) as client:
            self.get_logger().info(f"scoring {self.tracker}/detection against {self.truth}")
            while self.context.ok():
                time.sleep(0.02)
                offered, self._offered = self._offered, None
                if offered is not None and self._started_at is None:
                    self._start(client, *offered)

    def _start(self, client: TrackerClient, header: Header, box: Box) -> None:
        """Start the tracker, unless the bag starts over meanwhile."""
        current = self._passes

        def wanted() -> bool:
            return self._passes == current

        try:
            target = client.start_target(box, header, patience=self._patience, wanted=wanted)
        except (TargetRefused, TrackerUnavailable) as error:
            if self.context.ok() and wanted():
                self.get_logger().warning(f"not started on {box}: {error}")
            return
        if wanted():
            self._started_at = time.monotonic()
            self._newest_detection = 0
            self.get_logger().info(f"{target} is tracked")

    def result(self) -> dict[str, Any]:
        """Return scores of all passes, the node's counters and the replay's scores, for JSON."""
        tracker: dict[str, Any] | None = None
        if self._status is not None:
            tracker = {name: getattr(self._status, name) for name in _REPORTED}
            tracker["latency_ms"] = spread(self._latencies)
        return {"passes": self._score.summary(), "tracker": tracker, "replay": self._replayed}

    def phrases(self) -> str:
        """Return the newest pass in a line."""
        score, counts = self._score.summary()[-1], self._status
        phrases = describe(score)
        if counts is not None and score["detections"]:
            phrases.append(
                f"tracker received {counts.frames_received}, dropped {counts.frames_dropped}"
            )
        if self._replayed is not None and self._replayed["score"] is not None:
            overlap = self._replayed["score"]["average_overlap"]
            phrases.append(f"replayed without drops: overlap {overlap:.3f}")
        return "; ".join(phrases)

    def complaint(self) -> str:
        """Say what was lacking if nothing was tracked; else nothing."""
        if any(score["detections"] for score in self._score.summary()):
            return ""
        lacking = [f"no detection came from {self.tracker}"]
        if not self._has_truth:
            lacking.append(f"no true box on {self.truth}")
        if self._images is not None and self._first_header is None:
            lacking.append(f"no image on {self._images.topic}")
        return f"nothing was tracked: {', '.join(lacking)}"

    def write_report(self) -> None:
        """Write the file `report`, if one is given; raises OSError."""
        if self._report_path is not None:
            text = json.dumps(self.result(), indent=2) + "\n"
            self._report_path.write_text(text, encoding="utf-8")

    def _on_truth(self, message: Detection2D) -> None:
        box = detection_box(message)
        self._has_truth = True
        if self._score.add_truth(stamp_of(message), box, time.perf_counter()):
            self._begin_pass()
        if self._init == _FROM_TRUTH and box is not None and self._started_at is None:
            self._offered = self._offered or (message.header, box)

    def _on_detection(self, detection: Detection) -> None:
        self._newest_detection = max(self._newest_detection, detection.stamp)
        self._score.add_detection(detection.stamp, detection.box, time.perf_counter())

    def _on_status(self, message: TrackStatus) -> None:
        before, self._status = self._status, message
        stamp = stamp_of(message)
        if message.state != TrackStatus.IDLE:
            self._latencies.append(1e3 * message.total_latency)
        elif self._started_at is not None and time.monotonic() - self._started_at > _CROSSING:
            self._on_idle(stamp)
        back = 0 if before is None else stamp_of(before) - stamp
        if stamp and back > self._time_jump and not self._has_truth:
            self._begin_pass()

    def _on_idle(self, stamp: int) -> None:
        """Handle an idle status after a start.

        The start itself can be lost: when a bag starts over, its image may be found among those of
        the previous pass, and the first new image makes the tracker forget them all. No detection
        follows then, or only one of the previous pass.
        """
        if self._box is None:
            self._started_at = None  # the next true box is offered
        elif stamp and self._first_header is not None:
            self._started_at = None
            if 0 < self._newest_detection <= stamp + self._time_jump:
                self._started_at = math.inf
                self.get_logger().warning(
                    "the tracker was stopped; the typed box belongs to an image that has passed: "
                    "it is not started again before time goes back"
                )
            else:
                self._offered = self._first_header, self._box

    def _begin_pass(self) -> None:
        self.get_logger().info("time went back: a new pass begins")
        self._passes += 1
        self._offered = self._started_at = self._first_header = None
        self._await_image()

    def _await_image(self) -> None:
        """Subscribe to the images, as a typed box belongs to the first one."""
        if self._box is not None and self._images is None:
            self._images = ImageSubscription(
                self, transport=self._transport, reliability="auto", on_message=self._on_image
            )

    def _on_image(self, message: Any) -> None:
        if self._started_at is not None and self._images is not None:
            self._images.destroy()
            self._images = None
        elif self._box is not None and self._offered is None:
            header = header_of(message)
            self._first_header = self._first_header or header
            self._offered = header, self._box


def _typed_box(text: str) -> Box:
    with suppress(ValueError):
        box = parse_box(text)
        if min(box[2:]) > 0:
            return box
    raise ValueError(f"init is x,y,w,h, '{_FROM_TRUTH}' or empty, not {text!r}")


def _read_replay(path: Path) -> dict[str, Any]:
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        return {key: report[key] for key in ("bag", "topic", "images", "tracked", "score")}
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a report of `siamcar replay`: {error}") from error


def _run() -> None:
    node = EvaluateNode()
    try:
        node.run()
    finally:
        logger = get_logger("evaluate_node")
        logger.info(node.phrases())
        if complaint := node.complaint():
            logger.error(complaint)
        node.write_report()


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM; return the process's exit status."""
    return run_node("evaluate_node", __doc__ or "", _run, args)


if __name__ == "__main__":
    sys.exit(main())
