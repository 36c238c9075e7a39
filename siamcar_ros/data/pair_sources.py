"""What training pairs are drawn from: the base of all readers, and pairs of sequences' frames."""

from __future__ import annotations

import hashlib
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from siamcar_ros.data.annotations import SequenceError, is_absent
from siamcar_ros.data.frames import Frame, frame_from_box
from siamcar_ros.data.images import ImageError, read_image
from siamcar_ros.data.sequence_sets import SequenceSet
from siamcar_ros.geometry import TEMPLATE_SIZE, Image, context_side, xywh_to_corners
from siamcar_ros.options import Range

logger = logging.getLogger(__name__)

MaxGap: TypeAlias = Annotated[int, Range(0)]
"""Most frames between the two of a pair: 0 or more."""

MIN_SIDE = 2.0
"""Targets of a smaller side, in pixels, are not drawn."""

_ATTEMPTS = 200
_TRIES = 4  # to find a second frame that shows the target of the first
_CACHED = 4096


class DataError(ValueError):
    """A data set cannot be used: it is not where the recipe says, or too much of it is broken."""


class DataFault(Exception):
    """One file is missing or broken. It is named and counted, and another is drawn instead."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")


class Faults(NamedTuple):
    """The number of pairs drawn, and the files that could not be used, since the last call."""

    draws: int
    messages: tuple[str, ...]


class PairSet(ABC):
    """A data set that pairs are drawn from.

    A reader implements :meth:`draw`; :meth:`pair` repeats it until it succeeds. Which files failed
    earlier does not influence later draws, so that the same random numbers always give the same
    pair. A reader raises DataError or OSError at the start if its files are missing or malformed.

    Attributes:
        name: what the set is called in messages.
        names: of its images or videos.
        faults: the files that could not be read since :meth:`take_faults`, as ``path: reason``.
        skipped: the files that could not be read at the start.
    """

    def __init__(self, name: str, names: Sequence[str] = ()) -> None:
        self.name, self.names = name, names
        self.faults: list[str] = []
        self.skipped: list[Path] = []
        self._draws = 0

    def __len__(self) -> int:
        return len(self.names)

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> tuple[Frame, Frame] | None:
        """A pair, or None where what was drawn holds no target.

        Raises:
            DataFault: a file is missing or broken.
        """

    def items(self) -> Iterable[str]:
        """The content of the set, a line each: the text behind its fingerprint."""
        return self.names

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


class VideoPairs(PairSet):
    """Pairs of frames of one video that show the same target, in either order.

    `max_gap` is the largest difference between the places of the two frames. The methods of a
    reader raise DataFault where a file is missing or broken.
    """

    def __init__(self, name: str, names: Sequence[str], max_gap: int) -> None:
        super().__init__(name, names)
        self.max_gap = max_gap

    @abstractmethod
    def places(self, video: int) -> NDArray[np.int64]:
        """The places in time of a video's frames, (N,), ascending."""

    def targets(self, video: int, frame: int) -> dict[Any, Any]:
        """The targets in a frame: identity -> the `target` that :meth:`view` takes."""
        return {None: None}

    @abstractmethod
    def view(self, video: int, frame: int, target: Any) -> Frame | None:
        """A target in a frame; None where it is too small or lies outside."""

    def draw(self, rng: np.random.Generator) -> tuple[Frame, Frame] | None:
        """Two frames of a random video; the same one twice if others do not show its target."""
        video = int(rng.integers(len(self.names)))
        places = self.places(video)
        if not len(places):
            return None
        first = int(rng.integers(len(places)))
        targets = self.targets(video, first)
        if not targets:
            return None
        target = list(targets)[int(rng.integers(len(targets)))]
        one = other = self.view(video, first, targets[target])
        low = np.searchsorted(places, places[first] - self.max_gap, "left")
        high = np.searchsorted(places, places[first] + self.max_gap, "right")
        for _ in range(_TRIES):
            second = int(rng.integers(low, high))
            if second == first:
                break
            targets = self.targets(video, second)
            if target in targets:
                other = self.view(video, second, targets[target])
                break
        return None if one is None or other is None else (one, other)


