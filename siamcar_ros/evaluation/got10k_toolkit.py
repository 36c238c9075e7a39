"""An adapter that offers our trackers to the GOT-10k toolkit (the `got10k` package):

from got10k.experiments import ExperimentGOT10k
tracker = ToolkitTracker("SiamCAR", SiamCarTracker.from_config("compact"))
ExperimentGOT10k("/data/GOT-10k", subset="val").run(tracker)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from got10k.trackers import Tracker as _ToolkitTracker
from numpy.typing import ArrayLike, NDArray

from siamcar_ros.evaluation.one_pass import Image, Tracker


class ToolkitTracker(_ToolkitTracker):  # type: ignore[misc]
    """A tracker of this project behind the toolkit's contract: RGB images, arrays as boxes.

    Args:
        name: the name of its result folder.
        tracker: any object with `init(image_bgr, box)` and `update(image_bgr).box`.
    """

    def __init__(self, name: str, tracker: Tracker) -> None:
        super().__init__(name, is_deterministic=True)
        self._tracker = tracker

    def init(self, image: Any, box: ArrayLike) -> None:
        """Start on `box` (x, y, w, h) of a PIL image."""
        x, y, w, h = np.asarray(box, np.float64).tolist()
        self._tracker.init(_bgr(image), (x, y, w, h))

    def update(self, image: Any) -> NDArray[np.float64]:
        """Find the target in the next PIL image; (4,) x, y, w, h."""
        return np.asarray(self._tracker.update(_bgr(image)).box, np.float64)


def _bgr(image: Any) -> Image:
    return np.ascontiguousarray(np.asarray(image, np.uint8)[:, :, ::-1])
