"""What all readers share: reading a picture, drawing a pair, counting what could not be read."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from siamcar_ros.data.frames import Frame, Image, frame_from_box

MIN_SIDE = 2.0
"""Targets of a smaller side, in pixels, are not drawn."""

_ATTEMPTS = 200
_REDUCED = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4}
_CROP_SIDE = 127


class DataError(ValueError):
    """A data set cannot be used: it is not where the recipe says, or too much of it is broken."""


class DataFault(Exception):
    """One file is missing or broken. It is named and counted, and another is drawn instead."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")


class Faults(NamedTuple):
    """What was met since the last look: pairs drawn, and the files that could not be used."""

    draws: int
    messages: tuple[str, ...]


class Source(ABC):
    """A data set that pairs are drawn from.

    A reader gives :meth:`draw`; :meth:`pair` repeats it until it succeeds. Which files failed
    earlier does not influence later draws, so that the same random numbers always give the same
    pair.

    Attributes:
        name: what the set is called in messages.
        faults: the files that could not be read since :meth:`take_faults`, as ``path: reason``.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.faults: list[str] = []
        self._draws = 0

    @abstractmethod
    def __len__(self) -> int:
        """The number of images or videos."""

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> tuple[Frame, Frame] | None:
        """A pair, or None where what was drawn holds no target.

        Raises:
            DataFault: a file is missing or broken.
        """

    @abstractmethod
    def items(self) -> Iterable[str]:
        """What the set consists of, a line an image or video: the text behind its fingerprint."""

    def pair(self, rng: np.random.Generator) -> tuple[Frame, Frame]:
        """A pair of frames that show one target.

        Raises:
            DataError: nothing usable was found in 200 attempts.
        """
        for _ in range(_ATTEMPTS):
            try:
                drawn = self.draw(rng)
            except DataFault as fault:
                self.faults.append(str(fault))
                continue
            if drawn is not None:
                self._draws += 1
                return drawn
        last = f"; the last fault: {self.faults[-1]}" if self.faults else ""
        raise DataError(f"{self.name}: {_ATTEMPTS} draws in a row gave no target{last}")

    def take_faults(self) -> Faults:
        """The faults since the last call, which are then forgotten."""
        taken = Faults(self._draws, tuple(self.faults))
        self._draws, self.faults = 0, []
        return taken

    def fingerprint(self) -> str:
        """Hexadecimal digest of :meth:`items`: equal where the set has the same content list."""
        digest = hashlib.sha256(self.name.encode())
        for item in self.items():
            digest.update(item.encode() + b"\n")
        return digest.hexdigest()[:16]


def read_picture(path: Path, box: NDArray[np.float32] | None = None) -> tuple[Image, int]:
    """Decode an image, at half or a quarter of its size where the target's crop allows that.

    A large target is shown to the network much reduced. Decoding a JPEG at a fraction of its size
    costs a fraction of the time and filters the image, which the crop's interpolation does not.

    Args:
        path: the file.
        box: the target, x1, y1, x2, y2 in pixels; without it the image is read at its full size.

    Returns:
        (H, W, 3) uint8 BGR, its orientation tag ignored as the annotations' owners do; and the
        divisor, 1, 2 or 4: a point of the file at (x, y) is at (x, y) / divisor.

    Raises:
        DataFault: the file is missing or no image.
    """
    divisor = 1
    if box is not None:
        width, height = np.maximum(box[2:] - box[:2], 1.0)
        context = (width + height) / 2
        across = float(np.sqrt((width + context) * (height + context)))
        divisor = 4 if across > 5 * _CROP_SIDE else 2 if across > 2.5 * _CROP_SIDE else 1
    flag = _REDUCED.get(divisor, cv2.IMREAD_COLOR) | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imread(str(path), flag)
    if image is None:
        raise DataFault(path, "not an image" if path.is_file() else "missing")
    return np.asarray(image, np.uint8), divisor


def boxed_frame(path: Path, box: NDArray[np.float32], scene: Path) -> Frame | None:
    """The frame of an image whose target's box (x1, y1, x2, y2) is known.

    Args:
        path: the image.
        box: the target.
        scene: the image, or the folder of its video.

    Returns:
        None where the box lies outside the image or is too small.

    Raises:
        DataFault: the file is missing or no image.
    """
    if (box[2:] - box[:2] < MIN_SIDE).any():
        return None
    image, divisor = read_picture(path, box)
    height, width = image.shape[:2]
    box = (box / divisor).astype(np.float32)
    if (box[2:] <= 1).any() or box[0] >= width - 1 or box[1] >= height - 1:
        return None
    return frame_from_box(image, box, str(scene))


class Track(NamedTuple):
    """One target in one video, where it is visible.

    Attributes:
        folder: of the frames.
        names: the N file names, or one pattern for ``format`` with the frame's number.
        numbers: (N,) int, ascending.
        boxes: (N, 4) float32 x1, y1, x2, y2 in pixels, edges.
    """

    folder: Path
    names: tuple[str, ...] | str
    numbers: NDArray[np.int64]
    boxes: NDArray[np.float32]

    def path(self, index: int) -> Path:
        """The file of the index-th frame."""
        if isinstance(self.names, str):
            return self.folder / self.names.format(int(self.numbers[index]))
        return self.folder / self.names[index]


class VideoSource(Source):
    """Videos: the two frames of a pair lie at most ``max_gap`` frame numbers apart."""

    def __init__(self, name: str, max_gap: int) -> None:
        super().__init__(name)
        self.max_gap = max_gap

    @abstractmethod
    def track(self, index: int, rng: np.random.Generator) -> Track:
        """A target of the index-th video.

        Raises:
            DataFault: its annotation is missing or broken.
        """

    def draw(self, rng: np.random.Generator) -> tuple[Frame, Frame] | None:
        """Two frames of a random video, in either order."""
        track = self.track(int(rng.integers(len(self))), rng)
        if not len(track.numbers):
            return None
        first = int(rng.integers(len(track.numbers)))
        second = near(track.numbers, first, self.max_gap, rng)
        one = self._frame(track, first)
        other = one if first == second else self._frame(track, second)
        return None if one is None or other is None else (one, other)

    @staticmethod
    def _frame(track: Track, index: int) -> Frame | None:
        return boxed_frame(track.path(index), track.boxes[index], track.folder)


def near(numbers: NDArray[np.int64], index: int, gap: int, rng: np.random.Generator) -> int:
    """A random index of ascending numbers whose value is within ``gap`` of that at ``index``."""
    low = np.searchsorted(numbers, numbers[index] - gap, "left")
    high = np.searchsorted(numbers, numbers[index] + gap, "right")
    return int(rng.integers(low, high))


def corners(boxes: NDArray[np.float64]) -> NDArray[np.float32]:
    """(N, 4) x, y, w, h to x1, y1, x2, y2."""
    return np.hstack((boxes[:, :2], boxes[:, :2] + boxes[:, 2:])).astype(np.float32)


def read_rows(path: Path, columns: int) -> NDArray[np.float64]:
    """(N, columns) numbers of a text file, separated by commas or blanks.

    Raises:
        DataFault: it is missing, or its numbers do not fill rows of that many columns.
    """
    try:
        values = np.array(path.read_text().replace(",", " ").split(), np.float64)
    except (OSError, ValueError) as error:
        raise DataFault(path, str(error) if path.is_file() else "missing") from None
    if not len(values) or len(values) % columns:
        raise DataFault(path, f"{len(values)} numbers are not rows of {columns}")
    return values.reshape(-1, columns)


def existing(root: Path, *candidates: str, option: str = "root") -> Path:
    """The first of the candidate files or folders below root that is there.

    Raises:
        DataError: none is.
    """
    for candidate in candidates:
        if (root / candidate).exists():
            return root / candidate
    places = " nor ".join(str(root / candidate) for candidate in candidates)
    raise DataError(f"no {places}; the option {option!r} names the folder that holds it")
