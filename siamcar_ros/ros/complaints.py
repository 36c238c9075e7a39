"""Warnings about a stream of messages, without repeating them for each message."""

from __future__ import annotations

import threading
import time

from rclpy.node import Node

# Each message may have a reason of its own, as with a sensor that counts in frame_id.
_MOST_REASONS = 64  # logged within one period


class Complaints:
    """Logs each reason once in a period; rclpy's throttle would suppress other reasons, too.

    Each line begins with `what`, the name of what does not work. `period` is in seconds.
    Thread-safe.
    """

    def __init__(self, node: Node, what: str, period: float = 10.0) -> None:
        self._node, self._what, self._period = node, what, period
        self._lock = threading.Lock()
        self._said: dict[str, float] = {}

    def say(self, reason: str) -> None:
        """Log a warning, unless it has been logged in this period."""
        now = time.monotonic()
        with self._lock:
            self._said = {each: at for each, at in self._said.items() if now - at < self._period}
            if reason in self._said or len(self._said) >= _MOST_REASONS:
                return
            self._said[reason] = now
        self._node.get_logger().warning(f"{self._what}: {reason}")
