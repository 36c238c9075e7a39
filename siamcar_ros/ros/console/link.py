"""Adapts the rate, size and quality of the pictures sent to a page to its link."""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np

from siamcar_ros.tracking.stored_image import StoredImage


class Step(NamedTuple):
    """A size and quality of pictures.

    Attributes:
        width: maximum, in pixels.
        quality: of the JPEG, 1 to 100.
        seconds: that the transfer may take; more for small pictures, which cannot shrink further.
    """

    width: int
    quality: int
    seconds: float


STEPS = (
    Step(160, 30, 0.30),
    Step(208, 35, 0.30),
    Step(256, 40, 0.30),
    Step(320, 42, 0.25),
    Step(400, 45, 0.20),
    Step(480, 50, 0.15),
    Step(640, 55, 0.10),
    Step(800, 65, 0.08),
    Step(960, 75, 0.07),
    Step(1280, 80, 0.06),
)
_GROWTH = 1.5  # estimated factor of a picture's bytes from one step to the next
_MOST_ON_THE_WAY = 4  # pictures not yet acknowledged
_LONGEST_PAUSE = 1.0  # seconds; one transfer that was held up must not stop the pictures for longer
_LARGER_AFTER = 3  # acknowledgments since the last change of step


class Link:
    """Decides when the next picture is sent to a page, and its size.

    It starts with small pictures. The page measures each picture's transfer, from its first byte to
    its last: the round trip is excluded, so that a distant page does not look like a narrow link.
    Pictures are sent at most at `most_rate` (Hz), and no faster than they arrive, so that they do
    not queue up on the way.
    """

    def __init__(self, most_rate: float) -> None:
        self._least_pause = 1.0 / most_rate
        self._index = 0
        self._on_the_way: dict[int, int] = {}  # sizes in bytes, by number
        self._pace = math.nan  # seconds per byte
        self._size = 0.0  # bytes of the last picture; after a change of step, estimated
        self._sent_at = -math.inf
        self._unchanged = 0  # acknowledgments since the last change of step

    @property
    def step(self) -> Step:
        """Size and quality of the next picture."""
        return STEPS[self._index]

    def delay(self, now: float) -> float:
        """Return the seconds until a picture may be sent; infinite until one is acknowledged."""
        known = not math.isnan(self._pace)
        if len(self._on_the_way) >= (_MOST_ON_THE_WAY if known else 1):
            return math.inf
        transfer = self._size * self._pace if known else 0.0
        pause = max(self._least_pause, min(transfer, _LONGEST_PAUSE))
        return max(0.0, self._sent_at + pause - now)

    def sent(self, number: int, size: int, now: float) -> None:
        """Note that a picture of `size` bytes has been sent at `now` seconds."""
        self._on_the_way[number] = size
        self._size, self._sent_at = size, now

    def acknowledged(self, number: int, seconds: float) -> None:
        """Note that a picture has been shown, and the seconds from its first byte to its last.

        An unknown number is ignored.
        """
        size = self._on_the_way.pop(number, None)
        if size is None:
            return
        measured = max(seconds, 0.001) / size
        if math.isnan(self._pace):
            self._pace = measured
        self._pace += 0.3 * (measured - self._pace)
        self._unchanged += 1
        before = self._index
        while self._index and self._size * self._pace > self.step.seconds:
            self._change(-1)
        settled = self._index == before and self._unchanged >= _LARGER_AFTER
        if settled and self._index + 1 < len(STEPS):
            larger = self._size * _GROWTH * self._pace
            if larger < 0.8 * STEPS[self._index + 1].seconds:
                self._change(1)

    def _change(self, by: int) -> None:
        self._index += by
        self._size *= _GROWTH**by
        self._unchanged = 0


def encode(image: StoredImage, step: Step, shown_width: int) -> bytes:
    """Return an image as a JPEG, at most as wide as the step allows and the page shows it."""
    height, width = image.shape[:2]
    scale = min(1.0, min(step.width, shown_width) / width)
    pixels = np.ascontiguousarray(image.bgr())
    if scale < 1.0:
        size = (max(1, round(scale * width)), max(1, round(scale * height)))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    # Optimized Huffman tables make a small picture a tenth smaller.
    options = [cv2.IMWRITE_JPEG_QUALITY, step.quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
    return cv2.imencode(".jpg", pixels, options)[1].tobytes()
