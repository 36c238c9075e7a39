"""OTB-2013, OTB-50 and OTB-100, as the owners' zips unpack: `David/img/0001.jpg`, ...

Jogging and Skating2 hold two annotations and become `Jogging.1`, `Jogging.2` and so on; the first
annotation of Human4 is empty. A few sequences are annotated over a part of their frames only, and
the first five frames of Tiger1 are omitted (config/benchmarks/otb.yaml). Boxes are separated by
commas, tabs or spaces and count pixels from 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from siamcar_ros.data.annotations import SequenceError, fit_boxes, read_boxes
from siamcar_ros.data.benchmarks.collection import Collection, collect, table
from siamcar_ros.data.sequences import Sequence, find_frames, frame_number


def read_otb(root: Path, version: str) -> Collection:
    """Read OTB.

    Args:
        root: the folder of the sequences' folders.
        version: "2013", "50" or "100".

    Raises:
        SequenceError: no sequence can be read.
    """
    facts = table("otb")
    names = sorted(facts["sequences"] if version == "100" else facts["versions"][version])
    return collect(
        names, lambda name: _read(root / name), root=root, attributes=facts["attributes"]
    )


def _read(folder: Path) -> Iterator[Sequence]:
    facts, name = table("otb"), folder.name
    if not folder.is_dir():
        raise SequenceError(f"no folder {folder}")
    annotations = [
        path
        for path in sorted(folder.glob("groundtruth_rect*.txt"))
        if path.read_text(encoding="utf-8", errors="replace").strip()
    ]
    if not annotations:
        raise SequenceError(f"{folder}: no annotation; expected groundtruth_rect.txt")
    omitted = facts["omitted"].get(name, 0)
    for annotation in annotations:
        boxes = read_boxes(annotation)
        frames = _frames(folder, facts["ranges"].get(name), len(boxes))
        boxes, annotated, notes = fit_boxes(boxes, len(frames), annotation)
        number = annotation.suffixes[0].removeprefix(".") if len(annotation.suffixes) > 1 else ""
        sequence = Sequence(
            name=f"{name}.{number}" if len(annotations) > 1 else name,
            frames=frames[omitted:],
            boxes=boxes[omitted:],
            annotated=annotated[omitted:],
            attributes=frozenset(facts["sequences"].get(name, ())),
            origin=1,
            lead_in=omitted,
            notes=notes,
        )
        others = (f"{name}.{number}", f"{name}_{number}", f"{name}-{number}") if number else ()
        yield replace(sequence, aliases=others)


def _frames(folder: Path, valid: list[int] | None, rows: int) -> tuple[Path, ...]:
    """The frames of the valid range; all where a copy already holds just those."""
    frames = find_frames(folder)
    if valid is None or len(frames) == rows:
        return frames
    first, last = valid
    return tuple(frame for frame in frames if first <= frame_number(frame) <= last)
