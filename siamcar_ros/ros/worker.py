"""The thread that runs the tracker."""

from __future__ import annotations

import itertools
import math
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from siamcar_ros.data.image_messages import ImageError
from siamcar_ros.geometry import Box
from siamcar_ros.ros.frame import Frame
from siamcar_ros.ros.mailbox import Mailbox
from siamcar_ros.ros.targets import Ending, Progress, Target, Tracked
from siamcar_ros.tracking import MultiTracker, TargetError, box_about
from siamcar_ros.tracking.stored_image import StoredImage

if TYPE_CHECKING:
    from siamcar_ros.ros.node import TrackerNode

# A target catches up at this many times real time at least.
_CATCH_UP_PACE = 2.0
# Seconds between log lines about the same problem.
_LOG_PERIOD = 5.0


class TrackWorker:
    """Loads a tracker and runs it, in a thread of its own, on the newest frame and on requests.

    Requests return futures at once and are carried out between two frames. A target that is started
    on a past frame runs through the ring's frames until it has caught up with the newest one, while
    the other targets go on; its results are delivered from there on.

    An error on a frame is logged and counted. It does not end the thread, and ends the tracks only
    after many in a row. Images of another size end the tracks: their boxes are in pixels of the old
    size.

    Args:
        node: whose settings and camera motion it uses. A frame is pushed to its ring before it is
            put into `mailbox`. The worker writes its counters `tracked`, `used`, `failed` and
            `trouble`.
        load: makes the tracker, with room for `max_targets` and one more; called in the thread.
        on_frame: called in the thread with the results of each current frame.
    """

    def __init__(
        self,
        node: TrackerNode,
        load: Callable[[], MultiTracker],
        on_frame: Callable[[Tracked], None],
    ) -> None:
        self.mailbox = Mailbox()
        self.loaded: Future[MultiTracker] = Future()
        self._node, self._load, self._on_frame = node, load, on_frame
        self._logger, self._counters = node.get_logger(), node.counters
        self._limit = node.settings.max_targets
        self._failures_in_row = 0
        self._tracks: dict[str, Progress] = {}  # by name, oldest first
        self._names = (f"target-{number}" for number in itertools.count(1))
        self._candidates: tuple[Box, ...] = ()
        self._stepped = 0.0  # when the last step of catching up began
        self._size = ""  # of the images that the targets are in
        self._good_format: str | None = None
        self._busy_since: float | None = None
        self._thread = threading.Thread(target=self._run, name="tracker", daemon=True)
        self._thread.start()

    @property
    def targets(self) -> tuple[str, ...]:
        """The ids of the tracks, oldest first."""
        return tuple(self._tracks)

    def places(self, stamp: int) -> list[Box] | None:
        """The boxes of all targets at a stamp; None if no target may be started automatically.

        That is while `max_targets` are tracked, or one is lost, which might then be started twice.
        """
        tracks = list(self._tracks.values())
        if len(tracks) >= self._limit or any(each.lost for each in tracks):
            return None
        return [each.place(stamp) for each in tracks]

    @property
    def busy(self) -> float:
        """Seconds spent on the current image or request; infinite if the thread has ended."""
        if not self._thread.is_alive():
            return math.inf
        since = self._busy_since
        return 0.0 if since is None else time.perf_counter() - since

    def init(self, frame: Frame, box: Box, target: str, class_id: str = "") -> Future[Target]:
        """Start `target` on `frame`; an empty name chooses one.

        A box without width and height is a point, around which the box is found. The future raises
        TargetError or ImageError if the target is refused.
        """
        return self.mailbox.submit(lambda: self._init(frame, box, target, class_id))

    def remove(self, target: str, start: Target | None = None) -> Future[None]:
        """End one track, only that `start` of it if one is given.

        The future raises TargetError if there is no such track.
        """
        return self.mailbox.submit(lambda: self._remove(target, start))

    def stop(self, reason: str = "stopped") -> Future[tuple[str, ...]]:
        """End all tracks; the result is their names."""
        return self.mailbox.submit(lambda: self._stop(reason))

    def look_at(self, candidates: Sequence[Box]) -> None:
        """Give boxes in which to look for a lost target in the next image, not in past ones."""
        self._candidates = tuple(candidates)

    def close(self, timeout: float) -> bool:
        """End all tracks and the thread; return False if it is busy after `timeout` seconds."""
        self.mailbox.close()
        self._thread.join(timeout)
        for track in list(self._tracks.values()):
            if not track.target.ended.done():
                track.target.ended.set_result(Ending(False, "the tracker has been shut down"))
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._tracker = self._load()
        except BaseException as error:
            self.loaded.set_exception(error)
            self.mailbox.close()
            return
        self.loaded.set_result(self._tracker)
        while (taken := self.mailbox.take(wait=self._first_behind() is None)) is not None:
            requests, frame = taken
            self._tracker.params = self._node.settings.tracker
            for function, future in requests:
                self._busy_since = time.perf_counter()
                _answer(function, future)
            self._busy_since = time.perf_counter()
            try:
                if frame is not None:
                    self._present(frame)
                behind = self._first_behind()
                if behind is not None:
                    self._catch_up(behind)
            except Exception as error:  # an unusable image, or a bug, must not end the thread
                self._failed(error)
            self._busy_since = None

    def _init(self, frame: Frame, box: Box, target: str, class_id: str) -> Target:
        image = frame.image()
        target = target or next(each for each in self._names if each not in self._tracks)
        replaced = [target] if target in self._tracks else []
        if self._limit == 1 or _size(image) != self._size:
            replaced = list(self._tracks)
        elif not replaced and len(self._tracks) >= self._limit:
            names = ", ".join(map(repr, self._tracks))
            raise TargetError(
                f"{self._limit} targets are tracked already ({names}): stop them, give one of "
                "their ids to replace it, or start the node with a larger max_targets"
            )
        on_box = ""
        if box[2:] == (0, 0):
            box = box_about(self._tracker.network, image, box[:2])
            on_box = f" on the box {', '.join(f'{value:.0f}' for value in box)} (x, y, w, h)"
        self._tracker.add(image, box, target)
        self._size = _size(image)
        for old in replaced:
            if old != target:
                self._tracker.remove(old)
            self._forget(old, f"replaced by {target!r}", replaced=True)
        self._failures_in_row = 0
        message = f"target {target!r} started{on_box}"
        if replaced:
            message += f" in place of {', '.join(map(repr, replaced))}"
        behind = (self._node.ring.newest() or frame).received - frame.received
        if behind > 0:
            self._stepped = time.perf_counter()
            message += f" {behind:.2f} s in the past, catching up"
        self._logger.info(message)
        started = Target(target, class_id, frame.stamp, box, message)
        self._tracks[target] = Progress(started, frame, catching_up=behind > 0)
        return started

    def _first_behind(self) -> str | None:
        """The oldest target that is catching up."""
        return next((name for name, each in self._tracks.items() if each.catching_up), None)

    def _remove(self, target: str, start: Target | None) -> None:
        track = self._tracks.get(target)
        if start is not None and (track is None or track.target is not start):
            return
        if track is None:
            names = ", ".join(map(repr, self._tracks))
            raise TargetError(
                f"no target is called {target[:256]!r}: "
                + (f"tracked are {names}" if names else "nothing is tracked")
            )
        self._tracker.remove(target)
        self._forget(target, "stopped")

    def _stop(self, reason: str) -> tuple[str, ...]:
        stopped = self.targets
        self._tracker.stop()
        for target in stopped:
            self._forget(target, reason)
        return stopped

    def _forget(self, target: str, reason: str, *, replaced: bool = False) -> None:
        self._tracks.pop(target).target.ended.set_result(Ending(replaced, reason))

    def _present(self, frame: Frame) -> None:
        """Run the targets that are up to date on the newest frame."""
        taken = time.perf_counter()
        live = [
            target
            for target, track in self._tracks.items()
            if not track.catching_up and track.last.received < frame.received
        ]
        if live:
            candidates, self._candidates = self._candidates, ()
            tracked = self._update(frame, live, taken, candidates)
        elif not self._tracks:
            # Decoded only if its encoding is new, to report problems early.
            image = None if frame.format == self._good_format else frame.image()
            self._good_format = frame.format
            self._counters.used += 1
            tracked = Tracked(frame, image)
        else:
            return  # targets that catch up take it from the ring
        if tracked is not None:
            self._deliver(tracked)

    def _catch_up(self, target: str) -> None:
        """Run a target on one more past frame.

        Frames are skipped if they arrived faster than they can be tracked, so that the target
        always catches up.
        """
        begin, track = time.perf_counter(), self._tracks[target]
        frame = self._node.ring.after(track.last, skip=_CATCH_UP_PACE * (begin - self._stepped))
        self._stepped = begin
        if frame is None:
            track.catching_up = False
            return
        # Decided now: while a slow tracker runs on the newest image, the next one arrives.
        is_newest = frame is self._node.ring.newest()
        tracked = self._update(frame, [target], begin)
        if target not in self._tracks:
            return  # stopped
        track.last = frame
        if is_newest:
            track.catching_up = False
            self._logger.info(f"target {target!r} has caught up with the newest image")
            # The others may have been delivered for this image: it joins them on the next.
            if tracked is not None and len(self._tracks) == 1:
                self._deliver(tracked)

    def _update(
        self, frame: Frame, targets: list[str], taken: float, candidates: tuple[Box, ...] = ()
    ) -> Tracked | None:
        """Run the tracker on one frame; None if that failed, which is logged and counted."""
        try:
            image = frame.image()
            if _size(image) != self._size:
                changed = f"images are {_size(image)} now, were {self._size}"
                stopped = ", ".join(map(repr, self._stop(changed)))
                self._logger.warning(f"{changed}: stopped {stopped}")
                return Tracked(frame, image)
            converted = time.perf_counter()
            motion = self._moved(frame, targets, (image.shape[1], image.shape[0]))
            found = self._tracker.update(image, targets, candidates, motion=motion)
        except Exception as error:
            self._failed(error)
            return None
        for target in targets:
            self._tracks[target].add(frame, found[target])
        self._counters.tracked += 1
        self._counters.used += 1
        self._failures_in_row = 0
        stages = {"wait": taken - frame.received, "convert": converted - taken}
        started = {target: self._tracks[target].target for target in targets}
        return Tracked(frame, image, found, stages | self._tracker.timings, started)

    def _moved(
        self, frame: Frame, targets: list[str], size: tuple[int, int]
    ) -> dict[str, tuple[float, float]] | None:
        """By how many pixels the camera's motion has moved each target, where it is known."""
        camera_motion = self._node.camera_motion
        if camera_motion is None:
            return None
        known = {}
        for target in targets:
            box = self._tracker.result(target).box
            moved = camera_motion.shift(self._tracks[target].last.stamp, frame.stamp, box, size)
            if moved is not None:
                known[target] = moved
        return known

    def _failed(self, error: Exception) -> None:
        """Count and log an error on one image; errors of the tracker end the tracks after many."""
        self._counters.failed += 1
        if isinstance(error, ImageError):
            self._counters.trouble = str(error)
            self._logger.error(
                f"an image cannot be used: {error}", throttle_duration_sec=_LOG_PERIOD
            )
            return
        self._failures_in_row += 1
        self._counters.trouble = f"{type(error).__name__}: {error}"
        where = "".join(traceback.format_exception(error))
        self._logger.error(
            f"tracking failed on an image: {where}", throttle_duration_sec=_LOG_PERIOD
        )
        if self._tracks and self._failures_in_row >= self._node.settings.max_failures:
            failed = f"tracking failed {self._failures_in_row} times in a row"
            stopped = ", ".join(map(repr, self._stop(failed)))
            self._logger.error(f"{failed}; stopped {stopped}")

    def _deliver(self, tracked: Tracked) -> None:
        try:
            self._on_frame(tracked)
        except Exception as error:
            where = "".join(traceback.format_exception(error))
            self._logger.error(f"publishing failed: {where}", throttle_duration_sec=_LOG_PERIOD)


def _size(image: StoredImage) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"


def _answer(function: Callable[[], Any], future: Future[Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(function())
    except Exception as error:
        future.set_exception(error)
