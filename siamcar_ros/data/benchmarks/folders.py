"""Readers of DTB70, NfS, TrackingNet, VOT's sequences, and any folder of sequences."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from siamcar_ros.data.annotations import SequenceError, fit_boxes, read_boxes
from siamcar_ros.data.benchmarks.collection import Collection, collect, subfolders
from siamcar_ros.data.sequences import Sequence, find_frames, read_sequence


def read_folder(root: Path) -> Collection:
    """Read every sequence folder in `root`, or `root` itself where it is one; VOT's list serves.

    Raises:
        SequenceError: no sequence can be read.
        FileNotFoundError: there is no such folder.
    """
    names = subfolders(root)
    if any((root / name).is_file() for name in ("groundtruth.txt", "groundtruth_rect.txt")):
        return collect([root.name], lambda _: [read_sequence(root)], root=root)
    listing = root / "list.txt"
    if listing.is_file():
        names = listing.read_text().split()
    return collect(names, lambda name: [read_sequence(root / name)], root=root)


def read_dtb70(root: Path) -> Collection:
    """Read DTB70: `Animal1/img/00001.jpg` and `Animal1/groundtruth_rect.txt`."""
    names = subfolders(root)
    return collect(names, lambda name: [read_sequence(root / name, origin=1)], root=root)


def read_nfs(root: Path, fps: int) -> Collection:
    """Read NfS: `airplane_landing/30/airplane_landing/00001.jpg` with
    `.../30/airplane_landing.txt`.

    Args:
        root: the folder of the sequences' folders.
        fps: 30 or 240.

    Raises:
        SequenceError: no sequence can be read.
    """
    return collect(subfolders(root), lambda name: _read_nfs(root / name / str(fps)), root=root)


def _read_nfs(folder: Path) -> Iterator[Sequence]:
    annotations = sorted(folder.glob("*.txt"))
    if not annotations:
        raise SequenceError(f"no annotation {folder / '*.txt'}")
    for annotation in annotations:
        frames = find_frames(folder / annotation.stem)
        boxes = _nfs_boxes(annotation)
        # Both rates ship the annotation of 240 frames a second.
        if abs(len(boxes) / len(frames) - 8) < 1:
            boxes = boxes[::8]
        if len(frames) - len(boxes) == 1:
            frames = frames[: len(boxes)]
        boxes, annotated, notes = fit_boxes(boxes, len(frames), annotation)
        yield Sequence(annotation.stem, frames, boxes, annotated=annotated, notes=notes)


def _nfs_boxes(path: Path) -> np.ndarray:
    """Lines of VATIC: track, left, top, right, bottom, frame, lost, occluded, generated, label."""
    rows: list[list[float]] = []
    for number, line in enumerate(path.read_text().strip().splitlines(), 1):
        fields = re.split(r"[,\s]+", line.strip())
        try:
            left, top, right, bottom = map(float, fields[1:5])
        except ValueError:
            raise SequenceError(f"{path}, line {number}: not a box: {line[:60]!r}") from None
        rows.append([left, top, right - left, bottom - top])
    if not rows:
        raise SequenceError(f"{path}: empty annotation")
    return np.array(rows)


def read_trackingnet(root: Path, subset: str) -> Collection:
    """Read TrackingNet: `TEST/frames/NAME/0.jpg` and `TEST/anno/NAME.txt`.

    Args:
        root: the folder that holds `TEST`, `TRAIN_0` ...
        subset: "TEST", with the first box only, or "TRAIN", all chunks that are there.

    Raises:
        SequenceError: no sequence can be read.
    """
    chunks = [root / name for name in subfolders(root) if name.split("_")[0] == subset]
    if not chunks and (root / "anno").is_dir():
        chunks = [root]
    paths = {path.stem: path for chunk in chunks for path in sorted(chunk.glob("anno/*.txt"))}
    return collect(paths, lambda name: [_read_trackingnet(paths[name], subset)], root=root)


def _read_trackingnet(annotation: Path, subset: str) -> Sequence:
    frames = find_frames(annotation.parent.parent / "frames" / annotation.stem)
    boxes, annotated, notes = fit_boxes(read_boxes(annotation), len(frames), annotation)
    sequence = Sequence(annotation.stem, frames, boxes, annotated=annotated, notes=notes)
    return replace(sequence, withheld=True, notes=()) if subset == "TEST" else sequence
