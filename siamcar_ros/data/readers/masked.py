"""Videos with masks: DAVIS 2017, and YouTube-VOS, which has the same layout.

``JPEGImages/…/VIDEO/NAME.jpg`` and ``Annotations/…/VIDEO/NAME.png``. Each color of an annotation is
an object, black is the background; palettes are read as colors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from siamcar_ros.data.frames import Frame, frame_from_mask
from siamcar_ros.data.pair_sources import (
    DataError,
    DataFault,
    MaxGap,
    VideoPairs,
    read_picture,
)
from siamcar_ros.data.registry import register_dataset
from siamcar_ros.data.sequence_sets import first_existing, subfolders
from siamcar_ros.data.sequences import natural_order
from siamcar_ros.geometry import Image

_MIN_PIXELS = 64


class MaskedVideoSet(VideoPairs):
    """Videos with a mask for each object."""

    def __init__(
        self, name: str, images: Path, annotations: Path, videos: list[str], max_gap: int
    ) -> None:
        if not videos:
            raise DataError(f"{name}: no video in {annotations}")
        super().__init__(name, videos, max_gap)
        self._images, self._annotations = first_existing(images), first_existing(annotations)
        self._listed: dict[int, list[str]] = {}

    def places(self, video: int) -> NDArray[np.int64]:
        """The annotated frames, counted."""
        if video not in self._listed:
            folder = self._annotations / self.names[video]
            self._listed[video] = [p.stem for p in sorted(folder.glob("*.png"), key=natural_order)]
        if not self._listed[video]:
            raise DataFault(self._annotations / self.names[video], "no masks")
        return np.arange(len(self._listed[video]))

    def targets(self, video: int, frame: int) -> dict[Any, Any]:
        """The colors of objects that are large enough, each with its pixels' colors."""
        path = self._annotations / self.names[video] / f"{self._listed[video][frame]}.png"
        image = read_picture(path)[0].astype(np.int32)
        colors = image @ np.array([1, 256, 65536], np.int32)
        found, counts = np.unique(colors, return_counts=True)
        found = found[(found != 0) & (counts >= _MIN_PIXELS)]
        return {color: (colors, color) for color in found.tolist()}

    def view(self, video: int, frame: int, target: Any) -> Frame:
        """An object in a frame."""
        path = self._images / self.names[video] / f"{self._listed[video][frame]}.jpg"
        mask: Image = np.where(target[0] == target[1], 255, 0).astype(np.uint8)
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
    """DAVIS 2017, which contains DAVIS 2016: ``JPEGImages``, ``Annotations``, ``ImageSets/2017``.

    Read at 480p. `split` is "train" or "val"; `max_gap` counts annotated frames.
    """

    def __init__(self, root: Path, *, split: str = "train", max_gap: MaxGap = 30) -> None:
        videos = (root / f"ImageSets/2017/{split}.txt").read_text().split()
        images, annotations = root / "JPEGImages/480p", root / "Annotations/480p"
        super().__init__(f"davis2017 {split}", images, annotations, videos, max_gap)


@register_dataset("youtube_vos")
class YouTubeVos(MaskedVideoSet):
    """YouTube-VOS: ``train/JPEGImages`` and ``train/Annotations``, every fifth frame with masks."""

    def __init__(self, root: Path, *, max_gap: MaxGap = 6) -> None:
        images, annotations = root / "train/JPEGImages", root / "train/Annotations"
        videos = subfolders(annotations)
        super().__init__("youtube_vos train", images, annotations, videos, max_gap)
