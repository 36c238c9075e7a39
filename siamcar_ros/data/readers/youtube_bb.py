"""YouTube-BoundingBoxes: the owner's CSV, and frames extracted from the videos."""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from siamcar_ros.data.frames import Frame, frame_from_box
from siamcar_ros.data.pair_sources import (
    MIN_SIDE,
    DataError,
    MaxGap,
    VideoPairs,
    read_picture,
)
from siamcar_ros.data.registry import register_dataset

logger = logging.getLogger(__name__)

_PRESENT, _COLUMNS = 5, 10


@register_dataset("youtube_bb")
class YouTubeBB(VideoPairs):
    """Segments of videos with one object each, annotated once a second.

    The owner publishes links, many of which are dead. Frames that were not extracted are counted at
    the start and skipped; they are no error.

    Args:
        root: holds ``yt_bb_detection_SPLIT.csv``, and below ``yt_bb_detection_SPLIT`` the frames.
        split: "train" or "validation".
        max_gap: most seconds between the two frames of a pair.
    """

    def __init__(self, root: Path, *, split: str = "train", max_gap: MaxGap = 3) -> None:
        self._folder = root / f"yt_bb_detection_{split}"
        table = root / f"yt_bb_detection_{split}.csv"
        known: dict[tuple[str, str, str], int] = {}
        ids: list[int] = []
        stamps: list[int] = []
        boxes: list[tuple[float, ...]] = []
        listed: dict[Path, frozenset[str]] = {}
        missing = 0
        for segment, stamp, box in _rows(table):
            path = self._path(segment, stamp)
            if path.parent not in listed:
                there = path.parent.iterdir() if path.parent.is_dir() else ()
                listed[path.parent] = frozenset(one.name for one in there)
            if path.name not in listed[path.parent]:
                missing += 1
                continue
            ids.append(known.setdefault(segment, len(known)))
            stamps.append(stamp)
            boxes.append(box)
        if not stamps:
            raise DataError(f"none of the {missing} frames of {table} is in {self._folder}")
        if missing:
            logger.info(
                "%s: %d of %d frames were not extracted", table, missing, missing + len(stamps)
            )
        # The owner's rows alternate between the objects of a video.
        order = np.lexsort((stamps, ids))
        self._segments = list(known)
        self._starts = np.append(0, np.bincount(ids).cumsum())
        self._stamps = np.array(stamps, np.int64)[order]
        self._boxes = np.array(boxes, np.float32)[order]
        frames = np.diff(self._starts)
        names = [f"{'+'.join(one)} {n}" for one, n in zip(self._segments, frames, strict=True)]
        super().__init__(f"youtube_bb {split}", names, max_gap)

    def places(self, video: int) -> NDArray[np.int64]:
        """The seconds at which a segment is annotated."""
        return self._stamps[self._starts[video] : self._starts[video + 1]] // 1000

    def view(self, video: int, frame: int, target: Any) -> Frame | None:
        """The object of a segment in a frame."""
        row = int(self._starts[video]) + frame
        image, _ = read_picture(self._path(self._segments[video], int(self._stamps[row])))
        height, width = image.shape[:2]
        box: NDArray[np.float32] = self._boxes[row] * np.array([width, height] * 2, np.float32)
        if (box[2:] - box[:2] < MIN_SIDE).any():
            return None
        return frame_from_box(image, box, f"{self._folder}/{self._segments[video][0]}")

    def _path(self, segment: tuple[str, str, str], stamp: int) -> Path:
        """Where the common extraction scripts put a frame."""
        youtube_id, class_id, object_id = segment
        return self._folder / class_id / f"{youtube_id}_{stamp}_{class_id}_{object_id}.jpg"


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
