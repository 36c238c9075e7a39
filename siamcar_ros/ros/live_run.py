"""A live run: a tracker node and a frame source as processes, and a client that listens."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header
from vision_msgs.msg import Detection2D

from siamcar_ros.data.detections import detection_box, stamp_of
from siamcar_ros.evaluation.live import LiveScore
from siamcar_ros.geometry import Box
from siamcar_ros.msg import TrackStatus
from siamcar_ros.processes import Child
from siamcar_ros.ros.client import Detection, TargetRefused, TrackerClient, TrackerUnavailable

# Seconds. The first start may have to convert the network; the target's box belongs to the first
# frame, which therefore stays until a busy node has received it, too.
_ACTIVE_TIMEOUT, _FIRST_FRAME_TIMEOUT, _FIRST_FRAME_HOLD = 180.0, 30.0, 1.5
_START_PATIENCE, _STALL_TIMEOUT, _LAST_DETECTION_TIMEOUT = 5.0, 20.0, 2.0


class LiveRunError(RuntimeError):
    """The run cannot start or go on; the message says why."""


@dataclass
class Recording:
    """What the client received while a source played; stamps are in nanoseconds."""

    stamps: list[int] = field(default_factory=list)  # of the published frames, in order
    detections: dict[int, Detection] = field(default_factory=dict)  # by stamp
    statuses: list[TrackStatus] = field(default_factory=list)  # of frames with a target
    score: LiveScore = field(default_factory=LiveScore)  # latencies count from the frames' stamps
    target: tuple[Header, Box] | None = None  # where tracking starts
    last_frame: float = field(default_factory=time.monotonic)  # when it arrived


def failure(what: str, child: Child) -> LiveRunError:
    """Return the error that says what has gone wrong, and how a process's log ends."""
    return LiveRunError(f"{what}; the log of {child.name} ends with:\n{child.tail()}")


