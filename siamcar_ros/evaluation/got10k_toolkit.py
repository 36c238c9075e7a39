"""Trackers in the form that the GOT-10k toolkit expects.

>>> from got10k.experiments import ExperimentGOT10k
>>> tracker = ToolkitTracker("SiamCAR", SiamCarTracker.from_config("compact"))
>>> ExperimentGOT10k("/data/GOT-10k", subset="val").run(tracker)
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from siamcar_ros.data import Sequence, SequenceError
from siamcar_ros.evaluation.one_pass import Tracker, run_sequence
from siamcar_ros.geometry import Image


class ToolkitTracker:
    """A tracker with the toolkit's interface: RGB images, arrays as boxes.

    `name` is that of its result folder; `tracker` has `init(image_bgr, box)` and
    `update(image_bgr).box`.
    """

    is_deterministic = True

    def __init__(self, name: str, tracker: Tracker) -> None:
        self.name = name
        self._tracker = tracker

    def init(self, image: Any, box: ArrayLike) -> None:
        """Start on `box` (x, y, w, h), 0-based, of a PIL image or an RGB or gray array."""
        x, y, w, h = np.asarray(box, np.float64).tolist()
        self._tracker.init(_bgr(image), (x, y, w, h))

    def update(self, image: Any) -> NDArray[np.float64]:
        """Find the target in the next image; (4,) x, y, w, h."""
        return np.asarray(self._tracker.update(_bgr(image)).box, np.float64)

    def track(
        self, img_files: Iterable[str | Path], box: ArrayLike, visualize: bool = False
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Track through N image files, from `box` (x, y, w, h) on the first; nothing is shown.

        Returns:
            (N, 4) boxes, the first as given, and (N,) seconds, reading not included.

        Raises:
            SequenceError: after the last image, if one is missing or does not decode.
        """
        frames = tuple(map(Path, img_files))
        boxes = np.full((len(frames), 4), np.nan)
        boxes[0] = np.asarray(box, np.float64)
        run = run_sequence(self._tracker, Sequence(self.name, frames, boxes))
        unread = np.flatnonzero(np.isnan(run.times))
        if len(unread):
            raise SequenceError(f"{frames[unread[0]]} is missing or does not decode")
        return run.boxes, run.times


def _bgr(image: Any) -> Image:
    """A PIL image of any mode, or an RGB or gray array, as a tracker takes it."""
    if hasattr(image, "convert"):
        image = image.convert("RGB")
    array = np.asarray(image, np.uint8)
    if array.ndim == 2:
        return np.repeat(array[..., None], 3, axis=2)
    return np.ascontiguousarray(array[..., ::-1])
