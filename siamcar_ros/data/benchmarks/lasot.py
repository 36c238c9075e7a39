"""LaSOT as its owners ship it: `airplane/airplane-1/img/00000001.jpg`, beside it `groundtruth.txt`,
`full_occlusion.txt` and `out_of_view.txt`. Boxes count pixels from 1.

Protocol I evaluates all 1400 sequences, protocol II the 280 of the test split.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from siamcar_ros.data.annotations import fit_boxes, read_boxes, read_flags
from siamcar_ros.data.benchmarks.collection import Collection, collect, first_folder, table
from siamcar_ros.data.sequences import Sequence, find_frames


def read_lasot(root: Path, protocol: int) -> Collection:
    """Read LaSOT.

    Args:
        root: the folder of the classes' folders; a folder of all sequences serves as well.
        protocol: 1, all sequences; 2, the test split.

    Raises:
        SequenceError: no sequence can be read.
    """
    facts = table("lasot")
    numbers = facts["test"] if protocol == 2 else dict.fromkeys(facts["flags"], range(1, 21))
    names = [f"{group}-{number}" for group in sorted(numbers) for number in numbers[group]]
    return collect(names, lambda name: _read(root, name), root=root, attributes=facts["attributes"])


def _read(root: Path, name: str) -> Iterator[Sequence]:
    folder = first_folder(root / name.rpartition("-")[0] / name, root / name)
    frames = find_frames(folder)
    annotation = folder / "groundtruth.txt"
    boxes, annotated, notes = fit_boxes(read_boxes(annotation), len(frames), annotation)
    occluded, more = read_flags(folder / "full_occlusion.txt", len(frames))
    outside, yet_more = read_flags(folder / "out_of_view.txt", len(frames))
    boxes[occluded | outside] = np.nan
    yield Sequence(
        name=name,
        frames=frames,
        boxes=boxes,
        annotated=annotated,
        attributes=_attributes(name),
        origin=1,
        notes=notes + more + yet_more,
    )


def _attributes(name: str) -> frozenset[str]:
    facts = table("lasot")
    group, _, number = name.rpartition("-")
    flags = int(str(facts["flags"][group]).split()[int(number) - 1], 16)
    names = list(facts["attributes"])
    return frozenset(n for i, n in enumerate(names) if flags >> (len(names) - 1 - i) & 1)
