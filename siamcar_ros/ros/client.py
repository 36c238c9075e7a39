"""A tracker node seen from another process: start it on a target, hear what it finds.

    with TrackerClient("/tracker") as tracker:
        tracker.wait_until_active()
        tracker.init_target((412, 230, 60, 80))
        for detection in tracker.detections(timeout=5.0):
            print(detection.box, detection.score)

Nothing of it needs a spinning node of the caller's.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import rclpy
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
from rclpy.client import Client
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header
from std_srvs.srv import Trigger
from vision_msgs.msg import Detection2D

from siamcar_ros.msg import TrackStatus
from siamcar_ros.ros.frame import stamp_ns
from siamcar_ros.srv import InitTarget

Box = tuple[float, float, float, float]

logger = logging.getLogger(__name__)

STATES = {
    TrackStatus.IDLE: "idle",
    TrackStatus.TRACKING: "tracking",
    TrackStatus.UNCERTAIN: "uncertain",
    TrackStatus.LOST: "lost",
}


class TrackerUnavailable(RuntimeError):
    """The node does not answer, or not in time."""


class TargetRefused(ValueError):
    """The node refused a target; the text is its reason."""


@dataclass(frozen=True)
class Detection:
    """One Detection2D as it arrived.

    Attributes:
        stamp: of the image, nanoseconds.
        arrival: nanoseconds of the system's clock.
        box: x, y, w, h in pixels, top-left.
        score: in [0, 1]; 0 where the target is lost.
        id: the track's name.
    """

    stamp: int
    arrival: int
    box: Box
    score: float
    id: str


class TrackerClient:
    """Talks to one tracker node; spins in a thread of its own, in a context of its own.

    Args:
        tracker: the node's full name.
        on_detection: called with each detection, in the client's thread, where no service can be
            called; what it raises is logged.
    """

    def __init__(
        self, tracker: str = "/tracker", on_detection: Callable[[Detection], None] | None = None
    ) -> None:
        self.tracker = tracker.rstrip("/")
        self.status: TrackStatus | None = None
        self._on_detection = on_detection
        self._queues: list[queue.SimpleQueue[Detection]] = []
        self._context = Context()
        rclpy.init(context=self._context, signal_handler_options=rclpy.SignalHandlerOptions.NO)
        self.node = rclpy.create_node(
            "tracker_client", context=self._context, start_parameter_services=False
        )
        self._init = self.node.create_client(InitTarget, f"{self.tracker}/init_target")
        self._stop = self.node.create_client(Trigger, f"{self.tracker}/stop_tracking")
        self._state = self.node.create_client(GetState, f"{self.tracker}/get_state")
        self.node.create_subscription(Detection2D, f"{self.tracker}/detection", self._detected, 100)
        self.node.create_subscription(TrackStatus, f"{self.tracker}/status", self._reported, 100)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._spin, name="tracker client", daemon=True)
        self._thread.start()

    def __enter__(self) -> TrackerClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def wait_until_active(
        self, timeout: float = 60.0, check: Callable[[], None] | None = None
    ) -> None:
        """Return when the node is active.

        Args:
            timeout: seconds.
            check: called now and then; what it raises ends the waiting.

        Raises:
            TrackerUnavailable: the node is not there, not active in time, or has shut down.
        """
        deadline = time.monotonic() + timeout
        seen = "has not been seen"
        while time.monotonic() < deadline:
            if check is not None:
                check()
            if not self._state.wait_for_service(timeout_sec=0.2):
                continue
            try:
                state = self._call(self._state, GetState.Request(), 2.0).current_state
            except TrackerUnavailable:
                continue
            if state.id == State.PRIMARY_STATE_ACTIVE:
                return
            seen = f"is {state.label}"
            time.sleep(0.1)
        raise TrackerUnavailable(f"{self.tracker} {seen} after {timeout:g} s")

    def init_target(
        self, box: Box, header: Header | None = None, target: str = "", timeout: float = 10.0
    ) -> str:
        """Start on the target in a box; gives the track's name.

        Args:
            box: x, y, w, h in pixels, top-left.
            header: of the image on which the box was drawn; None means the newest one.
            target: name for the track; empty lets the node choose.
            timeout: seconds.

        Raises:
            TargetRefused: with the node's reason.
            TrackerUnavailable: no answer in time.
        """
        request = InitTarget.Request(header=header or Header(), id=target)
        x, y, w, h = (float(value) for value in box)
        request.bbox.center.position.x, request.bbox.center.position.y = x + w / 2, y + h / 2
        request.bbox.size_x, request.bbox.size_y = w, h
        answer = self._call(self._init, request, timeout)
        if not answer.success:
            raise TargetRefused(answer.message)
        return str(answer.id)

    def stop_tracking(self, timeout: float = 10.0) -> str:
        """End all tracks; gives the node's message."""
        return str(self._call(self._stop, Trigger.Request(), timeout).message)

    def detections(self, timeout: float = 1.0) -> Generator[Detection, None, None]:
        """Detections from now on, as they arrive; ends when none came for `timeout` seconds."""
        waiting: queue.SimpleQueue[Detection] = queue.SimpleQueue()
        self._queues.append(waiting)
        try:
            while True:
                yield waiting.get(timeout=timeout)
        except queue.Empty:
            return
        finally:
            self._queues.remove(waiting)

    def watch_frames(self, camera_info: str, on_frame: Callable[[Header], None]) -> None:
        """Hear the header of every image by the small message that goes with it.

        Args:
            camera_info: topic, of a publisher that keeps messages for late joiners as frame_source.
            on_frame: called with each header, in the client's thread.
        """
        kept = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.node.create_subscription(
            CameraInfo, camera_info, lambda info: on_frame(info.header), kept
        )

    @property
    def twins(self) -> int:
        """How many nodes of the tracker's name there are."""
        names = self.node.get_node_names_and_namespaces()
        return sum(f"{place.rstrip('/')}/{name}" == self.tracker for name, place in names)

    def close(self) -> None:
        """Leave the graph; calling it twice is harmless."""
        if not self._context.ok():
            return
        self._closing.set()
        if threading.current_thread() is not self._thread:  # else in a callback, by itself
            self._thread.join(timeout=2.0)
        self._executor.shutdown(timeout_sec=2.0)
        self.node.destroy_node()
        self._context.try_shutdown()

    def _spin(self) -> None:
        # Not spin(): an executor that is shut down by one thread fails in the one that spins.
        while not self._closing.is_set():
            try:
                self._executor.spin_once(timeout_sec=0.1)
            except ExternalShutdownException:
                return
            except BaseException:  # of the caller's: what it is told next, it must still hear
                logger.exception("a callback of the tracker client's failed")

    def _call(self, client: Client, request: Any, timeout: float) -> Any:
        if threading.current_thread() is self._thread:
            raise TrackerUnavailable(
                f"{client.srv_name} cannot be called from a callback of the client's, whose thread "
                "is the one that hears the answer: call it from another thread"
            )
        if not self._context.ok():
            raise TrackerUnavailable(f"the client of {self.tracker} is closed")
        if not client.wait_for_service(timeout_sec=timeout):
            raise TrackerUnavailable(f"no service {client.srv_name} after {timeout:g} s")
        done = threading.Event()
        future = client.call_async(request)
        future.add_done_callback(lambda _: done.set())
        if not done.wait(timeout):
            client.remove_pending_request(future)
            raise TrackerUnavailable(f"{client.srv_name} did not answer within {timeout:g} s")
        return future.result()

    def _detected(self, message: Detection2D) -> None:
        center, bbox = message.bbox.center.position, message.bbox
        scores = [result.hypothesis.score for result in message.results]
        detection = Detection(
            stamp=stamp_ns(message.header.stamp),
            arrival=time.time_ns(),
            box=(center.x - bbox.size_x / 2, center.y - bbox.size_y / 2, bbox.size_x, bbox.size_y),
            score=max(scores, default=0.0),
            id=message.id,
        )
        for waiting in list(self._queues):
            waiting.put(detection)
        if self._on_detection is not None:
            self._on_detection(detection)

    def _reported(self, message: TrackStatus) -> None:
        self.status = message
