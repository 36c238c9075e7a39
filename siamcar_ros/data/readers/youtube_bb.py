"""YouTube-BoundingBoxes: the owner's CSV, and frames extracted from the videos."""

from __future__ import annotations

import csv
import logging
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from siamcar_ros.data.frames import Frame, frame_from_box
from siamcar_ros.data.pair_sources import (
    MIN_SIDE,
    DataError,
    MaxGap,
    PairSet,
    existing,
    near,
    read_picture,
)
from siamcar_ros.data.registry import register_dataset

logger = logging.getLogger(__name__)

PATTERN = "{class_id}/{youtube_id}_{timestamp_ms}_{class_id}_{object_id}.jpg"
"""Where the common extraction scripts put a frame, below the folder of the split."""

_PRESENT, _COLUMNS = 5, 10


@register_dataset("youtube_bb")
class YouTubeBB(PairSet):
    """Segments of videos with one object each, annotated once a second.

    The owner publishes links, many of which are dead. Frames that were not extracted are counted at
    the start and skipped; they are no error.

    Args:
        root: holds ``yt_bb_detection_SPLIT.csv`` and the folder of frames.
        split: "train" or "validation".
        max_gap: most seconds between the two frames of a pair.
        pattern: a frame's path below ``root/yt_bb_detection_SPLIT``, from the CSV's columns
            ``youtube_id``, ``timestamp_ms``, ``class_id`` and ``object_id``.

    Raises:
        DataError: the CSV is missing or malformed, or none of its frames was extracted.
    """

    def __init__(
        self,
        root: Path,
        *,
        split: str = "train",
        max_gap: MaxGap = 3,
        pattern: str = PATTERN,
    ) -> None:
        super().__init__(f"youtube_bb {split}")
        self.max_gap = max_gap
        self._csv = existing(root, f"yt_bb_detection_{split}.csv")
        self._folder = existing(root, f"yt_bb_detection_{split}")
        self._pattern = pattern
        known: dict[tuple[str, str, str], int] = {}
        ids: list[int] = []
        stamps: list[int] = []
        boxes: list[tuple[float, ...]] = []
        available = _Available(self._folder)
        missing = 0
        for segment, stamp, box in _rows(self._csv):
            if not available.has(self._path(segment, stamp)):
                missing += 1
                continue
            ids.append(known.setdefault(segment, len(known)))
            stamps.append(stamp)
            boxes.append(box)
        if not stamps:
            raise DataError(f"none of the {missing} frames of {self._csv} is in {self._folder}")
        if missing:
            logger.info(
                "%s: %d of %d frames were not extracted", self.name, missing, missing + len(stamps)
            )
        # The owner's rows alternate between the objects of a video.
        order = np.lexsort((stamps, ids))
        self._segments = list(known)
        self._starts = np.append(0, np.bincount(ids).cumsum())
        self._stamps = np.array(stamps, np.int64)[order]
        self._boxes = np.array(boxes, np.float32)[order]

    def __len__(self) -> int:
        return len(self._segments)

    def items(self) -> Iterable[str]:
        """The segments, each with its number of frames."""
        for segment, count in zip(self._segments, np.diff(self._starts), strict=True):
            yield f"{'+'.join(segment)} {count}"

    def draw(self, rng: np.random.Generator) -> tuple[Frame, Frame] | None:
        """Two frames of a random segment."""
        index = int(rng.integers(len(self)))
        begin, end = self._starts[index], self._starts[index + 1]
        seconds = self._stamps[begin:end] // 1000
        first = int(rng.integers(len(seconds)))
        second = near(seconds, first, self.max_gap, rng)
        one = self._frame(index, int(begin) + first)
        other = one if first == second else self._frame(index, int(begin) + second)
        return None if one is None or other is None else (one, other)

    def _frame(self, segment: int, row: int) -> Frame | None:
        path = self._path(self._segments[segment], int(self._stamps[row]))
        image, _ = read_picture(self._folder / path)
        height, width = image.shape[:2]
        box: NDArray[np.float32] = self._boxes[row] * np.array([width, height] * 2, np.float32)
        if (box[2:] - box[:2] < MIN_SIDE).any():
            return None
        return frame_from_box(image, box, f"{self._folder}/{self._segments[segment][0]}")

    def _path(self, segment: tuple[str, str, str], stamp: int) -> str:
        youtube_id, class_id, object_id = segment
        return self._pattern.format(
            youtube_id=youtube_id, timestamp_ms=stamp, class_id=class_id, object_id=object_id
        )


class _Available:
    """The files below a folder, listed once per subfolder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._listed: dict[str, frozenset[str]] = {}

    def has(self, path: str) -> bool:
        folder, name = os.path.split(path)
        if folder not in self._listed:
            place = self._root / folder
            paths = place.iterdir() if place.is_dir() else ()
            self._listed[folder] = frozenset(path.name for path in paths)
        return name in self._listed[folder]


def _rows(path: Path) -> Iterable[tuple[tuple[str, str, str], int, tuple[float, ...]]]:
    """Segment (youtube_id, class_id, object_id), milliseconds, and x1, y1, x2, y2 in [0, 1]."""
    with path.open(newline="") as file:
        for number, row in enumerate(csv.reader(file), 1):
            if number == 1 and row and row[0] == "youtube_id":
                continue
            if len(row) != _COLUMNS:
                raise DataError(f"{path}, line {number}: {len(row)} columns, expected 10")
            if row[_PRESENT] != "present":
                continue
            try:
                x1, x2, y1, y2 = map(float, row[6:])
                stamp = int(row[1])
            except ValueError as error:
                raise DataError(f"{path}, line {number}: {error}") from None
            if 0 <= x1 < x2 and 0 <= y1 < y2:
                yield (row[0], row[2], row[4]), stamp, (x1, y1, x2, y2)
