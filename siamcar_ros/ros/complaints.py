"""Warnings that repeat with every message, each logged once in a while."""

from __future__ import annotations

import time

from rclpy.node import Node

_PERIOD = 10.0
# Reasons may differ without end, as with a sensor that counts its messages in frame_id.
_MOST_REASONS = 64


class Complaints:
    """Logs each reason at most every 10 s; rclpy's own throttle would drop a second reason.

    Args:
        node: logs.
        what: is wrong; begins each line.
    """

    def __init__(self, node: Node, what: str) -> None:
        self._node, self._what = node, what
        self._said: dict[str, float] = {}

    def say(self, reason: str) -> None:
        """Log a reason as a warning."""
        now = time.monotonic()
        if now - self._said.get(reason, -_PERIOD) >= _PERIOD and len(self._said) < _MOST_REASONS:
            self._said[reason] = now
            self._node.get_logger().warning(f"{self._what}: {reason}")