class _Track(NamedTuple):
    """The N frames of a sequence that show the target: compact, since thousands are kept."""

    folder: Path
    names: NDArray[np.bytes_]  # (N,) of the files
    numbers: NDArray[np.int64]  # (N,) the frames' indices, ascending
    corners: NDArray[np.float32]  # (N, 4) x1, y1, x2, y2 in pixels


class SequencePairs(VideoPairs):
    """Pairs of frames of one sequence, which is read when first drawn. DataError if the data set
    has no training split.
    """

    def __init__(self, sequences: SequenceSet, max_gap: int | None = None) -> None:
        if not sequences.trainable:
            raise DataError(f"{sequences.title} is a benchmark without a training split")
        gap = sequences.max_gap if max_gap is None else max_gap
        super().__init__(sequences.title, sequences.names, gap)
        self._sequences = sequences
        self._tracks: dict[int, _Track] = {}

    def places(self, video: int) -> NDArray[np.int64]:
        """The indices of the frames that show the target."""
        if video not in self._tracks:
            if len(self._tracks) >= _CACHED:
                self._tracks.clear()
            self._tracks[video] = self._read(self.names[video])
        return self._tracks[video].numbers

    def view(self, video: int, frame: int, target: Any) -> Frame | None:
        """The target in a frame."""
        track = self._tracks[video]
        path = track.folder / os.fsdecode(bytes(track.names[frame]))
        return boxed_frame(path, track.corners[frame], track.folder)

    def _read(self, name: str) -> _Track:
        try:
            sequence = self._sequences.read(name)
        except (SequenceError, OSError) as error:
            raise DataFault(f"{self.name}, {name}", str(error)) from None
        for note in sequence.notes:
            logger.warning("%s: %s", self.name, note)
        shown = np.flatnonzero(~is_absent(sequence.boxes))
        names = np.array([os.fsencode(sequence.frames[i].name) for i in shown], np.bytes_)
        boxes = sequence.boxes[shown] - (sequence.origin, sequence.origin, 0, 0)
        corners = xywh_to_corners(boxes).astype(np.float32)
        return _Track(sequence.frames[0].parent, names, shown, corners)


def read_picture(path: Path, box: NDArray[np.float32] | None = None) -> tuple[Image, int]:
    """Decode an image, at half or a quarter of its size where the crop of its target (x1, y1, x2,
    y2 in pixels) allows that.

    A large target is shown to the network much reduced. Decoding a JPEG at a fraction of its size
    costs a fraction of the time and filters the image, which the crop's interpolation does not.

    Returns:
        (H, W, 3) uint8 BGR; and the divisor, 1, 2 or 4: a point of the file at (x, y) is at
        (x, y) / divisor.
    """
    divisor = 1
    if box is not None:
        width, height = np.maximum(box[2:] - box[:2], 1.0)
        side = float(context_side(width, height))
        divisor = 4 if side > 5 * TEMPLATE_SIZE else 2 if side > 2.5 * TEMPLATE_SIZE else 1
    try:
        image = read_image(path, divisor)
    except ImageError as error:
        raise DataFault(path, str(error)) from None
    if image is None:
        raise DataFault(path, "not an image" if path.is_file() else "missing")
    return image, divisor


def boxed_frame(path: Path, box: NDArray[np.float32], scene: Path) -> Frame | None:
    """The frame of an image whose target's box (x1, y1, x2, y2) is known; None where the box lies
    outside or is too small. `scene` is the image, or the folder of its video.
    """
    if (box[2:] - box[:2] < MIN_SIDE).any():
        return None
    image, divisor = read_picture(path, box)
    height, width = image.shape[:2]
    box = (box / divisor).astype(np.float32)
    if (box[2:] <= 1).any() or box[0] >= width - 1 or box[1] >= height - 1:
        return None
    return frame_from_box(image, box, str(scene))
