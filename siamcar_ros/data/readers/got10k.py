"""GOT-10k: `val/GOT-10k_Val_000001/00000001.jpg`, `groundtruth.txt`, `cover.label`,
`absence.label`, `meta_info.ini`, and `val/list.txt`.
"""

from __future__ import annotations

import re
from pathlib import Path

from siamcar_ros.data.annotations import SequenceError, fit_boxes, read_boxes, read_flags
from siamcar_ros.data.images import image_size
from siamcar_ros.data.registry import register_dataset
from siamcar_ros.data.sequence_sets import SequenceSet, first_folder, subfolders
from siamcar_ros.data.sequences import Sequence, find_frames
from siamcar_ros.geometry import Boxes

_NAME = re.compile(r"GOT-10k_(Train|Val|Test)_\d{6}")


@register_dataset("got10k")
class Got10k(SequenceSet):
    """GOT-10k; the test split has the first box only, the owners' server scores it.

    Args:
        root: holds the split's folder, or is that folder.
        split: "train", "val" or "test".

    Raises:
        SequenceError: no folder there is called as GOT-10k's are.
        FileNotFoundError: there is no such folder.
    """

    def __init__(self, root: Path, *, split: str = "train") -> None:
        folder = first_folder(root / split, root)
        listing = folder / "list.txt"
        names = listing.read_text().split() if listing.is_file() else subfolders(folder)
        names = [name for name in names if _NAME.fullmatch(name)]
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
        frames, annotation = find_frames(folder), folder / "groundtruth.txt"
        boxes, annotated, notes = fit_boxes(read_boxes(annotation), frames, annotation)
        if self._withheld:
            return Sequence(name, frames, boxes, annotated=annotated, withheld=True)
        more = _hide_absent(boxes, folder)
        meta = _meta(folder / "meta_info.ini")
        return Sequence(
            name,
            frames,
            boxes,
            annotated=annotated,
            attributes=frozenset({meta["major_class"]} if "major_class" in meta else ()),
            size=_size(meta, frames[0]),
            notes=notes + more,
        )


def _hide_absent(boxes: Boxes, folder: Path) -> tuple[str, ...]:
    cover = folder / "cover.label"
    if cover.is_file():
        visible, notes = read_flags(cover, len(boxes))
        absent = ~visible
    else:
        absent, notes = read_flags(folder / "absence.label", len(boxes))
    boxes[absent] = float("nan")
    return notes


def _meta(path: Path) -> dict[str, str]:
    """The `key: value` lines of meta_info.ini; empty where there is no such file."""
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    pairs = (line.partition(":") for line in lines)
    return {key.strip(): value.strip() for key, colon, value in pairs if colon}


def _size(meta: dict[str, str], first: Path) -> tuple[int, int] | None:
    """The images' (width, height), which the protocol clips boxes to."""
    size = re.findall(r"\d+", meta.get("resolution", ""))
    if len(size) == 2:
        return int(size[0]), int(size[1])
    return image_size(first.read_bytes())
