"""UAV123, UAV20L and UAV123@10fps: `data_seq/UAV123/bird1/000001.jpg`, `anno/UAV123/bird1_2.txt`
and `anno/UAV123/att/bird1_2.txt`.

Long videos are cut into sub-sequences (`bird1_1` ...) by a table of frames. Rows of NaN mark frames
without the target. Boxes count pixels from 1.
"""

from __future__ import annotations

from pathlib import Path

from siamcar_ros.data.annotations import SequenceError, frame_number, read_numbers
from siamcar_ros.data.registry import register_dataset
from siamcar_ros.data.sequence_sets import SequenceSet, benchmark_facts, first_existing
from siamcar_ros.data.sequences import Sequence, find_frames, load_sequence


@register_dataset("uav123")
class UAV123(SequenceSet):
    """UAV123, UAV20L or UAV123_10fps, as `version` says; `root` holds `anno` and `data_seq`."""

    attributes = benchmark_facts("uav123")["attributes"]
    trainable = False

    def __init__(self, root: Path, *, version: str = "UAV123") -> None:
        self._version = version
        self._places = benchmark_facts("uav123")["UAV20L" if version == "UAV20L" else "UAV123"]
        super().__init__(version, root, self._places)

    def read(self, name: str) -> Sequence:
        """Read a sequence."""
        folder_name, first, last = self._places[name]
        images = "UAV123"
        if self._version == "UAV123_10fps":
            images = self._version
            first, last = (first - 1) // 3 + 1, (last - 1) // 3 + 1
        data = self.root / "data_seq"
        folder = first_existing(
            data / images / folder_name, data / self._version / folder_name, data / folder_name
        )
        annotation = self.root / "anno" / self._version / f"{name}.txt"
        frames = tuple(f for f in find_frames(folder) if first <= frame_number(f) <= last)
        attributes = _attributes(annotation.parent / "att" / annotation.name)
        return load_sequence(name, frames, annotation, first=first, attributes=attributes, origin=1)


def _attributes(path: Path) -> frozenset[str]:
    if not path.is_file():
        return frozenset()
    names, flags = list(UAV123.attributes or ()), read_numbers(path)
    if len(flags) != len(names):
        raise SequenceError(f"{path}: {len(flags)} attributes, expected {len(names)}")
    return frozenset(name for name, flag in zip(names, flags, strict=True) if flag > 0)
