"""The order of images by their stamps."""

from __future__ import annotations

from siamcar_ros.ros.frame import Frame

# A jump of the stamps is accepted after this many images in a row.
_IN_A_ROW = 3
# Stamps may run this many times faster than real time, as those of a bag that is played fast.
_FASTEST = 20.0


class StampFilter:
    """Passes images in the order of their stamps and drops single ones that are out of order.

    One image with a wrong stamp, or a second camera on the same topic, must neither end the tracks
    nor make the correct images look late. A jump in either direction is therefore accepted only
    after three images in a row, in order among themselves, lie beyond it; none of them is lost.

    Attributes:
        time_jump: seconds by which a stamp may run ahead of 20 times the real time.
    """

    def __init__(self, time_jump: float) -> None:
        self.time_jump = time_jump
        self._newest: Frame | None = None
        self._suspects: list[Frame] = []

    def accept(self, frame: Frame) -> tuple[list[Frame], float]:
        """Return the frames to use now, oldest first, and the seconds by which stamps jumped.

        The list is empty for a frame that is out of order. The jump is negative if stamps went
        back, and 0 if there is none.
        """
        newest = self._newest
        if newest is None or 0 <= frame.stamp - newest.stamp <= self._ahead(newest, frame):
            self._newest = frame
            self._suspects = []
            return [frame], 0.0
        if self._suspects and frame.stamp < self._suspects[-1].stamp:
            self._suspects = []
        self._suspects.append(frame)
        if len(self._suspects) < _IN_A_ROW:
            return [], 0.0
        frames, self._suspects, self._newest = self._suspects, [], frame
        return frames, (frames[0].stamp - newest.stamp) / 1e9

    def _ahead(self, newest: Frame, frame: Frame) -> float:
        """Nanoseconds by which `frame` may be ahead of `newest`."""
        return 1e9 * (self.time_jump + _FASTEST * (frame.received - newest.received))
