"""The services that start and stop targets."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.task import Future as RosFuture
from std_srvs.srv import Trigger

from siamcar_ros.data.detections import stamp_of
from siamcar_ros.ros.frame import Frame
from siamcar_ros.ros.image_subscription import ImageSubscription
from siamcar_ros.ros.mailbox import MailboxClosed
from siamcar_ros.ros.messages import SERVICE_QOS, bbox_to_box
from siamcar_ros.ros.parameters import checked_name
from siamcar_ros.ros.ring import FrameRing
from siamcar_ros.ros.worker import TrackWorker
from siamcar_ros.srv import InitTarget, RemoveTarget

_Result = TypeVar("_Result")

# Seconds that the worker may spend on one image or request before it counts as stuck.
STUCK_AFTER = 5.0


class TargetServices:
    """Offers `~/init_target`, `~/remove_target` and `~/stop_tracking`.

    Every request is answered, a refused one with the reason. The callbacks await the worker's
    thread, so that the executor serves other callbacks meanwhile.

    Args:
        node: offers the services.
        ring: the recent images.
        ready: returns the worker and the image subscription; raises ValueError if the node is not
            active.
        image_timeout: returns the age in seconds above which the newest image is too old to start
            on.
        awaits: whether the executor can await callbacks. One that cannot is blocked until the
            worker answers, for a frame or two.
    """

    def __init__(
        self,
        node: Node,
        *,
        ring: FrameRing,
        ready: Callable[[], tuple[TrackWorker, ImageSubscription]],
        image_timeout: Callable[[], float],
        awaits: bool,
    ) -> None:
        self._node = node
        self._ring = ring
        self._ready = ready
        self._image_timeout = image_timeout
        self._names_given = 0
        adapt = (lambda callback: callback) if awaits else _run_to_end
        # A request that is awaited would block all others of a group that is not reentrant.
        group = ReentrantCallbackGroup()
        for kind, name, callback in (
            (InitTarget, "~/init_target", self._on_init_target),
            (RemoveTarget, "~/remove_target", self._on_remove_target),
            (Trigger, "~/stop_tracking", self._on_stop_tracking),
        ):
            node.create_service(
                kind, name, adapt(callback), qos_profile=SERVICE_QOS, callback_group=group
            )

    async def _on_init_target(
        self, request: InitTarget.Request, response: InitTarget.Response
    ) -> InitTarget.Response:
        try:
            worker, images = self._ready()
            box = bbox_to_box(request.bbox)
            frame = self._frame_named(request, images)
            target = checked_name("id", request.id) or self._new_name(worker)
            class_id = checked_name("class_id", request.class_id)
            response.message = await self._outcome(worker.init(frame, box, target, class_id))
            response.id = target
            response.success = True
        except Exception as error:
            response.message = self._reason(error)
            self._node.get_logger().warning(f"init_target refused: {response.message}")
        return response

    async def _on_remove_target(
        self, request: RemoveTarget.Request, response: RemoveTarget.Response
    ) -> RemoveTarget.Response:
        try:
            worker, _images = self._ready()
            target = checked_name("id", request.id)
            await self._outcome(worker.remove(target))
            response.message = f"stopped {target!r}"
            response.success = True
            self._node.get_logger().info(f"remove_target: {response.message}")
        except Exception as error:
            response.message = self._reason(error)
            self._node.get_logger().warning(f"remove_target refused: {response.message}")
        return response

    async def _on_stop_tracking(
        self, _: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        try:
            worker, _images = self._ready()
            stopped = await self._outcome(worker.stop())
            names = ", ".join(map(repr, stopped))
            response.message = f"stopped {names}" if stopped else "nothing was tracked"
            response.success = True
            self._node.get_logger().info(f"stop_tracking: {response.message}")
        except Exception as error:
            response.message = self._reason(error)
        return response

    def _reason(self, error: Exception) -> str:
        """Return the answer for an error; log it if the node, not the request, is at fault."""
        if isinstance(error, ValueError):
            return str(error)
        if isinstance(error, MailboxClosed | CancelledError):
            return "the node is shutting down"
        where = "".join(traceback.format_exception(error))
        self._node.get_logger().error(f"a service call failed: {where}")
        return f"{type(error).__name__}: {error}"

    async def _outcome(self, future: Future[_Result]) -> _Result:
        """Await the worker's answer; raise ValueError if it is stuck."""
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
        patience = threading.Timer(STUCK_AFTER, time_out)
        patience.daemon = True
        patience.start()
        await done
        patience.cancel()
        if timed_out and (future.cancelled() or not future.done()):
            raise ValueError(f"the tracker is stuck: it did not answer within {STUCK_AFTER:g} s")
        return future.result()

    def _frame_named(self, request: InitTarget.Request, images: ImageSubscription) -> Frame:
        """Return the image that a box was drawn on; raise ValueError if it is not available."""
        header, newest, span = request.header, self._ring.newest(), self._ring.span()
        if newest is None or span is None:
            raise ValueError(
                f"no image has arrived on {images.topic} ({images.publishers} publishers): check "
                "that the camera runs, the remapping of 'image', image_transport and "
                "qos_reliability"
            )
        age = time.perf_counter() - newest.received
        if age > self._image_timeout():
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
        frame = self._ring.at(stamp)
        if frame is None:
            raise ValueError(
                f"there is no image with the stamp {_seconds(stamp)}; kept are {len(self._ring)} "
                f"from {_seconds(span[0])} to {_seconds(span[1])} (parameters ring_length, "
                "ring_memory_mb); stamp 0 means the newest"
            )
        return frame

    def _new_name(self, worker: TrackWorker) -> str:
        while True:
            self._names_given += 1
            name = f"target-{self._names_given}"
            if name not in worker.targets:
                return name


def _run_to_end(callback: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
    """Make an async callback a plain one, for an executor that cannot await."""

    def run(request: Any, response: Any) -> Any:
        coroutine = callback(request, response)
        while True:
            try:
                coroutine.send(None)
            except StopIteration as end:
                return end.value
            time.sleep(0.001)

    return run


def _seconds(nanoseconds: int) -> str:
    return f"{nanoseconds // 1_000_000_000}.{nanoseconds % 1_000_000_000:09d}"
