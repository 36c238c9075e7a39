"""A sequence: the frames and boxes of one target, and the reader of the plain folder layout."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from siamcar_ros.data.annotations import (
    SequenceError,
    fit_boxes,
    is_absent,
    read_boxes,
    read_flags,
)
from siamcar_ros.geometry import Boxes

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
)
ANNOTATIONS = ("groundtruth.txt", "groundtruth_rect.txt", "groundtruth.csv")
_FRAME_FOLDERS = ("img", "color", "imgs", "frames", "images", "jpg")
# Seconds since 1970 with a fraction, or any number
_NUMBER = re.compile(r"(\d{9,}\.\d+|\d+)")


@dataclass(frozen=True)
class Sequence:
    """One video with one target; N is the number of frames.

    Attributes:
        name: unique within its data set.
        frames: the image files in order, all in one folder.
        boxes: (N, 4) float64 x, y, w, h in pixels; NaN where the target is absent or not annotated.
        annotated: (N,) bool, False where the owner gives no row; such frames are never scored.
        attributes: short names of the difficulties that the benchmark lists for it.
        origin: the coordinate of the first pixel in `boxes` and in result files: 0, or 1 where the
            benchmark's owner counts as MATLAB does. Trackers always see 0.
        size: image (width, height) where the benchmark clips boxes to it.
        withheld: only the first box is published; the owner scores on a server.
        aliases: other names that result files of this sequence may have.
        lead_in: frames that the benchmark omits at the start, which others' results may include.
        notes: what was odd in the files and how it was read, for the user.

    Raises:
        SequenceError: there are no frames, or the arrays differ in length.
    """

    name: str
    frames: tuple[Path, ...]
    boxes: Boxes
    annotated: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))
    attributes: frozenset[str] = frozenset()
    origin: int = 0
    size: tuple[int, int] | None = None
    withheld: bool = False
    aliases: tuple[str, ...] = ()
    lead_in: int = 0
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.frames)
        if n == 0:
            raise SequenceError(f"{self.name}: no frames")
        if len(self.annotated) == 0:
            object.__setattr__(self, "annotated", np.ones(n, bool))
        if self.boxes.shape != (n, 4) or self.annotated.shape != (n,):
            raise SequenceError(
                f"{self.name}: {n} frames, boxes {self.boxes.shape}, flags {self.annotated.shape}"
            )

    def __len__(self) -> int:
        return len(self.frames)

    def check_start(self) -> None:
        """Check that the first frame has a box for a tracker to start from.

        Raises:
            SequenceError: it has none.
        """
        if is_absent(self.boxes[:1])[0]:
            raise SequenceError(
                f"{self.name}: no box to start from on the first frame: {self.boxes[0].tolist()}"
            )


def read_sequence(folder: str | Path, *, origin: int = 0) -> Sequence:
    """Read a folder of numbered images with its `groundtruth.txt`.

    The images are in the folder or in its `img`, `color`, `imgs`, `frames`, `images` or `jpg`
    folder. `absence.label`, where there is one, marks the frames without the target, as in GOT-10k;
    VOT's tags (`occlusion.tag` ...) become attributes. The folder names the sequence; `origin` is
    the coordinate of the first pixel in the annotation, 0 or 1.

    Raises:
        SequenceError: no images, no annotation, or an annotation that cannot be read.
        FileNotFoundError: there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no sequence folder {folder}")
    annotation = next((folder / a for a in ANNOTATIONS if (folder / a).is_file()), None)
    if annotation is None:
        raise SequenceError(f"{folder}: no annotation; expected {' or '.join(ANNOTATIONS)}")
    return load_sequence(
        folder.resolve().name,
        find_frames(folder),
        annotation,
        absent=(folder / "absence.label",),
        attributes=read_tags(folder),
        origin=origin,
    )


def load_sequence(
    name: str,
    frames: tuple[Path, ...],
    annotation: Path,
    *,
    boxes: Boxes | None = None,
    absent: Iterable[Path] = (),
    first: int | None = None,
    **facts: Any,
) -> Sequence:
    """Make a sequence of its image files in order and a file of boxes, a row per frame.

    `boxes` is the content of a file that :func:`read_boxes` does not understand. `absent` are files
    of flags of the frames without the target, where they exist; `first` is the number in the name
    of the first row's image, where the layout fixes it; `facts` are other attributes of
    :class:`Sequence`.

    Raises:
        SequenceError: a file is malformed, there are no frames, or rows without an image cannot be
            told from the others.
        OSError: the annotation cannot be read.
    """
    rows = read_boxes(annotation) if boxes is None else boxes
    fitted, annotated, notes = fit_boxes(rows, frames, annotation, first)
    for path in absent:
        flags, more = read_flags(path, frames, first)
        fitted[flags] = np.nan
        notes += more
    if facts.get("withheld"):
        notes = ()  # a single row is as it should be
    return Sequence(name, frames, fitted, annotated=annotated, notes=notes, **facts)


def find_frames(folder: Path) -> tuple[Path, ...]:
    """The images of a folder, or of the sub-folder that it keeps them in, in natural order.

    Raises:
        SequenceError: there are none.
    """
    for place in (folder, *(folder / name for name in _FRAME_FOLDERS)):
        if place.is_dir():
            images = [p for p in place.glob("[!.]*") if p.suffix.lower() in IMAGE_SUFFIXES]
            if images:
                return tuple(sorted(images, key=natural_order))
    raise SequenceError(f"{folder}: no images there nor in {', '.join(_FRAME_FOLDERS)}")


def natural_order(path: Path) -> tuple[Any, ...]:
    """A sort key that compares every number in a file's name by its value, `frame9_take2` before
    `frame10_take1`, and time stamps in seconds (`1311868164.36`) as decimal fractions.
    """
    parts = _NUMBER.split(path.stem.casefold())
    return tuple(Decimal(p) if i % 2 else p for i, p in enumerate(parts)), path.name


def read_tags(folder: Path) -> frozenset[str]:
    """VOT's per-frame tags (`occlusion.tag` ...) that hold for at least one frame."""
    tags = {path.stem: path.read_text("utf-8", "replace").split() for path in folder.glob("*.tag")}
    return frozenset(tag for tag, flags in tags.items() if "1" in flags)
