"""Sequences on disk: frames and boxes, read from the layout of GOT-10k and kin."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
)
_ANNOTATIONS = ("groundtruth.txt", "groundtruth_rect.txt", "groundtruth.csv")
_FRAME_FOLDERS = ("img", "color", "imgs", "frames", "images")


class SequenceError(ValueError):
    """A sequence whose files are missing, malformed, or at odds with each other. The message names
    them.
    """


@dataclass(frozen=True)
class Sequence:
    """One video with one target.

    Attributes:
        name: unique within its data set.
        frames: the image files in order, N of them.
        boxes: (N, 4) float64 x, y, w, h in pixels; a row of NaN where the target is absent or has
            no annotation.
        attributes: short names of the difficulties that the benchmark lists for it.
        origin: the coordinate of the first pixel in `boxes` and in result files: 0, or 1 where the
            benchmark's owner counts as MATLAB does. Trackers always see 0.
        counted: (N,) bool, the frames that the benchmark scores; all by default.
        size: image (width, height) where the benchmark cuts boxes to it.
        withheld: the owner publishes no ground truth but the first frame's, and scores on a server.
        notes: what was odd in the files and how it was read, for the user.
    """

    name: str
    frames: tuple[Path, ...]
    boxes: NDArray[np.float64]
    attributes: frozenset[str] = frozenset()
    origin: int = 0
    counted: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))
    size: tuple[int, int] | None = None
    withheld: bool = False
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.frames:
            raise SequenceError(f"{self.name}: no frames")
        if self.boxes.shape != (len(self.frames), 4):
            raise SequenceError(
                f"{self.name}: {len(self.frames)} frames but boxes of shape {self.boxes.shape}"
            )
        if len(self.counted) == 0:
            object.__setattr__(self, "counted", np.ones(len(self.frames), bool))
        if self.counted.shape != (len(self.frames),):
            raise SequenceError(
                f"{self.name}: {len(self.frames)} frames but {len(self.counted)} flags"
            )
        first = self.boxes[0].tolist()
        if not (np.isfinite(first).all() and first[2] > 0 and first[3] > 0):
            raise SequenceError(f"{self.name}: no box to start from on the first frame: {first}")

    def __len__(self) -> int:
        return len(self.frames)


def read_sequence(folder: str | Path, *, name: str | None = None, origin: int = 0) -> Sequence:
    """Read a folder of numbered images with its `groundtruth.txt`.

    Images lie in the folder itself or in its `img`, `color`, `imgs`, `frames` or `images` folder
    and are taken in the order of the numbers in their names. `absence.label` beside the annotation
    (GOT-10k) marks absent frames.

    Args:
        folder: the sequence's folder.
        name: its name; the folder's by default.
        origin: coordinate of the first pixel in the annotation, 0 or 1.

    Raises:
        SequenceError: no images, no annotation, or an annotation that cannot be read.
        FileNotFoundError: there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no sequence folder {folder}")
    annotation = next((folder / name for name in _ANNOTATIONS if (folder / name).is_file()), None)
    if annotation is None:
        raise SequenceError(f"{folder}: no annotation; expected one of {', '.join(_ANNOTATIONS)}")
    frames = find_frames(folder)
    boxes, notes = fit_boxes(read_boxes(annotation), len(frames), annotation)
    absence = folder / "absence.label"
    if absence.is_file():
        flags, more = fit_flags(read_flags(absence), len(frames), absence)
        boxes[flags] = np.nan
        notes += more
    return Sequence(name or folder.name, frames, boxes, origin=origin, notes=notes)


def find_frames(folder: Path) -> tuple[Path, ...]:
    """The images of `folder`, or of the sub-folder that it keeps them in, in the order of their
    numbers.
    """
    for place in (folder, *(folder / name for name in _FRAME_FOLDERS)):
        if place.is_dir():
            images = [
                p
                for p in place.iterdir()
                if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")
            ]
            if images:
                return tuple(sorted(images, key=_number))
    raise SequenceError(f"{folder}: no images there nor in {', '.join(_FRAME_FOLDERS)}")


