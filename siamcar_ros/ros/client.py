"""A client of a tracker node: start it on a target and receive its detections.

    with TrackerClient("/tracker") as tracker:
        tracker.wait_until_active()
        tracker.init_target((412, 230, 60, 80))
        for detection in tracker.detections(timeout=5.0):
            print(detection.box, detection.score)

The client spins in its own thread; the caller needs no node and no executor.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import rclpy
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
from rclpy.action import ActionClient
from rclpy.client import Client
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from std_msgs.msg import Header
from std_srvs.srv import Trigger
from vision_msgs.msg import Detection2D

from siamcar_ros.action import TrackTarget
from siamcar_ros.data.detections import detection_box, stamp_of
from siamcar_ros.geometry import Box
from siamcar_ros.msg import Track, TrackArray, TrackStatus
from siamcar_ros.ros.diagnostics import count_nodes
from siamcar_ros.ros.following import Following, TargetRefused, TrackerUnavailable
from siamcar_ros.ros.messages import SERVICE_QOS, box_to_bbox
from siamcar_ros.srv import InitTarget, RemoveTarget

__all__ = ["Detection", "Following", "TargetRefused", "TrackerClient", "TrackerUnavailable"]

logger = logging.getLogger(__name__)

_Message = TypeVar("_Message")

_RETRY_PERIOD = 0.05  # seconds


@dataclass(frozen=True)
class Detection:
    """One Detection2D as received."""

    stamp: int  # the image's, in nanoseconds
    arrival: int  # system time of reception in nanoseconds
    box: Box  # x, y, w, h in pixels, top-left corner and size
    score: float  # in [0, 1]; 0 if the target is lost
    id: str  # the track's name


class TrackerClient:
    """Talks to one tracker node.

    Methods that call the node raise TargetRefused, with its reason, if it refuses, and
    TrackerUnavailable if it does not answer within `timeout` seconds.

    Args:
        tracker: the node's full name.
        on_detection: called with each detection, in the client's thread, from which no service can
            be called; exceptions are logged.
        on_status: called likewise with each TrackStatus.
        node: the node to subscribe with, which the client spins, and destroys with its context when
            it is closed; by default the client makes one, in its own context.

    Attributes:
        status: the newest TrackStatus; None before the first.
        node: the node in use, for further subscriptions.
    """

    def __init__(
        self,
        tracker: str = "/tracker",
        on_detection: Callable[[Detection], None] | None = None,
        on_status: Callable[[TrackStatus], None] | None = None,
        node: Node | None = None,
    ) -> None:
        self.tracker = tracker.rstrip("/")
        self.status: TrackStatus | None = None
        self._on_detection, self._on_status = on_detection, on_status
        self._queues: list[queue.SimpleQueue[Detection]] = []
        if node is None:
            context = Context()
            rclpy.init(context=context, signal_handler_options=rclpy.SignalHandlerOptions.NO)
            node = rclpy.create_node(
                "tracker_client",
                context=context,
                # __node of the process's arguments would give it the name of the process's node.
                cli_args=["--ros-args", "-r", "__node:=tracker_client"],
                enable_rosout=False,  # several clients of one process have the same name
                start_parameter_services=False,
            )
        self.node, self._context = node, node.context

        def client(kind: type, name: str) -> Client:
            return node.create_client(kind, f"{self.tracker}/{name}", qos_profile=SERVICE_QOS)

        self._init = client(InitTarget, "init_target")
        self._remove = client(RemoveTarget, "remove_target")
        self._stop = client(Trigger, "stop_tracking")
        self._state = client(GetState, "get_state")
        self._action: ActionClient | None = None
        node.create_subscription(Detection2D, f"{self.tracker}/detection", self._detected, 200)
        node.create_subscription(TrackStatus, f"{self.tracker}/status", self._reported, 200)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(node)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._spin, name="tracker client", daemon=True)
        self._thread.start()

    def __enter__(self) -> TrackerClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait_until_active(
        self, timeout: float = 60.0, check: Callable[[], None] | None = None
    ) -> None:
        """Return once the node is active; raise TrackerUnavailable after `timeout` seconds.

        `check` is called periodically; an exception that it raises ends the wait.
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
        self,
        box: Box,
        header: Header | None = None,
        target: str = "",
        timeout: float = 10.0,
        class_id: str = "",
    ) -> str:
        """Start tracking the target in a box; return the track's name.

        Args:
            box: x, y, w, h in pixels, top-left corner and size.
            header: of the image on which the box was drawn; None means the newest image.
            target: name for the track; empty lets the node choose one.
            timeout: seconds.
            class_id: of the target in detections and tracks; empty takes the node's parameter.
        """
        request = InitTarget.Request(
            header=header or Header(), id=target, class_id=class_id, bbox=box_to_bbox(box)
        )
        return str(self._request(self._init, request, timeout).id)

    def track_point(self, point: tuple[float, float], header: Header | None = None) -> str:
        """Start tracking the object at a point (x, y) in pixels; return the track's name.

        The node finds the object's box. `header` is as for `init_target`.
        """
        return self.init_target((*point, 0.0, 0.0), header)

    def follow(
        self,
        box: Box,
        header: Header | None = None,
        target: str = "",
        timeout: float = 10.0,
        class_id: str = "",
        *,
        lost_timeout: float = 0.0,
    ) -> Following:
        """Track a target as an action, which lasts until it is stopped, replaced or lost.

        Arguments are those of `init_target`. A box without width and height is a point, and
        `timeout` (s) limits the time between two images, too. `lost_timeout` is the number of
        seconds for which the target may be lost; 0 sets no limit.
        """
        if self._action is None:
            self._action = ActionClient(self.node, TrackTarget, f"{self.tracker}/track_target")
        goal = TrackTarget.Goal(
            header=header or Header(), id=target, class_id=class_id, bbox=box_to_bbox(box)
        )
        goal.lost_timeout = float(lost_timeout)
        tracks: queue.SimpleQueue[Track | None] = queue.SimpleQueue()
        self._require("track_target", self._action.wait_for_server, timeout)
        sent = self._action.send_goal_async(
            goal, lambda message: tracks.put(message.feedback.track)
        )
        handle = self._answer("track_target", sent, timeout)
        return Following(handle, tracks, timeout)

    def start_target(
        self,
        box: Box,
        header: Header,
        target: str = "",
        *,
        patience: float,
        wanted: Callable[[], bool] = lambda: True,
    ) -> str:
        """Like `init_target`, for an image that may reach the node later than this client.

        A refused request is repeated for `patience` seconds. TrackerUnavailable is also raised once
        `wanted()` is false.
        """
        deadline = time.monotonic() + patience
        while wanted():
            try:
                return self.init_target(box, header, target)
            except TargetRefused:
                if time.monotonic() > deadline:
                    raise
            time.sleep(_RETRY_PERIOD)
        raise TrackerUnavailable("the start was withdrawn")

    def remove_target(self, target: str, timeout: float = 10.0) -> str:
        """End the track called `target`; return the node's message."""
        request = RemoveTarget.Request(id=target)
        return str(self._request(self._remove, request, timeout).message)

    def stop_tracking(self, timeout: float = 10.0) -> str:
        """End all tracks; return the node's message."""
        return str(self._request(self._stop, Trigger.Request(), timeout).message)

    def detections(self, timeout: float = 1.0) -> Generator[Detection, None, None]:
        """Yield detections from the first `next` on; end after `timeout` seconds without one."""
        waiting: queue.SimpleQueue[Detection] = queue.SimpleQueue()
        self._queues.append(waiting)
        try:
            yield from _arriving(waiting, timeout)
        finally:
            self._queues.remove(waiting)

    def tracks(self, timeout: float = 1.0) -> Generator[TrackArray, None, None]:
        """Yield all targets of each image; begins and ends as `detections` does."""
        waiting: queue.SimpleQueue[TrackArray] = queue.SimpleQueue()
        topic = f"{self.tracker}/tracks"
        subscription = self.node.create_subscription(TrackArray, topic, waiting.put, 200)
        try:
            yield from _arriving(waiting, timeout)
        finally:
            if self._context.ok():
                self.node.destroy_subscription(subscription)

    @property
    def twins(self) -> int:
        """The number of nodes that have the tracker's name."""
        return count_nodes(self.node, self.tracker)

    def close(self) -> None:
        """Leave the graph. May be called twice."""
        self._closing.set()
        if threading.current_thread() is not self._thread:  # else called by one of its callbacks
            self._thread.join(timeout=2.0)
        if self._context.ok():
            self._executor.shutdown(timeout_sec=2.0)
            self.node.destroy_node()
            self._context.try_shutdown()

    def _spin(self) -> None:
        # Not spin(): if another thread shuts the executor down, the one that spins raises.
        while not self._closing.is_set():
            try:
                self._executor.spin_once(timeout_sec=0.1)
            except ExternalShutdownException:
                return
            except BaseException:  # raised by the caller's callback, which stays subscribed
                if not self._context.ok():
                    return
                logger.exception("a callback of the tracker client failed")

    def _request(self, client: Client, request: Any, timeout: float) -> Any:
        """Call a target service; raise TargetRefused, with the node's reason, if it fails."""
        answer = self._call(client, request, timeout)
        if not answer.success:
            raise TargetRefused(answer.message)
        return answer

    def _call(self, client: Client, request: Any, timeout: float) -> Any:
        self._require(client.srv_name, client.wait_for_service, timeout)
        future = client.call_async(request)
        try:
            return self._answer(client.srv_name, future, timeout)
        finally:
            client.remove_pending_request(future)

    def _require(self, name: str, wait: Callable[..., bool], timeout: float) -> None:
        """Raise TrackerUnavailable if a service or action cannot be called."""
        if threading.current_thread() is self._thread:
            raise TrackerUnavailable(
                f"{name} cannot be called from one of the client's callbacks: their thread "
                "receives the answer. Call it from another thread"
            )
        if not self._context.ok():
            raise TrackerUnavailable(f"the client of {self.tracker} is closed")
        if not wait(timeout_sec=timeout):
            raise TrackerUnavailable(f"there is no {name} after {timeout:g} s")

    def _answer(self, name: str, future: Any, timeout: float) -> Any:
        done = threading.Event()
        future.add_done_callback(lambda _: done.set())
        deadline = time.monotonic() + timeout
        while not done.wait(0.1):
            if time.monotonic() > deadline or not self._context.ok():
                raise TrackerUnavailable(f"{name} did not answer within {timeout:g} s")
        return future.result()

    def _detected(self, message: Detection2D) -> None:
        box = detection_box(message)
        if box is None:
            return
        detection = Detection(
            stamp=stamp_of(message),
            arrival=time.time_ns(),
            box=box,
            score=max((each.hypothesis.score for each in message.results), default=0.0),
            id=message.id,
        )
        for waiting in list(self._queues):
            waiting.put(detection)
        if self._on_detection is not None:
            self._on_detection(detection)

    def _reported(self, message: TrackStatus) -> None:
        self.status = message
        if self._on_status is not None:
            self._on_status(message)


def _arriving(waiting: queue.SimpleQueue[_Message], timeout: float) -> Iterator[_Message]:
    """Yield what is put into a queue until nothing has been for `timeout` seconds."""
    with contextlib.suppress(queue.Empty):
        while True:
            yield waiting.get(timeout=timeout)
