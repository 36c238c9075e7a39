"""UAV123, UAV20L and UAV123@10fps as their owners ship them: `data_seq/UAV123/bird1/000001.jpg` and
`anno/UAV123/bird1_2.txt`, with attributes in `anno/UAV123/att/bird1_2.txt`.

Long videos are cut into sub-sequences (`bird1_1` ...) by a table of frames. Rows of NaN mark frames
without the target. Boxes count pixels from 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from siamcar_ros.data.annotations import (
    SequenceError,
    fit_boxes,
    read_boxes,
    read_numbers,
)
from siamcar_ros.data.benchmarks.collection import Collection, collect, first_folder, table
from siamcar_ros.data.sequences import Sequence, find_frames, frame_number


def read_uav123(root: Path, version: str) -> Collection:
    """Read UAV123.

    Args:
        root: the folder that holds `anno` and `data_seq`.
        version: "UAV123", "UAV20L" or "UAV123_10fps".

    Raises:
        SequenceError: no sequence can be read.
    """
    facts = table("uav123")
    ranges = facts["UAV20L" if version == "UAV20L" else "UAV123"]
    return collect(
        ranges,
        lambda name: _read(root, version, name, ranges[name]),
        root=root,
        attributes=facts["attributes"],
    )


def _read(root: Path, version: str, name: str, place: list[str | int]) -> Iterator[Sequence]:
    folder_name, first, last = str(place[0]), int(place[1]), int(place[2])
    if version == "UAV123_10fps":
        first, last = (first - 1) // 3 + 1, (last - 1) // 3 + 1
    data = root / "data_seq"
    folder = first_folder(
        data / ("UAV123_10fps" if version == "UAV123_10fps" else "UAV123") / folder_name,
        data / version / folder_name,
        data / folder_name,
    )
    annotation = root / "anno" / version / f"{name}.txt"
    if not annotation.is_file():
        raise SequenceError(f"no annotation {annotation}")
    frames = tuple(f for f in find_frames(folder) if first <= frame_number(f) <= last)
    boxes, annotated, notes = fit_boxes(read_boxes(annotation), len(frames), annotation)
    yield Sequence(
        name=name,
        frames=frames,
        boxes=boxes,
        annotated=annotated,
        attributes=_attributes(annotation.parent / "att" / annotation.name),
        origin=1,
        notes=notes,
    )


def _attributes(path: Path) -> frozenset[str]:
    if not path.is_file():
        return frozenset()
    names = list(table("uav123")["attributes"])
    flags = read_numbers(path)
    if len(flags) != len(names):
        raise SequenceError(f"{path}: {len(flags)} attributes, expected {len(names)}")
    return frozenset(name for name, flag in zip(names, flags, strict=True) if flag > 0)