def read_boxes(path: str | Path) -> NDArray[np.float64]:
    """Read an annotation or result file: a box per line, separated by commas, tabs, semicolons or
    spaces.

    Four values are x, y, w, h; eight or more (even) are a polygon and give the box around it; a VOT
    mask (`m x,y,w,h,...`) gives its box; a single number, a VOT state code, or `nan` gives NaN.

    Returns:
        (N, 4) float64.

    Raises:
        SequenceError: a line that is none of these (file and line named), or an empty file.
        OSError: the file cannot be read.
    """
    path = Path(path)
    rows = [_row(line, path, i) for i, line in enumerate(_lines(path), 1)]
    if not rows:
        raise SequenceError(f"{path}: empty annotation")
    return np.array(rows, np.float64)


def read_flags(path: str | Path) -> NDArray[np.bool_]:
    """Read zeros and ones, one per line or separated by commas (GOT-10k's labels, LaSOT's flags),
    as (N,) bool.
    """
    path = Path(path)
    values = [v for line in _lines(path) for v in re.split(r"[,;\s]+", line) if v]
    try:
        return np.array([float(v) for v in values]) > 0
    except ValueError:
        raise SequenceError(f"{path}: expected numbers, one flag per frame") from None


def fit_boxes(
    boxes: NDArray[np.float64], frames: int, source: Path
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Bring an annotation to the number of frames: missing rows become NaN (not scored), extra ones
    are dropped.

    Returns:
        (frames, 4) boxes, and notes that say what was odd.
    """
    rows = len(boxes)
    if rows == frames:
        return boxes.copy(), ()
    fitted = np.full((frames, 4), np.nan)
    fitted[: min(rows, frames)] = boxes[:frames]
    if rows < frames:
        return fitted, (
            f"{source}: {rows} rows for {frames} frames; from frame {rows + 1} on none is scored",
        )
    return fitted, (f"{source}: {rows} rows for {frames} frames; the extra rows are left out",)


def fit_flags(
    flags: NDArray[np.bool_], frames: int, source: Path
) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Bring per-frame flags to the number of frames; missing ones are False."""
    if len(flags) == frames:
        return flags, ()
    fitted = np.zeros(frames, bool)
    fitted[: min(len(flags), frames)] = flags[:frames]
    return fitted, (f"{source}: {len(flags)} flags for {frames} frames",)


def polygon_boxes(polygons: ArrayLike) -> NDArray[np.float64]:
    """The upright boxes (N, 4) around polygons (N, 2K) of corners x1, y1, ... xK, yK."""
    corners = np.asarray(polygons, np.float64)
    corners = corners.reshape(len(corners), -1, 2)
    first, last = corners.min(axis=1), corners.max(axis=1)
    return np.hstack([first, last - first])


def _lines(path: Path) -> Iterable[str]:
    text = path.read_text(encoding="utf-8-sig", errors="replace").strip()
    return text.splitlines()


def _row(line: str, path: Path, number: int) -> list[float]:
    mask = line.startswith("m")
    try:
        values = [
            float(v) for v in re.split(r"[,;\s]+", line.removeprefix("m").strip().rstrip(",;")) if v
        ]
    except ValueError:
        raise SequenceError(f"{path}, line {number}: not a box: {line[:60]!r}") from None
    if len(values) == 4 or (mask and len(values) > 4):
        return values[:4]
    if len(values) >= 8 and len(values) % 2 == 0:
        return list(polygon_boxes([values])[0])
    if len(values) == 1:
        return [np.nan] * 4
    raise SequenceError(
        f"{path}, line {number}: expected 4 values (x, y, w, h) or a polygon, got {len(values)}"
    )


def _number(path: Path) -> tuple[int, str]:
    digits = re.findall(r"\d+", path.stem)
    return (int(digits[-1]) if digits else -1, path.name)
