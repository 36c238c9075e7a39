"""Hands work to the tracking thread: one slot for the newest frame, and a queue of requests."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from siamcar_ros.ros.frame import Frame

Request = tuple[Callable[[], Any], "Future[Any]"]


class Mailbox:
    """Hands frames and requests from the executor's thread to the worker's.

    A frame that is put while another waits replaces it. Requests are all kept and come first.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._frame: Frame | None = None
        self._requests: deque[Request] = deque()
        self._closed = False

    def put(self, frame: Frame) -> bool:
        """Make `frame` the newest; return whether it replaced one that was waiting."""
        with self._changed:
            replaced, self._frame = self._frame is not None, frame
            self._changed.notify()
        return replaced

    def submit(self, function: Callable[[], Any]) -> Future[Any]:
        """Let the worker's thread call `function`; the future holds its result.

        After `close` the future is canceled.
        """
        future: Future[Any] = Future()
        with self._changed:
            if self._closed:
                future.cancel()
            else:
                self._requests.append((function, future))
                self._changed.notify()
        return future

    def empty_slot(self) -> None:
        """Forget the waiting frame."""
        with self._changed:
            self._frame = None

    def take(self, *, wait: bool) -> tuple[list[Request], Frame | None] | None:
        """Remove and return all requests and the newest frame; None after `close`.

        With `wait` it blocks until there is something.
        """
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: self._closed or self._frame or self._requests)
            if self._closed:
                return None
            requests, frame = list(self._requests), self._frame
            self._requests.clear()
            self._frame = None
        return requests, frame

    def close(self) -> None:
        """Wake the worker for the last time and cancel the requests that it has not taken."""
        with self._changed:
            self._closed = True
            for _, future in self._requests:
                future.cancel()
            self._requests.clear()
            self._frame = None
            self._changed.notify_all()
