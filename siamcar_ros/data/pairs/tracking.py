"""The training sets of tracking benchmarks, and any folder of sequences.

Only lists of folders are read at the start; a sequence's boxes are read when it is first drawn.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from siamcar_ros.resources import resource_path

from .source import DataError, DataFault, Track, VideoSource, corners, existing, read_rows

_CACHED = 4096


class TrackedVideos(VideoSource):
    """Videos with one target each, their annotations kept once they have been read."""

    def __init__(self, name: str, max_gap: int, folders: list[str], origin: int = 0) -> None:
        super().__init__(name, max_gap)
        self._folders = folders
        self._origin = origin
        self._tracks: dict[int, Track] = {}

    def __len__(self) -> int:
        return len(self._folders)

    def items(self) -> Iterable[str]:
        """The sequences' folders."""
        return self._folders

    def track(self, index: int, rng: np.random.Generator) -> Track:
        """The index-th video's target."""
        if index not in self._tracks:
            if len(self._tracks) >= _CACHED:
                self._tracks.clear()
            self._tracks[index] = self._read(self._folders[index])
        return self._tracks[index]

    @abstractmethod
    def _read(self, folder: str) -> Track:
        """Read a sequence's annotation."""

    def _visible(
        self,
        folder: Path,
        names: tuple[str, ...] | str,
        boxes: NDArray[np.float64],
        hidden: NDArray[np.bool_],
        first: int,
    ) -> Track:
        """The track of the frames, numbered from ``first``, that show the target."""
        shown = ~hidden & np.isfinite(boxes).all(1) & (boxes[:, 2:] > 0).all(1)
        kept = np.flatnonzero(shown)
        if not isinstance(names, str):
            names = tuple(names[i] for i in kept)
        offset = np.array([self._origin, self._origin, 0, 0])
        return Track(folder, names, kept + first, corners(boxes[kept] - offset))


class Got10k(TrackedVideos):
    """GOT-10k: ``SPLIT/list.txt`` and ``SPLIT/NAME/{00000001.jpg,groundtruth.txt,absence.label}``.

    Args:
        root: holds the split's folder.
        split: "train" or "val"; the test set's boxes are not published.
        max_gap: the most frames between the two of a pair.

    Raises:
        DataError: the files are not there.
    """

    def __init__(self, root: Path, *, split: str = "train", max_gap: int = 50) -> None:
        self._base = existing(root, split)
        listing = self._base / "list.txt"
        names = listing.read_text().split() if listing.is_file() else _annotated(self._base)
        if not names:
            raise DataError(f"{self._base} holds neither list.txt nor a folder of a sequence")
        super().__init__(f"got10k {split}", max_gap, names)

    def _read(self, folder: str) -> Track:
        place = self._base / folder
        boxes = read_rows(place / "groundtruth.txt", 4)
        hidden = _flags(place / "absence.label", len(boxes))
        return self._visible(place, "{:08d}.jpg", boxes, hidden, 1)


class LaSOT(TrackedVideos):
    """LaSOT: ``CLASS/CLASS-N/{img/00000001.jpg,groundtruth.txt,out_of_view.txt,…}``.

    The training sequences are those of the owners' protocol II: the 70 classes' sequences without
    the four of each that ``config/benchmarks/lasot.yaml`` lists for testing. Other classes (the
    extension's) are for testing, too, and left out.

    Args:
        root: holds the classes' folders, directly or under ``LaSOTBenchmark``.
        max_gap: the most frames between the two of a pair.

    Raises:
        DataError: no training sequence is there.
    """

    def __init__(self, root: Path, *, max_gap: int = 100) -> None:
        nested = root / "LaSOTBenchmark"
        self._base = nested if nested.is_dir() else root
        split = yaml.safe_load(resource_path("config/benchmarks/lasot.yaml").read_text())["test"]
        names = [
            f"{one}/{name}"
            for one, test in split.items()
            if (self._base / one).is_dir()
            for name in _annotated(self._base / one)
            if name not in {f"{one}-{number}" for number in test}
        ]
        if not names:
            raise DataError(f"no training sequence of LaSOT below {self._base}")
        super().__init__("lasot", max_gap, names, origin=1)

    def _read(self, folder: str) -> Track:
        place = self._base / folder
        boxes = read_rows(place / "groundtruth.txt", 4)
        hidden = _flags(place / "out_of_view.txt", len(boxes))
        hidden |= _flags(place / "full_occlusion.txt", len(boxes))
        return self._visible(place / "img", "{:08d}.jpg", boxes, hidden, 1)


class TrackingNet(TrackedVideos):
    """TrackingNet: ``TRAIN_K/anno/NAME.txt`` and ``TRAIN_K/frames/NAME/0.jpg``, K from 0 to 11.

    Args:
        root: holds the chunks' folders.
        chunks: which of them; all that are there by default.
        max_gap: the most frames between the two of a pair.

    Raises:
        DataError: the files are not there.
    """

    def __init__(
        self, root: Path, *, chunks: tuple[int, ...] | None = None, max_gap: int = 30
    ) -> None:
        self._base = root
        if chunks is None:
            places = sorted(root.glob("TRAIN_*/anno"))
        else:
            places = [existing(root, f"TRAIN_{chunk}/anno") for chunk in chunks]
        names = [
            f"{place.parent.name}/{path.stem}"
            for place in places
            for path in sorted(place.glob("*.txt"))
        ]
        if not names:
            raise DataError(f"no TRAIN_K/anno/*.txt below {root}")
        super().__init__("trackingnet", max_gap, names)

    def _read(self, folder: str) -> Track:
        chunk, name = folder.split("/")
        boxes = read_rows(self._base / chunk / "anno" / f"{name}.txt", 4)
        frames = self._base / chunk / "frames" / name
        return self._visible(frames, "{:d}.jpg", boxes, np.zeros(len(boxes), bool), 0)


class SequenceFolder(TrackedVideos):
    """A folder of sequences, each a folder of images with its ``groundtruth.txt`` (x, y, w, h).

    Args:
        root: holds the sequences.
        max_gap: the most frames between the two of a pair.

    Raises:
        DataError: no sequence is there.
    """

    def __init__(self, root: Path, *, max_gap: int = 50) -> None:
        self._base = root
        names = [folder.name for folder in _folders(root)] if root.is_dir() else []
        if not names:
            raise DataError(f"no folder of a sequence in {root}")
        super().__init__("sequences", max_gap, names)

    def _read(self, folder: str) -> Track:
        from siamcar_ros.data import SequenceError, read_annotated

        try:
            frames, boxes, *_ = read_annotated(self._base / folder)
        except (SequenceError, OSError) as error:
            raise DataFault(self._base / folder, str(error)) from None
        names = tuple(path.name for path in frames)
        return self._visible(frames[0].parent, names, boxes, np.zeros(len(names), bool), 0)


def _flags(path: Path, count: int) -> NDArray[np.bool_]:
    """(count,) flags of a file, all False where there is none."""
    if not path.is_file():
        return np.zeros(count, bool)
    flags = read_rows(path, 1)[:, 0] > 0
    if len(flags) != count:
        raise DataFault(path, f"{len(flags)} flags for {count} boxes")
    return flags


def _folders(root: Path) -> list[Path]:
    with os.scandir(root) as entries:
        return sorted(Path(entry.path) for entry in entries if entry.is_dir())


def _annotated(root: Path) -> list[str]:
    """The names of the folders in root that hold a groundtruth.txt."""
    return [place.name for place in _folders(root) if (place / "groundtruth.txt").is_file()]
