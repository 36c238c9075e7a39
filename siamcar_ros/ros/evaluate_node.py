"""The executable `evaluate_node`: scores a live tracker against a ground-truth topic.

    ros2 run siamcar_ros evaluate_node --ros-args -p tracker:=/tracker -p report:=live.json

Subscribes to the tracker's `detection` and `status` and to `ground_truth`
(vision_msgs/Detection2D with the image's header); logs latency, drops and overlap as it goes, and
at the end writes them as JSON. Beside them it puts the report of `siamcar replay` on the same bag:
the difference is what was lost to real time. With `init` it also starts the tracker, and again
whenever stamps go back by more than `time_jump`, as when a bag starts anew; on true boxes also
where the tracker is found idle. A box of one image is not given for later ones: who stops the
tracker then has stopped it.
"""

from __future__ import annotations

import json
import math
import signal
import sys
import time
from array import array
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import rclpy
from rcl_interfaces.msg import FloatingPointRange, ParameterDescriptor
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.qos import QoSProfile
from std_msgs.msg import Header
from vision_msgs.msg import Detection2D

from siamcar_ros.bags.start import StartError, parse_start
from siamcar_ros.data.detections import detection_box
from siamcar_ros.evaluation.live import LiveScore, spread
from siamcar_ros.msg import TrackStatus
from siamcar_ros.ros.command_line import initialise
from siamcar_ros.ros.frame import stamp_ns
from siamcar_ros.ros.intake import ImageIntake
from siamcar_ros.ros.target_starter import Box, TargetStarter

_FROM_TRUTH = "ground_truth"
# Deep enough for a burst after a stall; the messages are small.
_DEPTH = 200


