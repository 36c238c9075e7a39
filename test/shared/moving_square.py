"""Sequences that tests write: a bright square that moves over a dark, textured frame."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
from numpy.typing import NDArray

SIZE = (96, 64)


def square_boxes(count: int) -> NDArray[np.float64]:
    """(count, 4) boxes of a 16 x 12 square that moves right and down, 0-based."""
    steps = np.arange(count)
    return np.stack([10 + 2 * steps, 8 + steps, 0 * steps + 16, 0 * steps + 12], 1).astype(float)


def write_frames(
    folder: Path, count: int = 8, *, first: int = 1, digits: int = 8, suffix: str = ".jpg"
) -> NDArray[np.float64]:
    """Write frames; returns the square's boxes, (count, 4), 0-based."""
    folder.mkdir(parents=True, exist_ok=True)
    boxes = square_boxes(count)
    texture = np.random.default_rng(0).integers(0, 60, (SIZE[1], SIZE[0], 3)).astype(np.uint8)
    for i, (x, y, w, h) in enumerate(boxes.astype(int).tolist()):
        image = texture.copy()
        image[y : y + h, x : x + w] = (200, 220, 240)
        assert cv2.imwrite(str(folder / f"{first + i:0{digits}d}{suffix}"), image)
    return boxes


def write_boxes(path: Path, boxes: NDArray[np.float64], delimiter: str = ",") -> None:
    """Write an annotation."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(path, boxes, fmt="%.3f", delimiter=delimiter)


def write_sequences(root: Path) -> Path:
    """A folder of three sequences, `a`, `b` and `c`, of 8, 9 and 10 frames."""
    for i, name in enumerate("abc"):
        write_boxes(root / name / "groundtruth.txt", write_frames(root / name, 8 + i))
    return root


class Oracle:
    """Knows the square's boxes; off by `error` pixels in x from the second frame on."""

    def __init__(self, error: float = 0.0) -> None:
        self.error = error
        self.given: list[Sequence[float]] = []
        self._frame = 0

    def init(self, image: NDArray[np.uint8], box: Sequence[float]) -> None:
        self.given.append(tuple(box))
        self._frame = 0

    def update(self, image: NDArray[np.uint8]) -> SimpleNamespace:
        self._frame += 1
        box = square_boxes(self._frame + 1)[-1] + (self.error, 0, 0, 0)
        return SimpleNamespace(box=tuple(box), score=0.9)


class Shaky(Oracle):
    """Off by more from frame to frame, to overlaps between 0 and 1."""

    def update(self, image: NDArray[np.uint8]) -> SimpleNamespace:
        self.error = 1.5 * (self._frame + 1)
        return super().update(image)


class Hides(Oracle):
    """Says in frames 4 to 6 that the target is lost, with a score of 0.1."""

    def update(self, image: NDArray[np.uint8]) -> SimpleNamespace:
        box = super().update(image).box
        lost = 3 <= self._frame <= 5
        score, state = (0.1, "lost") if lost else (0.9, "tracking")
        return SimpleNamespace(box=box, score=score, state=state)


class Fussy(Oracle):
    """Raises on the ninth frame."""

    def update(self, image: NDArray[np.uint8]) -> SimpleNamespace:
        if self._frame == 7:
            raise RuntimeError("no ninth frame for me")
        return super().update(image)


class Mortal(Oracle):
    """Ends its process, as the system does to one that takes too much memory."""

    def update(self, image: NDArray[np.uint8]) -> SimpleNamespace:
        os._exit(9)
