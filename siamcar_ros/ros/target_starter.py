"""Starts a tracker node on a box of a certain image, as soon as that node has the image."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from std_msgs.msg import Header

from siamcar_ros.srv import InitTarget

Box = tuple[float, float, float, float]

_RETRY_PERIOD = 0.05
# A report of idleness that is younger than a start by no more than this may have crossed it.
_CROSSING = 0.3
# Seconds without an answer after which it is taken that the tracker has gone with the request.
_ANSWER_WITHIN = 10.0


@dataclass
class _Request:
    header: Header
    box: Box
    tries: int = 0


class TargetStarter:
    """Calls `init_target` until it succeeds.

    The box may arrive before the image that it is for, so a refused request is sent again for a
    moment. The tracker may also have missed that image, not be active yet, or die before it
    answers: then the next box that is offered is taken.

    Args:
        node: makes the client.
        service: name of the tracker's service.
        patience: seconds for which one box is tried.
        on_started: called with the track's id.
    """

    def __init__(
        self,
        node: Node,
        service: str,
        *,
        patience: float,
        on_started: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._node = node
        self._client = node.create_client(InitTarget, service)
        self._most_tries = max(1, round(patience / _RETRY_PERIOD))
        self._on_started = on_started
        self._request: _Request | None = None
        self._answer: Any = None  # the future of the request that is under way
        self._asked_at = 0.0
        self._started_at: float | None = None
        # The steady clock: simulated time may stand still.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        node.create_timer(_RETRY_PERIOD, self._try, clock=steady)

    @property
    def started(self) -> bool:
        """Whether the tracker follows what was offered, as far as is known."""
        return self._started_at is not None

    def offer(self, header: Header, box: Box) -> None:
        """Start on this box, unless a target is followed or another box is being tried."""
        if not self.started and self._request is None:
            self._request = _Request(header, box)

    def reset(self) -> None:
        """Forget what was started: the next offer counts."""
        self._request = None
        self._started_at = None
        self._withdraw()

    def idle(self) -> bool:
        """Take the tracker's word that it follows nothing; True where it had been started.

        That happens when a bag starts anew: the box's image is found among those of the pass
        before, and with the first new image the tracker forgets them all.
        """
        if self._started_at is None or time.monotonic() - self._started_at < _CROSSING:
            return False
        self.reset()
        return True

    def _try(self) -> None:
        request = self._request
        if self._answer is not None and time.monotonic() - self._asked_at > _ANSWER_WITHIN:
            self._node.get_logger().warning(f"no answer from {self._client.srv_name}")
            self._request = None
            self._withdraw()
            return
        if request is None or self._answer is not None:
            return
        request.tries += 1
        if not self._client.service_is_ready():
            self._give_up_after_patience(request, f"no service {self._client.srv_name}")
            return
        x, y, w, h = request.box
        message = InitTarget.Request(header=request.header)
        message.bbox.center.position.x, message.bbox.center.position.y = x + w / 2, y + h / 2
        message.bbox.size_x, message.bbox.size_y = w, h
        self._asked_at = time.monotonic()
        self._answer = self._client.call_async(message)
        self._answer.add_done_callback(lambda done: self._answered(request, done))

    def _withdraw(self) -> None:
        if self._answer is not None:
            self._client.remove_pending_request(self._answer)
            self._answer = None

    def _answered(self, request: _Request, future: Any) -> None:
        if future is not self._answer:
            return  # withdrawn meanwhile
        self._answer = None
        answer = future.result()
        if answer.success:
            self._started_at, self._request = time.monotonic(), None
            self._on_started(answer.id)
        else:
            self._give_up_after_patience(request, answer.message)

    def _give_up_after_patience(self, request: _Request, reason: str) -> None:
        if request.tries >= self._most_tries:
            self._node.get_logger().warning(f"not started on {request.box}: {reason}")
            self._request = None
