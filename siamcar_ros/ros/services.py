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
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from siamcar_ros.ros.frame import Frame
from siamcar_ros.ros.intake import ImageIntake
from siamcar_ros.ros.mailbox import MailboxClosed
from siamcar_ros.ros.messages import bbox_to_box
from siamcar_ros.ros.ring import FrameRing
from siamcar_ros.ros.worker import TrackWorker
from siamcar_ros.srv import InitTarget

_Result = TypeVar("_Result")

# Seconds that the worker may be at one image or request before it counts as stuck.
STUCK_AFTER = 5.0


class TargetServices:
    """Offers `~/init_target` and `~/stop_tracking`.

    Every request is answered, a refused one with the reason. The callbacks await the worker's
    thread and leave the executor to other callbacks meanwhile.

    Args:
        node: offers the services.
        ring: the recent images.
        ready: gives the worker and the image subscription; raises ValueError where the node is
            not active.
        awaits: the executor can await callbacks. One that cannot is held up until the worker
            answers, for a frame or two.
    """

    def __init__(
        self,
        node: Node,
        *,
        ring: FrameRing,
        ready: Callable[[], tuple[TrackWorker, ImageIntake]],
        awaits: bool,
    ) -> None:
        self._node = node
        self._ring = ring
        self._ready = ready
        self._names_given = 0
        adapt = (lambda callback: callback) if awaits else _to_the_end
        # Of their own: a request that is awaited holds up all others of a group but of this kind.
        group = ReentrantCallbackGroup()
        for kind, name, callback in (
            (InitTarget, "~/init_target", self._on_init_target),
            (Trigger, "~/stop_tracking", self._on_stop_tracking),
        ):
            node.create_service(kind, name, adapt(callback), callback_group=group)

    async def _on_init_target(
        self, request: InitTarget.Request, response: InitTarget.Response
    ) -> InitTarget.Response:
        try:
            worker, intake = self._ready()
            box = bbox_to_box(request.bbox)
            frame = self._frame_named(request.header, intake)
            target = request.id or self._new_name(worker)
            response.message = await self._outcome(worker.init(frame, box, target))
            response.id = target
            response.success = True
        except Exception as error:
            response.message = self._reason(error)
            self._node.get_logger().warning(f"init_target refused: {response.message}")
        return response

    async def _on_stop_tracking(
        self, _: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        try:
            worker, _intake = self._ready()
            stopped = await self._outcome(worker.stop())
            names = ", ".join(map(repr, stopped))
            response.message = f"stopped {names}" if stopped else "nothing was tracked"
            response.success = True
            self._node.get_logger().info(f"stop_tracking: {response.message}")
        except Exception as error:
            response.message = self._reason(error)
        return response

    def _reason(self, error: Exception) -> str:
        """What to answer; a fault of the node, and not of the request, is logged besides."""
        if isinstance(error, ValueError):
            return str(error)
        if isinstance(error, MailboxClosed | CancelledError):
            return "the node is shutting down"
        where = "".join(traceback.format_exception(error))
        self._node.get_logger().error(f"a service call failed: {where}")
        return f"{type(error).__name__}: {error}"

    async def _outcome(self, future: Future[_Result]) -> _Result:
        """Await the worker's answer; ValueError where it is stuck."""
        done = RosFuture()
        given_up = False

        def go_on(_: Future[_Result] | None = None) -> None:
            done.set_result(None)
            self._node.executor.wake()

        def give_up() -> None:
            nonlocal given_up
            given_up = True
            # What the worker has not begun is withdrawn; what it has may still come to pass.
            if not future.cancel() and not future.done():
                go_on()

        future.add_done_callback(go_on)
        patience = threading.Timer(STUCK_AFTER, give_up)
        patience.daemon = True
        patience.start()
        await done
        patience.cancel()
        if given_up and (future.cancelled() or not future.done()):
            raise ValueError(f"the tracker is stuck: it gave no answer within {STUCK_AFTER:g} s")
        return future.result()

    def _frame_named(self, header: Header, intake: ImageIntake) -> Frame:
        """The image that a box was drawn on; ValueError where it is not to be had."""
        newest, span = self._ring.newest(), self._ring.span()
        if newest is None or span is None:
            raise ValueError(
                f"no image has come on {intake.topic} ({intake.publishers} publishers): check that "
                "the camera runs, the remapping of 'image', image_transport and qos_reliability"
            )
        if header.frame_id and header.frame_id != newest.header.frame_id:
            raise ValueError(
                f"the box is for frame_id {header.frame_id!r}, the images on {intake.topic} are of "
                f"{newest.header.frame_id!r}"
            )
        stamp = stamp_ns(header.stamp)
        if stamp == 0:
            return newest
        frame = self._ring.at(stamp)
        if frame is None:
            raise ValueError(
                f"no image with the stamp {_seconds(stamp)} is held; held are {len(self._ring)} "
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


def _to_the_end(callback: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
    """An async callback as a plain one, for an executor that awaits none."""

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
