"""TrackingNet: `TRAIN_0/frames/NAME/0.jpg` and `TRAIN_0/anno/NAME.txt`, chunks 0 to 11 and
`TEST`.
"""

from __future__ import annotations

from pathlib import Path

from siamcar_ros.data.annotations import SequenceError
from siamcar_ros.data.registry import register_dataset
from siamcar_ros.data.sequence_sets import SequenceSet
from siamcar_ros.data.sequences import Sequence, find_frames, load_sequence


@register_dataset("trackingnet")
class TrackingNet(SequenceSet):
    """TrackingNet's "train", all or some `chunks`, or "test"; `root` holds the chunks or is one.

    The test split has the first box only, the owners' server scores it.
    """

    max_gap = 30

    def __init__(
        self, root: Path, *, split: str = "train", chunks: tuple[int, ...] | None = None
    ) -> None:
        if split == "test":
            folders = ["TEST"]
        elif chunks is not None:
            folders = [f"TRAIN_{chunk}" for chunk in chunks]
        else:
            folders = sorted(place.name for place in root.glob("TRAIN_*"))
        if (root / "anno").is_dir():
            folders = ["."]
        paths = [path for one in folders for path in sorted(root.glob(f"{one}/anno/*.txt"))]
        if not paths:
            wanted = ", ".join(f"{one}/anno/*.txt" for one in folders or ["TRAIN_K"])
            raise SequenceError(f"nothing to read in {root}: no {wanted}")
        names = [path.relative_to(root).as_posix().removesuffix(".txt") for path in paths]
        super().__init__(f"trackingnet {split}", root, names)
        self._withheld = split == "test"

    def read(self, name: str) -> Sequence:
        """Read a sequence, `CHUNK/anno/NAME`."""
        annotation = self.root / f"{name}.txt"
        frames = find_frames(annotation.parent.parent / "frames" / annotation.stem)
        return load_sequence(annotation.stem, frames, annotation, first=0, withheld=self._withheld)
