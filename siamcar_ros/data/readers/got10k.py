"""GOT-10k: `val/GOT-10k_Val_000001/00000001.jpg`, `groundtruth.txt`, `cover.label`,
`absence.label`, `meta_info.ini`, and `val/list.txt`.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from siamcar_ros.data.annotations import SequenceError, read_flags, read_properties
from siamcar_ros.data.images import image_size
from siamcar_ros.data.registry import register_dataset
from siamcar_ros.data.sequence_sets import SequenceSet, first_existing, listed_names
from siamcar_ros.data.sequences import Sequence, find_frames, load_sequence

_NAME = re.compile(r"GOT-10k_(Train|Val|Test)_\d{6}")


@register_dataset("got10k")
class Got10k(SequenceSet):
    """GOT-10k's "train", "val" or "test"; `root` holds the split's folder or is that folder.

    The test split has the first box only, the owners' server scores it.
    """

    def __init__(self, root: Path, *, split: str = "train") -> None:
        folder = first_existing(root / split, root)
        names = [name for name in listed_names(folder) if _NAME.fullmatch(name)]
        if not names:
            raise SequenceError(
                f"nothing to read in {folder}: it holds no GOT-10k_{split.capitalize()}_000001 and "
                "so on, so it is not GOT-10k (other folders of sequences: `folder` to evaluate, "
                "kind `sequences` to train)"
            )
        super().__init__(f"got10k {split}", folder, names)
        self._withheld = split == "test"

    def read(self, name: str) -> Sequence:
        """Read a sequence; a cover of 0, or without covers an absence flag, hides the target."""
        folder = self.root / name
        frames = find_frames(folder)
        cover, meta = folder / "cover.label", read_properties(folder / "meta_info.ini")
        sequence = load_sequence(
            name,
            frames,
            folder / "groundtruth.txt",
            absent=() if cover.is_file() else (folder / "absence.label",),
            attributes=frozenset({meta["major_class"]} if "major_class" in meta else ()),
            first=1,
            size=_size(meta, frames[0]),
            withheld=self._withheld,
        )
        if not cover.is_file():
            return sequence
        visible, notes = read_flags(cover, frames, 1)
        sequence.boxes[~visible] = float("nan")
        return replace(sequence, notes=sequence.notes + notes)


def _size(meta: dict[str, str], first: Path) -> tuple[int, int] | None:
    """The images' (width, height), which the protocol clips boxes to."""
    size = re.findall(r"\d+", meta.get("resolution", ""))
    if len(size) == 2:
        return int(size[0]), int(size[1])
    return image_size(first.read_bytes())
