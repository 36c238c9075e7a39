"""Annotation and result files: boxes, polygons and flags as text, in the dialects of the
benchmarks.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

_SEPARATORS = re.compile(r"[,;\s]+")
_TO_SPACES = str.maketrans(",;", "  ")


class SequenceError(ValueError):
    """A sequence whose files are missing, malformed or at odds with each other; it names them."""


def read_boxes(path: str | Path) -> NDArray[np.float64]:
    """Read a box per line, its values separated by commas, tabs, semicolons or spaces.

    Four values are x, y, w, h. Eight or more (an even number) are the corners of a polygon and give
    the box around it; a VOT mask (`m` x, y, w, h, ...) gives its box. A lone number, VOT's code for
    a frame without a region, and `nan` give NaN.

    Returns:
        (N, 4) float64.

    Raises:
        SequenceError: a line that is none of these (file and line named), or an empty file.
        OSError: the file cannot be read.
    """
    path = Path(path)
    lines = _lines(path)
    if not lines:
        raise SequenceError(f"{path}: empty annotation")
    fields = [line.translate(_TO_SPACES).split() for line in lines]
    if all(len(values) == 4 for values in fields):
        with contextlib.suppress(ValueError):  # named below, with its line
            return np.array(fields, np.float64)
    return np.array([_row(line, path, i) for i, line in enumerate(lines, 1)], np.float64)


def read_numbers(path: str | Path) -> NDArray[np.float64]:
    """Read all numbers of a file, one per line or separated: flags, visible shares, times.

    Raises:
        SequenceError: something in it is not a number.
        OSError: the file cannot be read.
    """
    path = Path(path)
    values = [value for line in _lines(path) for value in _SEPARATORS.split(line) if value]
    try:
        return np.array(values, np.float64)
    except ValueError:
        raise SequenceError(f"{path}: expected numbers only") from None


def fit_boxes(
    boxes: NDArray[np.float64], frames: int, source: Path
) -> tuple[NDArray[np.float64], NDArray[np.bool_], tuple[str, ...]]:
    """Bring an annotation to the number of frames: extra rows are dropped, missing ones NaN.

    Returns:
        (frames, 4) boxes; (frames,) whether there was a row; notes that say what was odd.
    """
    rows = len(boxes)
    fitted = np.full((frames, 4), np.nan)
    fitted[: min(rows, frames)] = boxes[:frames]
    annotated = np.arange(frames) < rows
    if rows == frames:
        return fitted, annotated, ()
    what = f"from frame {rows + 1} on none is scored" if rows < frames else "extra rows left out"
    return fitted, annotated, (f"{source}: {rows} rows for {frames} frames; {what}",)


def read_flags(path: Path, frames: int) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Read one flag per frame, above zero being True; flags that are missing are False.

    Returns:
        (frames,) flags, and notes where their number differs. No file gives no flags.
    """
    if not path.is_file():
        return np.zeros(frames, bool), ()
    values = read_numbers(path)
    flags = np.zeros(frames, bool)
    flags[: min(len(values), frames)] = values[:frames] > 0
    if len(values) == frames:
        return flags, ()
    return flags, (f"{path}: {len(values)} flags for {frames} frames",)


def polygon_boxes(polygons: ArrayLike) -> NDArray[np.float64]:
    """The upright boxes, (N, 4), around polygons (N, 2K) of corners x1, y1, ... xK, yK."""
    values = np.asarray(polygons, np.float64)
    corners = values.reshape(len(values), -1, 2)
    first, last = corners.min(axis=1), corners.max(axis=1)
    return np.hstack([first, last - first])


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8-sig", errors="replace").strip().splitlines()


def _row(line: str, path: Path, number: int) -> list[float]:
    line = line.strip()
    mask = line.startswith("m")
    try:
        values = [float(v) for v in _SEPARATORS.split(line.removeprefix("m")) if v]
    except ValueError:
        raise SequenceError(f"{path}, line {number}: not a box: {line[:60]!r}") from None
    if len(values) == 4 or (mask and len(values) > 4):
        return values[:4]
    if len(values) >= 8 and len(values) % 2 == 0:
        return polygon_boxes([values])[0].tolist()
    if len(values) == 1:
        return [np.nan] * 4
    raise SequenceError(
        f"{path}, line {number}: {len(values)} values; expected x, y, w, h or a polygon's corners"
    )
