"""Starting and stopping targets: by services, an action, and detections."""

from __future__ import annotations

import threading
import time
import traceback
import types
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING, Any, TypeVar, cast

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.task import Future as RosFuture
from std_srvs.srv import Trigger

from siamcar_ros.action import TrackTarget
from siamcar_ros.data.detections import stamp_of
from siamcar_ros.ros.diagnostics import STUCK_AFTER
from siamcar_ros.ros.frame import Frame
from siamcar_ros.ros.image_input import ImageInput
from siamcar_ros.ros.messages import SERVICE_QOS, bbox_to_box, box_to_bbox
from siamcar_ros.ros.parameters import checked_name
from siamcar_ros.ros.targets import Target
from siamcar_ros.srv import InitTarget, RemoveTarget

if TYPE_CHECKING:
    from siamcar_ros.ros.node import TrackerNode

_Result = TypeVar("_Result")

# Seconds that a start on a point may take: as long as tracking through some 45 images, but less
# than the 10 s for which a TrackerClient waits.
_POINT_PATIENCE = 9.0


class TargetServices:
    """Offers `~/init_target`, `~/remove_target` and `~/stop_tracking`.

    Every request is answered, a refused one with the reason. The callbacks await the worker's
    thread, so that the executor serves other callbacks meanwhile. The EventsExecutor cannot await
    them: it is blocked until the worker answers: for a frame or two, or for some 45 of them
    if a target is started on a point.
    """

    def __init__(self, node: TrackerNode) -> None:
        self._node = node
        for kind, name, act in (
            (InitTarget, "init_target", self._init_target),
            (RemoveTarget, "remove_target", self._remove_target),
            (Trigger, "stop_tracking", self._stop_tracking),
        ):
            node.create_service(
                kind,
                f"~/{name}",
                self._answering(name, act),
                qos_profile=SERVICE_QOS,
                # A request that is awaited would block all others of a group that is not reentrant.
                callback_group=ReentrantCallbackGroup(),
            )

    def _answering(
        self, service: str, act: Callable[[Any, Any], Coroutine[Any, Any, str]]
    ) -> Callable[[Any, Any], Any]:
        """Return the callback of a service: `act` returns the message, or raises the refusal."""

        async def answer(request: Any, response: Any) -> Any:
            try:
                response.message = await act(request, response)
                response.success = True
            except Exception as error:
                response.message = self.reason(error)
                self._node.get_logger().warning(f"{service} refused: {response.message}")
            return response

        def answer_at_once(request: Any, response: Any) -> Any:
            for _ in polled(answer(request, response)):
                pass
            return response

        return answer_at_once if self._node.settings.events_executor else answer

    async def _init_target(self, request: InitTarget.Request, response: InitTarget.Response) -> str:
        target = await self.start(request)
        response.id, response.bbox = target.id, box_to_bbox(target.box)
        return target.message

    async def _remove_target(self, request: RemoveTarget.Request, _: Any) -> str:
        worker, _images = self._node.ready()
        target = checked_name("id", request.id)
        await self.outcome(worker.remove(target))
        self._node.get_logger().info(f"remove_target: stopped {target!r}")
        return f"stopped {target!r}"

    async def _stop_tracking(self, *_: Any) -> str:
        worker, _images = self._node.ready()
        stopped = await self.outcome(worker.stop())
        names = ", ".join(map(repr, stopped))
        message = f"stopped {names}" if stopped else "nothing was tracked"
        self._node.get_logger().info(f"stop_tracking: {message}")
        return message

    async def start(self, request: InitTarget.Request | TrackTarget.Goal) -> Target:
        """Start a target, or raise the refusal as a ValueError.

        If the worker completes a refused start nevertheless, the target is removed.
        """
        worker, images = self._node.ready()
        box, class_id = bbox_to_box(request.bbox), checked_name("class_id", request.class_id)
        frame = self._frame_named(request, images)
        detections = self._node.detections
        if detections is not None and box[2:] == (0, 0):
            found = detections.at(box[:2], frame.stamp)
            if found is not None:
                detected, frame = found
                box, class_id = detected.box, class_id or detected.class_id
        future = worker.init(frame, box, checked_name("id", request.id), class_id)

        def remove(late: Future[Target]) -> None:
            if not late.cancelled() and late.exception() is None:
                worker.remove(late.result().id, late.result())

        try:
            return await self.outcome(future, _POINT_PATIENCE if box[2:] == (0, 0) else None)
        except ValueError:
            future.add_done_callback(remove)
            raise

    def reason(self, error: Exception) -> str:
        """Return the answer for an error; log it if the node, not the request, is at fault."""
        if isinstance(error, ValueError):
            return str(error)
        if isinstance(error, CancelledError):
            return "the node is shutting down"
        where = "".join(traceback.format_exception(error))
        self._node.get_logger().error(f"a service call failed: {where}")
        return f"{type(error).__name__}: {error}"

    async def outcome(self, future: Future[_Result], patience: float | None = None) -> _Result:
        """Await the worker's answer; ValueError after `patience` seconds (default STUCK_AFTER)."""
        patience = STUCK_AFTER if patience is None else patience
        done = RosFuture()
        timed_out = False

        def wake(_: Future[_Result] | None = None) -> None:
            done.set_result(None)
            self._node.executor.wake()

        def time_out() -> None:
            nonlocal timed_out
            timed_out = True
            # Withdraws the request, unless the worker has begun it; then it may still succeed.
            if not future.cancel() and not future.done():
                wake()

        future.add_done_callback(wake)
        timer = threading.Timer(min(patience, threading.TIMEOUT_MAX), time_out)
        timer.daemon = True
        timer.start()
        await done
        timer.cancel()
        if timed_out and (future.cancelled() or not future.done()):
            raise ValueError(f"the tracker is stuck: it did not answer within {patience:g} s")
        return future.result()

    def _frame_named(
        self, request: InitTarget.Request | TrackTarget.Goal, images: ImageInput
    ) -> Frame:
        """Return the image that a box was drawn on; raise ValueError if it is not available."""
        header, ring = request.header, self._node.ring
        span = ring.span()
        if span is None:
            raise ValueError(
                f"no image has arrived on {images.topic} ({images.publishers} publishers): check "
                "that the camera runs, the remapping of 'image', image_transport and "
                "qos_reliability"
            )
        oldest, newest = span
        age = time.perf_counter() - newest.received
        if age > self._node.settings.image_timeout:
            raise ValueError(
                f"the newest image on {images.topic} is {age:.1f} s old ({images.publishers} "
                "publishers): check that the camera runs, or raise the parameter image_timeout"
            )
        if header.frame_id and header.frame_id != newest.header.frame_id:
            raise ValueError(
                f"the box has frame_id {header.frame_id[:256]!r}, the images on {images.topic} "
                f"have {newest.header.frame_id[:256]!r}"
            )
        stamp = stamp_of(request)
        if stamp == 0:
            return newest
        frame = ring.at(stamp)
        if frame is None:
            raise ValueError(
                f"there is no image with the stamp {_seconds(stamp)}; kept are {len(ring)} from "
                f"{_seconds(oldest.stamp)} to {_seconds(newest.stamp)} (parameters ring_seconds, "
                "ring_memory_mb); stamp 0 means the newest"
            )
        return frame


@types.coroutine
def polled(coroutine: Coroutine[Any, Any, _Result]) -> Generator[None, None, _Result]:
    """Resume a coroutine every millisecond, for the EventsExecutor.

    It resumes one that waits without pause, and cannot await that of a service at all.
    """
    while True:
        try:
            coroutine.send(None)
        except StopIteration as end:
            return cast(_Result, end.value)
        time.sleep(0.001)
        yield


def _seconds(nanoseconds: int) -> str:
    return f"{nanoseconds // 1_000_000_000}.{nanoseconds % 1_000_000_000:09d}"
