"""OTB-2013, OTB-50 and OTB-100, as the owners' zips unpack: `David/img/0001.jpg`, ...

Jogging and Skating2 hold two annotations and become `Jogging.1`, `Jogging.2` and so on; the first
annotation of Human4 is empty. A few sequences are annotated over a part of their frames only, and
the first five frames of Tiger1 are omitted (config/benchmarks/otb.yaml). Boxes are separated by
commas, tabs or spaces and count pixels from 1.
"""

from __future__ import annotations

from pathlib import Path

from siamcar_ros.data.annotations import SequenceError, frame_number, read_boxes
from siamcar_ros.data.registry import register_dataset
from siamcar_ros.data.sequence_sets import SequenceSet, benchmark_facts
from siamcar_ros.data.sequences import Sequence, find_frames, load_sequence
from siamcar_ros.geometry import Boxes


@register_dataset("otb")
class OTB(SequenceSet):
    """OTB in its version "2013", "50" or "100"; `root` holds the sequences' folders."""

    attributes = benchmark_facts("otb")["attributes"]
    trainable = False

    def __init__(self, root: Path, *, version: str = "100") -> None:
        facts = benchmark_facts("otb")
        folders = sorted(facts["sequences"] if version == "100" else facts["versions"][version])
        names = []
        for folder in folders:
            found = [path.name for path in _annotations(root / folder)]
            names += [f"{folder}/{name}" for name in found] or [folder]
        super().__init__(f"otb {version}", root, names)

    def read(self, name: str) -> Sequence:
        """Read a sequence, FOLDER/ANNOTATION."""
        title, _, file = name.partition("/")
        folder, facts = self.root / title, benchmark_facts("otb")
        if not folder.is_dir():
            raise SequenceError(f"no folder {folder}")
        if not file:
            raise SequenceError(f"{folder}: no annotation; expected groundtruth_rect.txt")
        omitted = facts["omitted"].get(title, 0)
        valid = facts["ranges"].get(title) or (omitted + 1, None)
        frames, boxes = _valid_frames(find_frames(folder), read_boxes(folder / file), *valid)
        number = file.removeprefix("groundtruth_rect").removesuffix(".txt").strip(".")
        return load_sequence(
            f"{title}.{number}" if len(_annotations(folder)) > 1 else title,
            frames,
            folder / file,
            boxes=boxes,
            first=valid[0],
            attributes=frozenset(facts["sequences"].get(title, ())),
            origin=1,
            aliases=tuple(f"{title}{mark}{number}" for mark in "._-") if number else (),
            lead_in=omitted,
        )


def _annotations(folder: Path) -> list[Path]:
    """The annotations that are not empty."""
    paths = sorted(folder.glob("groundtruth_rect*.txt"))
    return [p for p in paths if p.read_text(encoding="utf-8", errors="replace").strip()]


def _valid_frames(
    frames: tuple[Path, ...], boxes: Boxes, first: int, last: int | None
) -> tuple[tuple[Path, ...], Boxes]:
    """The frames that count, and their rows.

    The annotation may have a row for every file or for the valid ones only; a copy may hold the
    valid frames only, under their numbers or renumbered.
    """
    numbers = [frame_number(frame) for frame in frames]
    last = last or numbers[-1]
    keep = [first <= number <= last for number in numbers]
    if all(keep) or (numbers[0] == 1 and len(boxes) == len(frames) == last - first + 1):
        return frames, boxes
    if len(boxes) == len(frames):
        boxes = boxes[keep]
    return tuple(frame for frame, kept in zip(frames, keep, strict=True) if kept), boxes
