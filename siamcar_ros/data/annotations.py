"""Text files of boxes and flags, in the dialects of the benchmarks."""

from __future__ import annotations

import re
from collections.abc import Sequence as Rows
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from siamcar_ros.data.images import MAX_PIXELS
from siamcar_ros.geometry import Boxes

_SEPARATORS = re.compile(r"[,;\s]+")


class SequenceError(ValueError):
    """A sequence whose files are missing, malformed or inconsistent; the message names them."""


def read_boxes(path: str | Path) -> Boxes:
    """Read the true boxes of a target, (N, 4), one frame a line, NaN where it is absent.

    A line holds x, y, w, h, separated by commas, semicolons, tabs or spaces; or the four corners of
    a polygon, which give the box around it; or a VOT mask (``m`` x, y, w, h of a bitmap and its run
    lengths), which gives the box around its pixels. A box without an area, an empty mask, values
    that are not finite, and a lone number (VOT's code of a frame without a region) say that the
    target is absent.

    Raises:
        SequenceError: a line that is none of these (file and line are named), or an empty file.
        OSError: the file cannot be read.
    """
    boxes = read_rows(path)
    boxes[is_absent(boxes)] = np.nan
    return boxes


def read_rows(path: str | Path) -> Boxes:
    """Like :func:`read_boxes`, for tracker results: boxes without an area are kept."""
    path = Path(path)
    rows = []
    for number, line in enumerate(read_lines(path), 1):
        try:
            rows.append(_parse_box(line.strip()))
        except ValueError as error:
            raise SequenceError(f"{path}, line {number}: {error}: {line[:60]!r}") from None
    return np.array(rows, np.float64)


def is_absent(boxes: Boxes) -> NDArray[np.bool_]:
    """Which rows, (N,) bool, say that the target is absent: not finite, or without an area."""
    with np.errstate(invalid="ignore"):
        present = np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > 0).all(axis=1)
    return np.asarray(~present)


def read_numbers(path: str | Path) -> NDArray[np.float64]:
    """Read all numbers of a file, one per line or separated: flags, visible shares, times."""
    path = Path(path)
    lines = read_lines(path, empty=True)
    values = [value for line in lines for value in _SEPARATORS.split(line) if value]
    try:
        return np.array(values, np.float64)
    except ValueError:
        raise SequenceError(f"{path}: expected numbers only") from None


def fit_boxes(
    boxes: Boxes, frames: Rows[Path], source: Path, first: int | None = None
) -> tuple[Boxes, NDArray[np.bool_], tuple[str, ...]]:
    """Assign the rows of an annotation to the frames.

    Where there are more rows than frames, the numbers in the names tell the rows. Otherwise row i
    is frame i, and frames beyond the last row are not annotated. `frames` are the N image files;
    `source`, the annotation, is for the notes; `first` is the number of the first row's image,
    where it is known.

    Returns:
        (N, 4) boxes, NaN without a row; (N,) whether there is a row; notes that say what was odd.
    """
    rows, n = len(boxes), len(frames)
    index = _rows_of(frames, rows, source, first)
    fitted = np.concatenate((boxes, np.full((n, 4), np.nan)))[index]
    if rows == n:
        return fitted, index < rows, ()
    if rows < n:
        told = f"frames from {rows + 1} on are not scored"
    elif index[-1] < n:
        told = "the surplus rows are ignored"
    else:
        missing = "1 image is" if rows - n == 1 else f"{rows - n} images are"
        told = (
            f"{missing} missing; the others are matched to their rows by the numbers in their names"
        )
    return fitted, index < rows, (f"{source}: {rows} rows for {n} frames; {told}",)


def _rows_of(frames: Rows[Path], rows: int, source: Path, first: int | None) -> NDArray[np.int64]:
    """The index of each frame's row, (N,); it is at least `rows` for a frame that has none."""
    n = len(frames)
    if rows <= n:
        return np.arange(n)
    numbers = np.array([frame_number(frame) for frame in frames])
    start, end = int(numbers[0]), int(numbers[-1])

    def fits(base: int) -> bool:
        return base <= start and end - base < rows

    bases = [base for base in (0, 1) if fits(base)] or [start]
    if first is not None and fits(first):
        bases = [first]
    elif start == 1:
        bases = [1]  # that image 0 is missing is less likely
    if len(bases) > 1 or not fits(bases[0]) or (np.diff(numbers) <= 0).any():
        raise SequenceError(
            f"{source}: {rows} rows for {n} images, whose names do not tell which rows are theirs; "
            "remove the rows that have no image"
        )
    return numbers - bases[0]


