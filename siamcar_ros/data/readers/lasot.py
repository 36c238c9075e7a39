"""LaSOT: `airplane/airplane-1/img/00000001.jpg`, beside it `groundtruth.txt`,
`full_occlusion.txt` and `out_of_view.txt`. Boxes count pixels from 1.
"""

from __future__ import annotations

from pathlib import Path

from siamcar_ros.data.annotations import SequenceError
from siamcar_ros.data.registry import register_dataset
from siamcar_ros.data.sequence_sets import SequenceSet, benchmark_facts, first_existing
from siamcar_ros.data.sequences import Sequence, find_frames, load_sequence


@register_dataset("lasot")
class LaSOT(SequenceSet):
    """LaSOT's 70 classes of 20 sequences; its later extension is for testing and left out.

    `root` holds the classes' folders, directly or under `LaSOTBenchmark`, or all sequences. "train"
    and "test" are those of protocol II (1120 and 280 sequences), "all" is protocol I. Of "train",
    the sequences that are there are read, of the others all.
    """

    attributes = benchmark_facts("lasot")["attributes"]
    max_gap = 100

    def __init__(self, root: Path, *, split: str = "train") -> None:
        nested = root / "LaSOTBenchmark"
        root = nested if nested.is_dir() else root
        test = benchmark_facts("lasot")["test"]
        numbers = {
            "train": {one: sorted({*range(1, 21)} - {*some}) for one, some in test.items()},
            "test": test,
            "all": dict.fromkeys(test, range(1, 21)),
        }
        if split not in numbers:
            raise SequenceError(f"LaSOT has no split {split!r}; there are train, test and all")
        names = [f"{one}-{n}" for one in sorted(test) for n in numbers[split][one]]
        if split == "train":
            names = [n for n in names if any(place.is_dir() for place in _places(root, n))]
            if not names:
                raise SequenceError(f"no training sequence of LaSOT in {root}")
        super().__init__(f"lasot {split}", root, names)

    def read(self, name: str) -> Sequence:
        """Read a sequence; full occlusion and being out of view hide the target."""
        folder = first_existing(*_places(self.root, name))
        return load_sequence(
            name,
            find_frames(folder),
            folder / "groundtruth.txt",
            absent=(folder / "full_occlusion.txt", folder / "out_of_view.txt"),
            first=1,
            attributes=_attributes(name),
            origin=1,
        )


def _places(root: Path, name: str) -> tuple[Path, Path]:
    return root / name.rpartition("-")[0] / name, root / name


def _attributes(name: str) -> frozenset[str]:
    facts = benchmark_facts("lasot")
    group, _, number = name.rpartition("-")
    flags = int(str(facts["flags"][group]).split()[int(number) - 1], 16)
    names = list(facts["attributes"])
    return frozenset(n for i, n in enumerate(names) if flags >> (len(names) - 1 - i) & 1)
