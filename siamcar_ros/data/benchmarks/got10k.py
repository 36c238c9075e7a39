"""GOT-10k as its owners ship it: `val/GOT-10k_Val_000001/00000001.jpg`, `groundtruth.txt`,
`cover.label`, `absence.label`, `meta_info.ini`, and `val/list.txt`.

The test split holds the first box only; its results go to the owners' server.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from siamcar_ros.data.annotations import SequenceError, fit_boxes, read_boxes, read_flags
from siamcar_ros.data.benchmarks.collection import (
    Collection,
    collect,
    first_folder,
    subfolders,
)
from siamcar_ros.data.sequences import Sequence, find_frames


def read_got10k(root: Path, subset: str) -> Collection:
    """Read GOT-10k.

    Args:
        root: the folder that holds `val` and `test`, or the subset's own folder.
        subset: "train", "val" or "test".

    Raises:
        SequenceError: no sequence can be read.
        FileNotFoundError: there is no such folder.
    """
    folder = first_folder(root / subset, root)
    listing = folder / "list.txt"
    names = listing.read_text().split() if listing.is_file() else subfolders(folder)
    return collect(names, lambda name: _read(folder / name, subset == "test"), root=folder)


def _read(folder: Path, withheld: bool) -> Iterator[Sequence]:
    if not folder.is_dir():
        raise SequenceError(f"no folder {folder}")
    frames = find_frames(folder)
    annotation = folder / "groundtruth.txt"
    if not annotation.is_file():
        raise SequenceError(f"no annotation {annotation}")
    boxes, annotated, notes = fit_boxes(read_boxes(annotation), len(frames), annotation)
    sequence = Sequence(folder.name, frames, boxes, annotated=annotated, notes=notes)
    if withheld:
        yield replace(sequence, withheld=True, notes=())
        return
    absent, more = _absent(folder, len(frames))
    boxes[absent] = np.nan
    meta = _meta(folder / "meta_info.ini")
    size = re.findall(r"\d+", meta.get("resolution", ""))
    yield replace(
        sequence,
        attributes=frozenset({meta["major_class"]} if "major_class" in meta else ()),
        size=(int(size[0]), int(size[1])) if len(size) == 2 else None,
        notes=notes + more,
    )


def _absent(folder: Path, frames: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Frames whose target is not to be seen: a cover of 0, or flagged absent where cover lacks."""
    cover = folder / "cover.label"
    if cover.is_file():
        visible, notes = read_flags(cover, frames)
        return ~visible, notes
    return read_flags(folder / "absence.label", frames)


def _meta(path: Path) -> dict[str, str]:
    """The `key: value` lines of meta_info.ini; empty where there is no such file."""
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    pairs = (line.partition(":") for line in lines)
    return {key.strip(): value.strip() for key, colon, value in pairs if colon}