def frame_number(path: Path) -> int:
    """The last number in a file's name; -1 where it has none."""
    digits = re.findall(r"\d+", path.stem)
    return int(digits[-1]) if digits else -1


def read_flags(
    path: Path, frames: Rows[Path], first: int | None = None
) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Read one flag per frame, (N,) bool, true above zero, false where it is missing.

    Flags are matched to frames as boxes are, see :func:`fit_boxes`. Also return notes; there is one
    if the numbers of flags and frames differ.
    """
    n = len(frames)
    if not path.is_file():
        return np.zeros(n, bool), ()
    flags = read_numbers(path) > 0
    notes = () if len(flags) == n else (f"{path}: {len(flags)} flags for {n} frames",)
    index = _rows_of(frames, len(flags), path, first)
    return np.concatenate((flags, np.zeros(n, bool)))[index], notes


def read_properties(path: Path) -> dict[str, str]:
    """Read the lines `key: value` or `key=value` of a file; empty where there is no such file."""
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    pairs = (re.split(r"[:=]", line, maxsplit=1) for line in lines)
    return {pair[0].strip(): pair[1].strip() for pair in pairs if len(pair) == 2}


def read_lines(path: Path, *, empty: bool = False) -> list[str]:
    """Read the lines of an annotation, without blank ones at its end; none only if `empty`."""
    lines = path.read_text(encoding="utf-8-sig", errors="replace").rstrip().splitlines()
    if not lines and not empty:
        raise SequenceError(f"{path} is empty")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise SequenceError(
                f"{path}, line {number} is empty; write nan,nan,nan,nan where the target is absent"
            )
    return lines


def _parse_box(line: str) -> list[float]:
    is_mask = line.startswith("m")
    text = re.sub(r"\s*,\s*", ",", line.removeprefix("m").strip())
    if "," in text.strip(",") and re.search(r"[;\s]", text):
        raise ValueError("commas beside other separators (decimal commas are not understood)")
    try:
        values = [float(value) for value in _SEPARATORS.split(text) if value]
    except ValueError:
        raise ValueError("not a box") from None
    if is_mask:
        return _mask_box(values)
    if len(values) == 4:
        return values
    if len(values) == 8:
        x, y = values[0::2], values[1::2]
        return [min(x), min(y), max(x) - min(x), max(y) - min(y)]
    if len(values) == 1:
        return [np.nan] * 4
    hint = ", as in MOT's files" if len(values) in (7, 9, 10) else ""
    raise ValueError(f"{len(values)} values{hint}; expected x, y, w, h or a polygon's four corners")


def _mask_box(values: list[float]) -> list[float]:
    """The box around a VOT mask: x, y, width and height of a bitmap, then the lengths of runs of
    zeros and ones, alternately and row by row, zeros first.

    As in the VOT toolkit (vot/region/io.py); zeros at the end may be left out.
    """
    if not all(abs(value) < 1 << 31 for value in values):
        raise ValueError("not a mask: a value is too large or not a number")
    x, y, width, height = (int(value) for value in (*values, 0, 0, 0, 0)[:4])
    runs = np.array(values[4:], np.int64)
    if len(values) < 4 or (runs < 0).any() or not runs.sum() <= width * height <= MAX_PIXELS:
        raise ValueError("not a mask: its run lengths do not fit its size")
    mask = np.zeros(width * height, bool)
    mask[: runs.sum()] = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    rows, columns = np.nonzero(mask.reshape(height, width))
    if not len(rows):
        return [np.nan] * 4
    left, top = x + int(columns.min()), y + int(rows.min())
    return [left, top, x + int(columns.max()) + 1 - left, y + int(rows.max()) + 1 - top]
