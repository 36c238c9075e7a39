"""What the worker thread waits on: one slot for the newest frame, and a queue of requests."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from siamcar_ros.ros.frame import Frame

Request = tuple[Callable[[], Any], "Future[Any]"]


class MailboxClosed(Exception):
    """The worker has ended, or is about to."""


class Mailbox:
    """Hands frames and requests from the executor's thread to the worker's.

    A frame that is put while another waits takes its place: the older one is dropped and counted.
    Requests are kept and come first.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._frame: Frame | None = None
        self._requests: deque[Request] = deque()
        self._closed = False
        self.dropped = 0

    def put(self, frame: Frame) -> None:
        """Leave `frame` as the newest."""
        with self._changed:
            if self._frame is not None:
                self.dropped += 1
            self._frame = frame
            self._changed.notify()

    def ask(self, function: Callable[[], Any]) -> Future[Any]:
        """Have `function` called in the worker's thread; the future holds what comes of it.

        Raises MailboxClosed where nobody will call it.
        """
        future: Future[Any] = Future()
        with self._changed:
            if self._closed:
                raise MailboxClosed("the worker thread has ended")
            self._requests.append((function, future))
            self._changed.notify()
        return future

    def empty_slot(self) -> None:
        """Forget the waiting frame, without counting it as dropped."""
        with self._changed:
            self._frame = None

    def take(self, *, wait: bool) -> tuple[list[Request], Frame | None]:
        """All requests and the newest frame, which leave the mailbox.

        wait: sleep until there is one or the other; else both may be empty.
        Raises MailboxClosed after `close`.
        """
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: self._closed or self._frame or self._requests)
            if self._closed:
                raise MailboxClosed("the worker thread has ended")
            requests, frame = list(self._requests), self._frame
            self._requests.clear()
            self._frame = None
        return requests, frame

    def close(self) -> None:
        """Wake the worker for the last time; cancel the requests that it has not taken."""
        with self._changed:
            self._closed = True
            for _, future in self._requests:
                future.cancel()
            self._requests.clear()
            self._frame = None
            self._changed.notify_all()
