"""Starts a tracker on a target in the first frame that a source publishes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from std_msgs.msg import Header

from siamcar_ros.geometry import Box
from siamcar_ros.ros.client import TargetRefused, TrackerClient, TrackerUnavailable

# Seconds that a tracker may take to become active, and then to find the frame.
_TRACKER_PATIENCE, _START_PATIENCE = 600.0, 5.0
# Seconds that the thread is given to end.
_LAST_CALL = 1.0


class Starter:
    """Waits until a tracker node is active, then starts it on request, in a thread of its own.

    Success and failure are logged. The box (x, y, w, h) is in pixels of the frame that is
    published.
    """

    def __init__(self, tracker: str, box: Box, logger: Any) -> None:
        self._box, self._logger = box, logger
        self._closing = self._failed = False
        self._client = TrackerClient(tracker)
        self._run(self._wait)

    @property
    def busy(self) -> bool:
        """Whether the source has to wait: the tracker is not active yet, or has not answered."""
        return self._thread.is_alive()

    def start(self, header: Header) -> None:
        """Start the tracker on the frame of this header, which has just been published."""
        if not self._failed:
            self._run(self._start, header)

    def close(self) -> None:
        """Abandon a wait or a start, and leave the graph."""
        self._closing = True
        self._thread.join(_LAST_CALL)
        self._client.close()

    def _run(self, task: Callable[..., None], *arguments: Any) -> None:
        self._thread = threading.Thread(target=task, args=arguments, name="starter", daemon=True)
        self._thread.start()

    def _wait(self) -> None:
        self._logger.info(f"nothing is published until {self._client.tracker} is active")
        try:
            self._client.wait_until_active(_TRACKER_PATIENCE, self._check)
        except TrackerUnavailable as error:
            self._failed = True
            if not self._closing:
                self._logger.error(f"nothing will be tracked: {error}")

    def _check(self) -> None:
        if self._closing:
            raise TrackerUnavailable("the source has ended")

    def _start(self, header: Header) -> None:
        try:
            target = self._client.start_target(
                self._box, header, patience=_START_PATIENCE, wanted=lambda: not self._closing
            )
            self._logger.info(f"{target} is tracked from {self._box}")
        except (TargetRefused, TrackerUnavailable) as error:
            self._logger.error(f"the target at {self._box} is not tracked: {error}")
