"""The thread that owns the tracker."""

from __future__ import annotations

import math
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from siamcar_ros.data.image_messages import ImageError
from siamcar_ros.geometry import Image as BgrImage
from siamcar_ros.ros.frame import Frame
from siamcar_ros.ros.loading import LoadedTracker
from siamcar_ros.ros.mailbox import Mailbox, MailboxClosed
from siamcar_ros.ros.ring import FrameRing
from siamcar_ros.tracking import TargetError, TrackerParams, TrackResult

Box = tuple[float, float, float, float]

# Catching up, the tracker goes forward through the past at no less than this many times real time.
_CATCH_UP_PACE = 2.0
# Seconds between log lines about the same trouble.
_LOG_PERIOD = 5.0


@dataclass(frozen=True, eq=False)
class Tracked:
    """What became of one frame.

    Attributes:
        image: the frame's pixels, None where nobody needed them.
        results: by track, oldest first; empty where there was nothing to track.
        stages: seconds spent waiting, converting, cropping, in the network and decoding.
    """

    frame: Frame
    image: BgrImage | None = None
    results: dict[str, TrackResult] = field(default_factory=dict)
    stages: dict[str, float] = field(default_factory=dict)


class TrackWorker:
    """Loads a tracker and feeds it, in one thread, with the newest frame and with requests.

    Requests return futures at once; they are carried out between two frames. A target that is
    started on a frame of the past is run through the ring's frames until it has caught up with
    the newest, while the other targets go on; its results are handed out from there on.

    Whatever goes wrong with a frame is logged and counted; it ends neither the thread nor, unless
    it happens many times in a row, the tracks. Images of another size do end them: their boxes
    are in pixels of the old one.

    Args:
        load: makes the tracker; called in the thread.
        ring: recent frames, `put` there before they are put into `mailbox`.
        on_frame: called in the thread after each frame that reached the present.
        logger: an rclpy logger.
        max_targets: tracks at a time; the tracker has room for one more, so that a new target is
            known to be good before an old one goes.
        max_failures: tracker errors in a row after which the tracks are stopped.
    """

    def __init__(
        self,
        *,
        load: Callable[[], LoadedTracker],
        ring: FrameRing,
        on_frame: Callable[[Tracked], None],
        logger: Any,
        max_targets: int,
        max_failures: int,
    ) -> None:
        self.mailbox = Mailbox()
        self.loaded: Future[LoadedTracker] = Future()
        self.max_failures = max_failures
        self.frames_tracked = 0
        self.frames_used = 0  # tracked, or looked at while there was nothing to track
        self.frames_failed = 0
        self.trouble = ""
        self._load = load
        self._ring = ring
        self._on_frame = on_frame
        self._logger = logger
        self._limit = max_targets
        self._failures_in_row = 0
        self._last: dict[str, Frame] = {}  # by track, the frame that it was last seen on
        self._behind: list[str] = []  # tracks that are still in the past
        self._stepped = 0.0  # when the last step of catching up began
        self._size = ""  # of the images that the targets live in
        self._good_format: str | None = None
        self._busy_since: float | None = None
        self._thread = threading.Thread(target=self._run, name="tracker", daemon=True)
        self._thread.start()

    @property
    def targets(self) -> tuple[str, ...]:
        """The ids of the tracks, oldest first."""
        return tuple(self._last)

    @property
    def busy(self) -> float:
        """Seconds that the thread has been at one image or request; infinite where it has ended."""
        if not self._thread.is_alive():
            return math.inf
        since = self._busy_since
        return 0.0 if since is None else time.perf_counter() - since

    def init(self, frame: Frame, box: Box, target: str) -> Future[str]:
        """Start `target` on `frame`; the result says what was done.

        The future raises TargetError or ImageError where the target is refused.
        """
        return self.mailbox.ask(lambda: self._init(frame, box, target))

    def stop(self) -> Future[tuple[str, ...]]:
        """End all tracks; the result names them."""
        return self.mailbox.ask(self._stop)

    def set_params(self, params: TrackerParams) -> Future[None]:
        """Track with other knobs from the next frame on."""

        def apply() -> None:
            self._tracker.params = params

        return self.mailbox.ask(apply)

    def close(self, timeout: float) -> bool:
        """End the thread; false where it is still at work after `timeout` seconds."""
        self.mailbox.close()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            loaded = self._load()
        except BaseException as error:
            self.loaded.set_exception(error)
            self.mailbox.close()
            return
        self._tracker = loaded.tracker
        self.loaded.set_result(loaded)
        while True:
            try:
                requests, frame = self.mailbox.take(wait=not self._behind)
            except MailboxClosed:
                return
            for function, future in requests:
                self._busy_since = time.perf_counter()
                _answer(function, future)
            self._busy_since = time.perf_counter()
            try:
                if frame is not None:
                    self._present(frame)
                if self._behind:
                    self._catch_up(self._behind[0])
            except Exception as error:  # a fault of this class: without the thread all would end
                self._bad_update(error)
            self._busy_since = None

    def _init(self, frame: Frame, box: Box, target: str) -> str:
        image = frame.image()
        replaced = [target] if target in self._last else []
        if self._limit == 1 or _size(image) != self._size:
            replaced = list(self._last)
        elif not replaced and len(self._last) >= self._limit:
            names = ", ".join(map(repr, self._last))
            raise TargetError(
                f"{self._limit} targets are followed already ({names}): stop them, name one of "
                "them to replace it, or start the node with a larger max_targets"
            )
        self._tracker.add(image, box, target)
        self._size = _size(image)
        for old in replaced:
            if old != target:
                self._tracker.remove(old)
            self._forget(old)
        self._last[target] = frame
        self._failures_in_row = 0
        said = f"target {target!r} started"
        if replaced:
            said += f" in place of {', '.join(map(repr, replaced))}"
        newest = self._ring.newest()
        if newest is not None and newest.received > frame.received:
            self._behind.append(target)
            self._stepped = time.perf_counter()
            said += f" {newest.received - frame.received:.2f} s in the past, catching up"
        self._logger.info(said)
        return said

    def _stop(self) -> tuple[str, ...]:
        stopped = self.targets
        self._tracker.stop()
        for target in stopped:
            self._forget(target)
        return stopped

    def _forget(self, target: str) -> None:
        del self._last[target]
        if target in self._behind:
            self._behind.remove(target)

    def _present(self, frame: Frame) -> None:
        """Take the targets that are up to date through the newest frame."""
        taken = time.perf_counter()
        live = [
            target
            for target, last in self._last.items()
            if target not in self._behind and last.received < frame.received
        ]
        if live:
            tracked = self._update(frame, live, taken)
        elif not self._last:
            tracked = self._idle(frame)
        else:
            return  # the frame's turn comes, or came, in catching up
        if tracked is not None:
            self._hand_out(tracked)

    def _catch_up(self, target: str) -> None:
        """Take a target through one more frame of the past.

        Frames are passed over where they came faster than they can be tracked, so that the
        present is always reached.
        """
        begin = time.perf_counter()
        last = self._last[target]
        frame = self._ring.after(last, skip=_CATCH_UP_PACE * (begin - self._stepped))
        self._stepped = begin
        if frame is None:
            self._behind.remove(target)
            return
        # As of now: while a slow tracker is at the newest image, the next one comes in.
        is_newest = frame is self._ring.newest()
        tracked = self._update(frame, [target], begin)
        if target not in self._last:
            return  # given up
        self._last[target] = frame
        if is_newest:
            self._behind.remove(target)
            self._logger.info(f"target {target!r} has caught up with the newest image")
            # The others may have been handed out on this image: it joins them on the next.
            if tracked is not None and len(self._last) == 1:
                self._hand_out(tracked)

    def _idle(self, frame: Frame) -> Tracked | None:
        """Look at a frame's pixels only where their encoding is new, to say early what is wrong."""
        if frame.format == self._good_format:
            self.frames_used += 1
            return Tracked(frame)
        try:
            image = frame.image()
        except ImageError as error:
            self._bad_image(error)
            return None
        self._good_format = frame.format
        self.frames_used += 1
        return Tracked(frame, image)

    def _update(self, frame: Frame, targets: list[str], taken: float) -> Tracked | None:
        """Run the tracker on one frame; None where that failed, which is logged and counted."""
        try:
            image = frame.image()
            if _size(image) != self._size:
                self._stop_for_size(_size(image))
                return Tracked(frame, image)
            converted = time.perf_counter()
            found = self._tracker.update(image, targets)
        except ImageError as error:
            self._bad_image(error)
            return None
        except Exception as error:
            self._bad_update(error)
            return None
        for target in targets:
            self._last[target] = frame
        self.frames_tracked += 1
        self.frames_used += 1
        self._failures_in_row = 0
        stages = {"wait": taken - frame.received, "convert": converted - taken}
        results = {target: found[target] for target in targets}
        return Tracked(frame, image, results, stages | self._tracker.timings)

    def _stop_for_size(self, size: str) -> None:
        stopped = ", ".join(map(repr, self._stop()))
        self._logger.warning(f"images are {size} now, were {self._size}: stopped {stopped}")

    def _bad_image(self, error: ImageError) -> None:
        self.frames_failed += 1
        self.trouble = str(error)
        self._logger.error(f"image not used: {error}", throttle_duration_sec=_LOG_PERIOD)

    def _bad_update(self, error: Exception) -> None:
        self.frames_failed += 1
        self._failures_in_row += 1
        self.trouble = f"{type(error).__name__}: {error}"
        where = "".join(traceback.format_exception(error))
        self._logger.error(
            f"tracking failed on an image: {where}", throttle_duration_sec=_LOG_PERIOD
        )
        if self._last and self._failures_in_row >= self.max_failures:
            stopped = ", ".join(map(repr, self._stop()))
            self._logger.error(
                f"tracking failed {self._failures_in_row} times in a row; stopped {stopped}"
            )

    def _hand_out(self, tracked: Tracked) -> None:
        try:
            self._on_frame(tracked)
        except Exception as error:
            where = "".join(traceback.format_exception(error))
            self._logger.error(f"publishing failed: {where}", throttle_duration_sec=_LOG_PERIOD)


def _size(image: BgrImage) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"


def _answer(function: Callable[[], Any], future: Future[Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(function())
    except Exception as error:
        future.set_exception(error)