class EvaluateNode(Node):
    """Listens to a tracker and to the truth.

    Attributes:
        tracker: the tracker node's full name.
        truth: the topic of the true boxes.

    Raises:
        ValueError: an `init` that cannot be read, or a replay report that is none.
        OSError: the replay report cannot be read, or the report not be written.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("evaluate_node", **options)
        tracker = self._parameter("tracker", "tracker", "Name of the tracker node.")
        self.tracker = tracker = self.resolve_topic_name(tracker)
        self.truth = self.resolve_topic_name("ground_truth")
        init = self._parameter(
            "init",
            "",
            "Box to start the tracker on: 'x,y,w,h' in pixels for the first image,"
            f" '{_FROM_TRUTH}' for the first true box; empty starts nothing.",
        )
        self._transport = self._parameter(
            "image_transport", "raw", "Of the image that a given box is for: raw or compressed."
        )
        if self._transport not in ("raw", "compressed"):
            raise ValueError(f"image_transport is raw or compressed, not {self._transport!r}")
        time_jump = self._parameter(
            "time_jump", 1.0, "Seconds that stamps must go back to begin a new pass.", 3600.0
        )
        period = self._parameter("period", 5.0, "Seconds between logged results.", 3600.0)
        patience = self._parameter("patience", 0.5, "Seconds to try one image for.", 3600.0)
        report = self._parameter("report", "", "JSON file to write at the end; empty: none.")
        replayed = self._parameter(
            "replay_report", "", "report.json of `siamcar replay` on the same bag, to compare with."
        )
        self._report_path = Path(report) if report else None
        if self._report_path is not None:
            self._report_path.parent.mkdir(parents=True, exist_ok=True)
            self._report_path.open("a").close()  # refused now, not when all is measured
        self._replayed = _read_replay(Path(replayed)) if replayed else None
        self._init = init
        self._box = None if init in ("", _FROM_TRUTH) else _given_box(init)

        self._score = LiveScore(time_jump)
        self._status: TrackStatus | None = None
        self._time_jump = round(1e9 * time_jump)
        self._truth_comes = False
        self._box_header: Header | None = None
        self._newest_answer = 0  # its stamp; since the tracker was started, 0 for none
        self._node_latencies = array("d")
        self._intake: ImageIntake | None = None
        qos = QoSProfile(depth=_DEPTH)
        self.create_subscription(Detection2D, f"{tracker}/detection", self._on_detection, qos)
        self.create_subscription(TrackStatus, f"{tracker}/status", self._on_status, qos)
        self.create_subscription(Detection2D, "ground_truth", self._on_truth, qos)
        self._starter = TargetStarter(
            self, f"{tracker}/init_target", patience=patience, on_started=self._on_started
        )
        self._await_image()
        self.create_timer(
            max(period, 0.1), self._log, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )

    def result(self) -> dict[str, Any]:
        """Scores of all passes, the node's own counters and the replay's scores, as JSON values."""
        status = self._status
        return {
            "passes": self._score.summary(),
            "tracker": None
            if status is None
            else {
                "network": status.network,
                "backend": status.backend,
                "device": status.device,
                "frames_received": status.frames_received,
                "frames_tracked": status.frames_tracked,
                "frames_dropped": status.frames_dropped,
                "frames_failed": status.frames_failed,
                "latency_ms": spread(self._node_latencies),
            },
            "replay": self._replayed,
        }

    def finish(self) -> None:
        """Write the report."""
        if self._report_path is not None:
            text = json.dumps(self.result(), indent=2) + "\n"
            self._report_path.write_text(text, encoding="utf-8")

    def _parameter(self, name: str, default: Any, text: str, most: float | None = None) -> Any:
        described = ParameterDescriptor(description=text, read_only=True)
        if most is not None:
            limits = FloatingPointRange(from_value=0.0, to_value=most)
            described.floating_point_range = [limits]
        return self.declare_parameter(name, default, described).value

    def _on_truth(self, message: Detection2D) -> None:
        box = detection_box(message)
        self._truth_comes = True
        if self._score.add_truth(stamp_ns(message.header.stamp), box, time.perf_counter()):
            self._start_over()
        if self._init == _FROM_TRUTH and box is not None:
            self._starter.offer(message.header, box)

    def _on_detection(self, message: Detection2D) -> None:
        box = detection_box(message)
        if box is not None:
            stamp = stamp_ns(message.header.stamp)
            self._newest_answer = max(self._newest_answer, stamp)
            self._score.add_detection(stamp, box, time.perf_counter())

    def _on_status(self, message: TrackStatus) -> None:
        before, self._status = self._status, message
        if message.state != TrackStatus.IDLE:
            self._node_latencies.append(1e3 * message.total_latency)
        elif self._box is None:
            self._starter.idle()  # if it was followed, the next true box is offered
        elif self._box_header is not None:
            self._offer_again(stamp_ns(message.header.stamp), self._box_header, self._box)
        if before is not None and not self._truth_comes:
            back = stamp_ns(before.header.stamp) - stamp_ns(message.header.stamp)
            if back > self._time_jump and stamp_ns(message.header.stamp) > 0:
                self._start_over()

    def _offer_again(self, stamp: int, header: Header, box: Box) -> None:
        """A tracker that is idle at `stamp` is started again if it has lost the start itself.

        That shows by its having answered nothing since, or only images of the pass before, which
        are later ones.
        """
        if not stamp or not self._starter.idle():
            return
        if 0 < self._newest_answer <= stamp + self._time_jump:
            self.get_logger().warning(
                "the tracker follows nothing any more; the box that was given is of an image that "
                "has passed: it is not started again before time goes back"
            )
        else:
            self._starter.offer(header, box)

    def _start_over(self) -> None:
        self.get_logger().info("time went back: a new pass begins")
        self._starter.reset()
        self._box_header = None
        self._await_image()

    def _await_image(self) -> None:
        """Listen for images, to have the stamp that a given box is for, until it is started."""
        if self._box is not None and self._intake is None:
            self._intake = ImageIntake(
                self, transport=self._transport, reliability="auto", on_message=self._on_image
            )

    def _on_image(self, message: Any) -> None:
        if self._box is not None:
            self._box_header = self._box_header or message.header
            self._starter.offer(message.header, self._box)

    def _on_started(self, target: str) -> None:
        self._newest_answer = 0
        if self._intake is not None:
            self._intake.destroy()
            self._intake = None
        self.get_logger().info(f"{target} is followed")

    def _log(self) -> None:
        self.get_logger().info(describe(self.result()))


def describe(result: dict[str, Any]) -> str:
    """The newest pass in a line or two."""
    newest, tracker, replayed = result["passes"][-1], result["tracker"], result["replay"]
    if not newest["detections"]:
        return "no detection yet"
    text = (
        f"frames {newest['frames']}, answered {newest['answered']}, overlap of those"
        f" {_shown(newest['overlap_answered'])}, in hand {_shown(newest['overlap_in_hand'])}"
    )
    if newest["latency_ms"]:
        text += ", latency {median:.1f} ms, 99 % under {p99:.1f} ms".format(**newest["latency_ms"])
    if tracker is not None:
        text += ", tracker received {frames_received}, dropped {frames_dropped}".format(**tracker)
    if replayed is not None and replayed["score"] is not None:
        text += f"; replayed without drops: overlap {replayed['score']['average_overlap']:.3f}"
    return text


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _given_box(text: str) -> Box:
    """The box that a typed `init` names, (x, y, w, h) in pixels."""
    with suppress(StartError):
        start = parse_start(text)
        box = start.box if start.seconds is None else None
        if box is not None and all(map(math.isfinite, box)) and min(box[2:]) > 0:
            return box
    raise ValueError(f"init is x,y,w,h, '{_FROM_TRUTH}' or empty, not {text!r}")


def _read_replay(path: Path) -> dict[str, Any]:
    """The scores of a replay's report."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        return {key: report[key] for key in ("bag", "topic", "images", "tracked", "score")}
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no report of `siamcar replay`: {error}") from error


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM; return the process's exit status."""
    # rclpy's handler ends the context; Python's would raise KeyboardInterrupt besides, anywhere.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    status = initialise(__doc__ or "", args)
    if status is not None:
        return status
    node: EvaluateNode | None = None
    try:
        try:
            node = EvaluateNode()
        except (ValueError, OSError, ParameterException, rclpy_implementation.RCLError) as error:
            if not rclpy.ok():  # a signal has ended it
                return 0
            get_logger("evaluate_node").fatal(f"cannot start: {error}")
            return 1
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        node.get_logger().info(f"scoring {node.tracker}/detection against {node.truth}")
        executor.spin()
    except ExternalShutdownException:
        pass
    except rclpy_implementation.RCLError:
        # A signal that ends the context while the executor prepares to wait shows as this.
        if rclpy.ok():
            raise
    finally:
        if node is not None:
            # Not the node's logger: that one would publish to /rosout, through an ended context.
            get_logger("siamcar_ros").info(describe(node.result()))
            try:
                node.finish()
            except OSError as error:
                get_logger("siamcar_ros").fatal(f"the report is not written: {error}")
                status = 1
        rclpy.try_shutdown()
    return status or 0


if __name__ == "__main__":
    sys.exit(main())
