"""A sequence: frames and boxes of one target, and the reader of the plain folder layout."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from siamcar_ros.data.annotations import SequenceError, fit_boxes, read_boxes, read_flags

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
)
_ANNOTATIONS = ("groundtruth.txt", "groundtruth_rect.txt", "groundtruth.csv")
_FRAME_FOLDERS = ("img", "color", "imgs", "frames", "images", "jpg")


@dataclass(frozen=True)
class Sequence:
    """One video with one target; N is the number of frames.

    Attributes:
        name: unique within its data set.
        frames: the image files, in order.
        boxes: (N, 4) float64 x, y, w, h in pixels; NaN where the target is absent or not annotated.
        annotated: (N,) bool, False where the owner gives no row; such frames are never scored.
        attributes: short names of the difficulties that the benchmark lists for it.
        origin: the coordinate of the first pixel in `boxes` and in result files: 0, or 1 where the
            benchmark's owner counts as MATLAB does. Trackers always see 0.
        size: image (width, height) where the benchmark cuts boxes to it.
        withheld: only the first box is published; the owner scores on a server.
        aliases: other names under which result files of this sequence go about.
        lead_in: frames that the benchmark omits at the start; others' results may have rows of
            them.
        notes: what was odd in the files and how it was read, for the user.

    Raises:
        SequenceError: no frames, array lengths that differ, or a first box that is none.
    """

    name: str
    frames: tuple[Path, ...]
    boxes: NDArray[np.float64]
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
        first = self.boxes[0].tolist()
        if not (np.isfinite(first).all() and first[2] > 0 and first[3] > 0):
            raise SequenceError(f"{self.name}: no box to start from on the first frame: {first}")

    def __len__(self) -> int:
        return len(self.frames)


class Annotated(NamedTuple):
    """The images of a folder and what is annotated, as in `Sequence`, of which they are parts."""

    frames: tuple[Path, ...]
    boxes: NDArray[np.float64]
    annotated: NDArray[np.bool_]
    notes: tuple[str, ...]


def read_sequence(folder: str | Path, *, name: str | None = None, origin: int = 0) -> Sequence:
    """Read a folder of numbered images with its `groundtruth.txt`, as `read_annotated` does.

    Args:
        folder: the sequence's folder.
        name: its name; the folder's by default.
        origin: coordinate of the first pixel in the annotation, 0 or 1.

    Raises:
        SequenceError: as `read_annotated`, or the first frame has no box to start from.
        FileNotFoundError: there is no such folder.
    """
    folder = Path(folder)
    found = read_annotated(folder)
    return Sequence(
        name=name or folder.name,
        frames=found.frames,
        boxes=found.boxes,
        annotated=found.annotated,
        attributes=frozenset(_tags(folder)),
        origin=origin,
        notes=found.notes,
    )


def read_annotated(folder: Path) -> Annotated:
    """Read a folder of numbered images with its `groundtruth.txt`; any frame may lack the target.

    Images lie in the folder or in its `img`, `color`, `imgs`, `frames`, `images` or `jpg` folder
    and are taken in the order of their numbers. `absence.label`, where there is one, marks the
    frames without the target, as in GOT-10k.

    Raises:
        SequenceError: no images, no annotation, or an annotation that cannot be read.
        FileNotFoundError: there is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no sequence folder {folder}")
    annotation = next((folder / a for a in _ANNOTATIONS if (folder / a).is_file()), None)
    if annotation is None:
        raise SequenceError(f"{folder}: no annotation; expected {' or '.join(_ANNOTATIONS)}")
    frames = find_frames(folder)
    boxes, annotated, notes = fit_boxes(read_boxes(annotation), len(frames), annotation)
    absent, more = read_flags(folder / "absence.label", len(frames))
    boxes[absent] = np.nan
    return Annotated(frames, boxes, annotated, notes + more)


def find_frames(folder: Path) -> tuple[Path, ...]:
    """The images of `folder`, or of the sub-folder that it keeps them in, by their numbers.

    Raises:
        SequenceError: there are none.
    """
    for place in (folder, *(folder / name for name in _FRAME_FOLDERS)):
        if place.is_dir():
            images = [p for p in place.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES]
            images = [p for p in images if not p.name.startswith(".")]
            if images:
                return tuple(sorted(images, key=lambda p: (frame_number(p), p.name)))
    raise SequenceError(f"{folder}: no images there nor in {', '.join(_FRAME_FOLDERS)}")


def frame_number(path: Path) -> int:
    """The last number in a file's name; -1 where it has none."""
    digits = re.findall(r"\d+", path.stem)
    return int(digits[-1]) if digits else -1


def _tags(folder: Path) -> Iterable[str]:
    """VOT's per-frame tags (`occlusion.tag` ...) that hold for at least one frame."""
    for path in sorted(folder.glob("*.tag")):
        if "1" in path.read_text(encoding="utf-8", errors="replace").split():
            yield path.stem
