"""The action `~/track_target`: a target as a task of a mission or a behavior tree."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rclpy.action import ActionServer, CancelResponse
from rclpy.callback_groups import ReentrantCallbackGroup

from siamcar_ros.action import TrackTarget
from siamcar_ros.msg import TrackArray
from siamcar_ros.ros.services import TargetServices, polled
from siamcar_ros.ros.targets import Target
from siamcar_ros.ros.worker import TrackWorker

if TYPE_CHECKING:
    from siamcar_ros.ros.node import TrackerNode


@dataclass
class _Run:
    """One goal: rclpy's handle, the target's worker, and whether `lost_timeout` has ended it."""

    handle: Any
    worker: TrackWorker
    lost: bool = False


class TrackAction:
    """Offers `~/track_target`. A goal lasts until its target is no longer tracked."""

    def __init__(self, node: TrackerNode, services: TargetServices) -> None:
        self._node, self._services = node, services
        self._runs: dict[Target, _Run] = {}
        self._server = ActionServer(
            node,
            TrackTarget,
            "~/track_target",
            execute_callback=(
                self._execute_polling if node.settings.events_executor else self._execute
            ),
            cancel_callback=self._on_cancel,
            callback_group=ReentrantCallbackGroup(),
        )

    @property
    def active(self) -> bool:
        """Whether a goal is being executed."""
        return bool(self._runs)

    def report(self, tracks: TrackArray, targets: Mapping[str, Target]) -> None:
        """Send each goal its target's track in one image as feedback."""
        for track in tracks.tracks:
            target = targets[track.id]
            run = self._runs.get(target)
            if run is None:
                continue
            run.handle.publish_feedback(TrackTarget.Feedback(header=tracks.header, track=track))
            limit = run.handle.request.lost_timeout
            if 0 < limit <= track.seconds_lost and not run.lost:
                run.lost = True
                run.worker.remove(target.id, target)

    async def _execute(self, handle: Any) -> TrackTarget.Result:
        Result = TrackTarget.Result
        try:
            limit = handle.request.lost_timeout
            if not (math.isfinite(limit) and limit >= 0):
                raise ValueError(f"lost_timeout is a number of seconds, at least 0, not {limit}")
            worker, _images = self._node.ready()
            target = await self._services.start(handle.request)
        except Exception as error:
            handle.abort()
            return Result(outcome=Result.REFUSED, message=self._services.reason(error))
        run = self._runs[target] = _Run(handle, worker)
        if handle.is_cancel_requested:  # while it was being started
            worker.remove(target.id, target)
        ending = await self._services.outcome(target.ended, patience=math.inf)
        del self._runs[target]
        result = Result(outcome=Result.STOPPED, message=ending.reason, id=target.id)
        if handle.is_cancel_requested:
            result.message = "canceled"
            handle.canceled()
        elif ending.replaced:
            result.outcome = Result.REPLACED
            handle.abort()
        elif run.lost:
            result.outcome, result.message = Result.LOST, f"lost for {limit:g} s"
            handle.abort()
        else:
            handle.succeed()
        return result

    async def _execute_polling(self, handle: Any) -> TrackTarget.Result:
        return await polled(self._execute(handle))

    def _on_cancel(self, handle: Any) -> CancelResponse:
        for target, run in self._runs.items():
            if run.handle is handle:
                run.worker.remove(target.id, target)
        return CancelResponse.ACCEPT
