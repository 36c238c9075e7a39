"""Videos with masks: DAVIS 2016 and 2017, and YouTube-VOS, which has the same layout.

``JPEGImages/…/VIDEO/NAME.jpg`` and ``Annotations/…/VIDEO/NAME.png``. Each color of an annotation is
an object, black is the background; palettes are read as colors.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from siamcar_ros.data.frames import Frame, frame_from_mask
from siamcar_ros.data.pair_sources import (
    DataError,
    DataFault,
    MaxGap,
    PairSet,
    existing,
    read_picture,
)
from siamcar_ros.data.registry import register_dataset
from siamcar_ros.data.sequences import natural_order
from siamcar_ros.geometry import Image

_MIN_PIXELS = 64
_TRIES = 4


class MaskedVideoSet(PairSet):
    """Videos with a mask for each object; the two frames of a pair show the same object."""

    def __init__(
        self, name: str, images: Path, annotations: Path, videos: list[str], max_gap: int
    ) -> None:
        super().__init__(name)
        if not videos:
            raise DataError(f"{name}: no video in {annotations}")
        self.max_gap = max_gap
        self._images, self._annotations, self._videos = images, annotations, videos
        self._listed: dict[str, tuple[str, ...]] = {}

    def __len__(self) -> int:
        return len(self._videos)

    def items(self) -> Iterable[str]:
        """The names of the videos."""
        return self._videos

    def draw(self, rng: np.random.Generator) -> tuple[Frame, Frame] | None:
        """Two frames of a random video that show one of its objects."""
        video = self._videos[int(rng.integers(len(self)))]
        frames = self._frames(video)
        if not frames:
            raise DataFault(self._annotations / video, "no masks")
        first = int(rng.integers(len(frames)))
        colors = self._colors(video, frames[first])
        objects = _objects(colors)
        if not len(objects):
            return None
        target = int(objects[int(rng.integers(len(objects)))])
        one = self._frame(video, frames[first], colors == target)
        low, high = max(0, first - self.max_gap), min(len(frames), first + self.max_gap + 1)
        for _ in range(_TRIES):
            second = int(rng.integers(low, high))
            if second == first:
                break
            colors = self._colors(video, frames[second])
            if target in _objects(colors):
                return one, self._frame(video, frames[second], colors == target)
        return one, one

    def _frames(self, video: str) -> tuple[str, ...]:
        if video not in self._listed:
            folder = self._annotations / video
            paths = sorted(folder.glob("*.png"), key=natural_order)
            self._listed[video] = tuple(path.stem for path in paths)
        return self._listed[video]

    def _colors(self, video: str, frame: str) -> NDArray[np.int32]:
        path = self._annotations / video / f"{frame}.png"
        image = read_picture(path)[0].astype(np.int32)
        return np.asarray(image @ np.array([1, 256, 65536], np.int32), np.int32)

    def _frame(self, video: str, frame: str, pixels: NDArray[np.bool_]) -> Frame:
        path = self._images / video / f"{frame}.jpg"
        mask: Image = np.where(pixels, 255, 0).astype(np.uint8)
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)
        image, divisor = read_picture(path, box)
        height, width = image.shape[:2]
        if max(abs(height * divisor - len(mask)), abs(width * divisor - mask.shape[1])) >= divisor:
            raise DataFault(path, f"{width}x{height} pixels, its mask {mask.shape[::-1]}")
        if divisor > 1:
            shrunk = cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA)
            mask = np.where(shrunk > 127, 255, 0).astype(np.uint8)
        if not mask.any():
            raise DataFault(path, "its mask vanishes when it is reduced")
        return frame_from_mask(image, mask, str(path.parent))


@register_dataset("davis")
class Davis(MaskedVideoSet):
    """DAVIS; ``ImageSets/{480p,2016,2017}/SPLIT.txt`` lists the videos of a split.

    Args:
        root: holds ``JPEGImages``, ``Annotations`` and ``ImageSets``.
        split: "train" or "val".
        year: 2016 (one object a video) or 2017 (several).
        resolution: "480p", "1080p" or "Full-Resolution".
        max_gap: most annotated frames between the two of a pair.

    Raises:
        DataError: files are missing.
    """

    def __init__(
        self,
        root: Path,
        *,
        split: str = "train",
        year: int = 2017,
        resolution: str = "480p",
        max_gap: MaxGap = 30,
    ) -> None:
        lists = [f"ImageSets/{year}/{split}.txt"]
        if year == 2016:
            lists.append(f"ImageSets/{resolution}/{split}.txt")
        lines = existing(root, *lists).read_text().splitlines()
        videos = dict.fromkeys(_video(line) for line in lines if line.strip())
        super().__init__(
            f"davis{year} {split}",
            existing(root, f"JPEGImages/{resolution}"),
            existing(root, f"Annotations/{resolution}"),
            list(videos),
            max_gap,
        )


@register_dataset("youtube_vos")
class YouTubeVos(MaskedVideoSet):
    """YouTube-VOS: ``SPLIT/JPEGImages`` and ``SPLIT/Annotations``, every fifth frame with masks.

    Args:
        root: holds the split's folder.
        split: "train".
        max_gap: most annotated frames between the two of a pair.

    Raises:
        DataError: files are missing.
    """

    def __init__(self, root: Path, *, split: str = "train", max_gap: MaxGap = 6) -> None:
        annotations = existing(root, f"{split}/Annotations")
        images = existing(root, f"{split}/JPEGImages")
        videos = sorted(p.name for p in annotations.iterdir() if p.is_dir())
        super().__init__(f"youtube_vos {split}", images, annotations, videos, max_gap)


def _video(line: str) -> str:
    """The video of a list's line: its name, or the path of a frame and that of its mask."""
    first = line.split()[0]
    return Path(first).parent.name if first.endswith(".jpg") else first


def _objects(colors: NDArray[np.int32]) -> NDArray[np.int32]:
    """The colors of objects that are large enough; black is none."""
    found, counts = np.unique(colors, return_counts=True)
    return found[(found != 0) & (counts >= _MIN_PIXELS)]
