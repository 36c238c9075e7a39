"""A folder of sequences (one's own, VOT's, DTB70), VOT-LT, and NfS."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from siamcar_ros.data.annotations import SequenceError, is_absent, read_lines, read_properties
from siamcar_ros.data.images import image_size
from siamcar_ros.data.registry import register_dataset
from siamcar_ros.data.sequence_sets import SequenceSet, listed_names, subfolders
from siamcar_ros.data.sequences import (
    ANNOTATIONS,
    Sequence,
    find_frames,
    load_sequence,
    read_sequence,
    read_tags,
)
from siamcar_ros.geometry import Boxes, corners_to_xywh


@register_dataset("sequences")
class SequenceFolder(SequenceSet):
    """A folder of sequences, each a folder of images with its `groundtruth.txt`; or one of them.

    VOT's `list.txt` names the sequences where there is one. `origin` is the coordinate of the first
    pixel in the annotations, 0 or 1.
    """

    def __init__(self, root: Path, *, origin: int = 0) -> None:
        is_one = any((root / name).is_file() for name in ANNOTATIONS)
        super().__init__("sequences", root, ["."] if is_one else listed_names(root))
        self._origin = origin

    def read(self, name: str) -> Sequence:
        """Read a sequence."""
        return read_sequence(self.root / name, origin=self._origin)


@register_dataset("dtb70")
class DTB70(SequenceFolder):
    """DTB70: `Animal1/img/00001.jpg` and `Animal1/groundtruth_rect.txt`, pixels counted from 1."""

    trainable = False

    def __init__(self, root: Path) -> None:
        super().__init__(root, origin=1)


@register_dataset("vot_lt")
class VotLT(SequenceFolder):
    """VOT-LT: `list.txt`, and per sequence `groundtruth.txt`, with rows of NaN where the target is
    absent, `color/00000001.jpg`, and `sequence`, whose lines `key=value` may name other places.
    """

    trainable = False

    def read(self, name: str) -> Sequence:
        """Read a sequence."""
        folder = self.root / name
        facts = read_properties(folder / "sequence")
        pattern = folder / facts.get("channels.color", "")
        frames = find_frames(pattern.parent if pattern.suffix else pattern)
        numbers = {key: int(value) for key, value in facts.items() if value.isdecimal()}
        frames = frames[: numbers.get("length", len(frames))]
        size = (numbers.get("width", 0), numbers.get("height", 0))
        return load_sequence(
            name,
            frames,
            folder / facts.get("groundtruth", "groundtruth.txt"),
            first=1,
            attributes=read_tags(folder),
            size=size if all(size) else image_size(frames[0].read_bytes()),
        )


@register_dataset("nfs")
class NfS(SequenceSet):
    """NfS: `airplane_landing/30/airplane_landing/00001.jpg` and `.../30/airplane_landing.txt`.

    `fps` is 30 or 240; both rates ship the annotation of 240 frames per second.
    """

    trainable = False

    def __init__(self, root: Path, *, fps: int = 240) -> None:
        names = []
        for folder in subfolders(root):
            found = sorted(path.stem for path in (root / folder / str(fps)).glob("*.txt"))
            names += [f"{folder}/{fps}/{name}" for name in found or ["*"]]
        super().__init__(f"nfs {fps}", root, names)

    def read(self, name: str) -> Sequence:
        """Read a sequence, FOLDER/FPS/NAME."""
        annotation = self.root / f"{name}.txt"
        if not annotation.is_file():
            raise SequenceError(f"no annotation {annotation}")
        frames, boxes = find_frames(self.root / name), _vatic_boxes(annotation)
        if abs(len(boxes) / len(frames) - 8) < 1:
            boxes = boxes[::8]
        if len(frames) - len(boxes) == 1:
            frames = frames[:-1]
        return load_sequence(annotation.stem, frames, annotation, boxes=boxes, first=1)


def _vatic_boxes(path: Path) -> Boxes:
    """Lines of VATIC: track, left, top, right, bottom, frame, lost, occluded, generated, label."""
    rows = []
    for number, line in enumerate(read_lines(path), 1):
        try:
            left, top, right, bottom = map(float, re.split(r"[,\s]+", line.strip())[1:5])
        except ValueError:
            raise SequenceError(f"{path}, line {number}: not a box: {line[:60]!r}") from None
        rows.append([left, top, right, bottom])
    boxes = corners_to_xywh(rows)
    boxes[is_absent(boxes)] = np.nan
    return boxes