class LiveRun:
    """Starts a tracker node and lets it follow the target of one source after another.

    `folder` is for the processes' logs. `tracker` has the parameters of the tracker node, and
    `namespace` is that of all topics.
    """

    def __init__(self, folder: Path, tracker: Mapping[str, object], namespace: str) -> None:
        self._folder, self._namespace = folder, namespace
        self._recording = Recording()
        self._box: Box | None = None
        self._annotated = False
        with ExitStack() as stack:
            (self._tracker,) = stack.enter_context(self.nodes({"tracker_node": tracker}))
            self.client = stack.enter_context(
                TrackerClient(f"{namespace}/tracker", self._detected, self._reported)
            )
            self._stack = stack.pop_all()

    def __enter__(self) -> LiveRun:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @contextmanager
    def nodes(
        self, parameters: Mapping[str, Mapping[str, object]], *ros_args: str
    ) -> Iterator[list[Child]]:
        """Run some of the package's nodes, as processes, until the block is left.

        Their parameters are given by their modules in `siamcar_ros.ros`; empty ones are left out.
        """
        with ExitStack() as stack:
            nodes = []
            for module, values in parameters.items():
                arguments = ["--ros-args", "-r", f"__ns:={self._namespace}", *ros_args]
                for key, value in values.items():
                    if value != "":
                        arguments += ["-p", f"{key}:={json.dumps(value)}"]
                title, log = f"the {module.replace('_', ' ')}", self._folder / f"{module}.log"
                node = Child(title, f"siamcar_ros.ros.{module}", arguments, log)
                nodes.append(stack.enter_context(node))
                node.start()
            yield nodes

    def wait_until_active(self) -> None:
        """Return once the tracker node has loaded its network."""

        # From its log, as a service call may be answered by a node of another run.
        def started() -> bool:
            return "activate: done" in self._tracker.log.read_text(errors="replace")

        if not self.wait(started, timeout=_ACTIVE_TIMEOUT):
            raise failure(f"the tracker is not active after {_ACTIVE_TIMEOUT:g} s", self._tracker)

    def play(
        self,
        source: Mapping[str, object],
        *,
        box: Box | None = None,
        annotated: bool = True,
        seconds: float = math.inf,
        progress: Callable[[Recording], None] = lambda _: None,
    ) -> Recording:
        """Publish a source and track its target until it ends.

        Args:
            source: parameters of the frame source.
            box: the target on the first frame; None takes the true one.
            annotated: whether the source publishes true boxes.
            seconds: after which the source is ended.
            progress: called twenty times a second, and at the end.
        """
        self._box, self._annotated = box, annotated
        heard = self._recording = Recording()
        node, space = self.client.node, self._namespace
        kept = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        subscriptions = (
            node.create_subscription(CameraInfo, f"{space}/camera_info", self._framed, kept),
            node.create_subscription(Detection2D, f"{space}/ground_truth", self._truth_heard, kept),
        )
        given = {"wait_for_subscriber": True, "first_frame_hold": _FIRST_FRAME_HOLD, **source}
        with self.nodes({"frame_source": given}) as (frames,):
            begun = self.wait(
                lambda: heard.stamps and heard.target, frames, timeout=_FIRST_FRAME_TIMEOUT
            )
            if not begun:
                raise failure(f"no frame within {_FIRST_FRAME_TIMEOUT:g} s", frames)
            self._start(heard)

            def ended() -> bool:
                progress(heard)
                if time.monotonic() - heard.last_frame > _STALL_TIMEOUT:
                    raise failure(f"no frame for {_STALL_TIMEOUT:g} s", frames)
                return not frames.running

            self.wait(ended, timeout=seconds)
            if frames.status:
                raise failure("the frame source failed", frames)
            frames.end()
            self.wait(lambda: heard.stamps[-1] in heard.detections, timeout=_LAST_DETECTION_TIMEOUT)
        for each in subscriptions:
            node.destroy_subscription(each)
        progress(heard)
        self._check()
        if not heard.detections:
            raise failure("the target was given but no detection arrived", self._tracker)
        return heard

    def wait(self, done: Callable[[], object], *nodes: Child, timeout: float = math.inf) -> bool:
        """Wait until `done`, while tracker and `nodes` run; False after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while not done():
            self._check(*nodes)
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def _start(self, heard: Recording) -> None:
        assert heard.target is not None
        header, box = heard.target
        try:
            self.client.start_target(box, header, "target", patience=_START_PATIENCE)
        except (TargetRefused, TrackerUnavailable) as error:
            self._check()
            raise LiveRunError(f"the target {box} cannot be tracked: {error}") from error

    def _check(self, *nodes: Child) -> None:
        for node in (self._tracker, *nodes):
            if not node.running:
                raise failure(f"{node.name} ended with status {node.status}", node)
        if (twins := self.client.twins) > 1:
            raise LiveRunError(
                f"{twins} nodes are called {self.client.tracker}: another run is "
                "active in this ROS domain; end it or set another ROS_DOMAIN_ID"
            )

    # Called in the client's thread

    def _framed(self, info: CameraInfo) -> None:
        heard, stamp = self._recording, stamp_of(info)
        self._offer(info.header, self._box, stamp)
        heard.stamps.append(stamp)
        heard.last_frame = time.monotonic()
        if not self._annotated:
            heard.score.add_truth(stamp, None, stamp / 1e9)

    def _truth_heard(self, truth: Detection2D) -> None:
        box, stamp = detection_box(truth), stamp_of(truth)
        if self._box is None:
            self._offer(truth.header, box, stamp)
        self._recording.score.add_truth(stamp, box, stamp / 1e9)

    def _offer(self, header: Header, box: Box | None, stamp: int) -> None:
        """Let tracking start on the first box; the frames after it are scored."""
        heard = self._recording
        if heard.target is None and box is not None:
            heard.target = header, box
            heard.score.begin(stamp + 1)

    def _detected(self, detection: Detection) -> None:
        self._recording.detections[detection.stamp] = detection
        score = self._recording.score
        score.add_detection(detection.stamp, detection.box, detection.arrival / 1e9)

    def _reported(self, status: TrackStatus) -> None:
        if status.state != TrackStatus.IDLE:
            self._recording.statuses.append(status)
