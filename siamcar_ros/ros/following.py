"""A target that a client follows as an action, and the errors of a client."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Any

from siamcar_ros.action import TrackTarget
from siamcar_ros.msg import Track


class TrackerUnavailable(RuntimeError):
    """The node does not exist, does not answer, or is not active in time."""


class TargetRefused(ValueError):
    """The node refused to start or stop a target; the message is its reason."""


class Following:
    """A goal of the action `track_target`; iterate over it for its Track in each image.

    The iteration ends with the goal. It raises TargetRefused, with the node's reason, if the target
    was never started, and TrackerUnavailable if nothing arrives for `timeout` seconds.

    Attributes:
        result: of the goal, a TrackTarget.Result; None while it lasts.
    """

    def __init__(
        self, handle: Any, tracks: queue.SimpleQueue[Track | None], timeout: float
    ) -> None:
        self.result: TrackTarget.Result | None = None
        self._handle, self._tracks, self._timeout = handle, tracks, timeout
        self._outcome = handle.get_result_async()
        self._outcome.add_done_callback(lambda _: tracks.put(None))

    def cancel(self) -> None:
        """Ask the node to stop; the iteration ends when it has."""
        self._handle.cancel_goal_async()

    def __iter__(self) -> Iterator[Track]:
        while self.result is None:
            try:
                track = self._tracks.get(timeout=self._timeout)
            except queue.Empty:
                raise TrackerUnavailable(f"nothing in {self._timeout:g} s") from None
            if track is not None:
                yield track
                continue
            self.result = self._outcome.result().result
            if self.result.outcome == TrackTarget.Result.REFUSED:
                raise TargetRefused(self.result.message)
