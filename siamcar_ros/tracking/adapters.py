"""The tracker in the form that the GOT-10k toolkit asks for. The toolkit is not needed here.

::

    from got10k.experiments import ExperimentGOT10k
    from siamcar_ros.tracking.adapters import Got10kTracker

    ExperimentGOT10k("data/GOT-10k", subset="val").run(Got10kTracker("compact"))
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from siamcar_ros.tracking.interface import Image
from siamcar_ros.tracking.tracker import SiamCarTracker


class Got10kTracker:
    """A tracker by the toolkit's contract: `init` and `update` on RGB images, `track` on files.

    Args:
        tracker: what tracks, or the configuration to build it from.
        name: the folder of its results.
    """

    is_deterministic = True

    def __init__(
        self, tracker: SiamCarTracker | str | Path = "compact", name: str = "SiamCAR"
    ) -> None:
        if not isinstance(tracker, SiamCarTracker):
            tracker = SiamCarTracker.from_config(tracker)
        self.name = name
        self._tracker = tracker

    def init(self, image: Any, box: ArrayLike) -> None:
        """Start on a target.

        Args:
            image: a PIL image, or an RGB array (H, W, 3) uint8.
            box: (x, y, w, h), 0-based.

        Raises:
            TargetError: the image or the box is not one to track.
        """
        self._tracker.init(_bgr(image), np.asarray(box, np.float64))

    def update(self, image: Any) -> NDArray[np.float64]:
        """The target's (x, y, w, h) in the next frame, given as in :meth:`init`."""
        return np.array(self._tracker.update(_bgr(image)).box)

    def track(
        self, img_files: Sequence[str | Path], box: ArrayLike, visualize: bool = False
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Follow a target through image files.

        Args:
            img_files: the frames in order, N of them.
            box: (x, y, w, h) on the first one.
            visualize: show each frame in a window.

        Returns:
            (N, 4) boxes, the first as given, and (N,) seconds, reading not included.

        Raises:
            FileNotFoundError: an image is missing or does not decode.
            TargetError: the box is not one to track.
        """
        boxes, times = np.zeros((len(img_files), 4)), np.zeros(len(img_files))
        boxes[0] = np.asarray(box, np.float64)
        for i, file in enumerate(img_files):
            image: Any = cv2.imread(str(file), cv2.IMREAD_COLOR)
            if image is None:
                raise FileNotFoundError(f"cannot read the image {file}")
            begin = time.perf_counter()
            if i == 0:
                self._tracker.init(image, boxes[0])
            else:
                boxes[i] = self._tracker.update(image).box
            times[i] = time.perf_counter() - begin
            if visualize:
                x, y, w, h = np.rint(boxes[i]).astype(int).tolist()
                cv2.rectangle(image, (x, y), (x + w, y + h), (0, 255, 0), 2)
                cv2.imshow(self.name, image)
                cv2.waitKey(1)
        return boxes, times


def _bgr(image: Any) -> Image:
    """A PIL image of any mode, or an RGB or grey array, as what a tracker takes."""
    if hasattr(image, "convert"):
        image = image.convert("RGB")
    array = np.asarray(image)
    return array if array.ndim == 2 else array[..., ::-1]
