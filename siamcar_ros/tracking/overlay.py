"""The overlay image: the frame with the targets drawn on it."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from siamcar_ros.tracking.interface import Image, TrackResult, TrackState

# Blue, green, red.
COLOURS: dict[TrackState, tuple[int, int, int]] = {
    TrackState.TRACKING: (80, 220, 60),
    TrackState.UNCERTAIN: (0, 190, 255),
    TrackState.LOST: (60, 60, 235),
}
_SHADOW = (20, 20, 20)


def draw_overlay(
    image: Image, results: dict[str, TrackResult], *, scale: float, caption: str
) -> NDArray[np.uint8]:
    """A copy of `image`, scaled, with each target's box, id, score and state.

    Args:
        image: (H, W, 3) uint8 BGR, any strides; left as it is.
        results: by track.
        scale: of the result, at most 1.
        caption: one line for the lower left corner.

    Returns:
        (round(scale H), round(scale W), 3) uint8 BGR, contiguous.
    """
    height, width = image.shape[:2]
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if size == (width, height):
        canvas = np.array(image, order="C")
    else:
        canvas = cv2.resize(np.ascontiguousarray(image), size, interpolation=cv2.INTER_AREA)
    thickness = max(1, round(min(size) / 240))
    for target, result in results.items():
        x, y, w, h = (scale * side for side in result.box)
        corner, opposite = (round(x), round(y)), (round(x + w), round(y + h))
        colour = COLOURS[result.state]
        cv2.rectangle(canvas, corner, opposite, _SHADOW, thickness + 2, cv2.LINE_AA)
        cv2.rectangle(canvas, corner, opposite, colour, thickness, cv2.LINE_AA)
        label = f"{target} {result.score:.2f}"
        if result.state is not TrackState.TRACKING:
            label += f" {result.state.value}"
        _write(canvas, label, (corner[0], corner[1] - 3 * thickness), colour)
    _write(canvas, caption, (4 * thickness, size[1] - 4 * thickness), (255, 255, 255))
    return np.asarray(canvas, np.uint8)


def _write(
    canvas: NDArray[np.uint8], text: str, at: tuple[int, int], colour: tuple[int, int, int]
) -> None:
    """Text whose lower left corner is `at`, moved so that it lies inside the canvas."""
    size = max(0.4, min(canvas.shape[:2]) / 900)
    weight = max(1, round(2 * size))
    (w, h), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, weight)
    x = max(0, min(at[0], canvas.shape[1] - w))
    y = max(h, min(at[1], canvas.shape[0] - 1))
    for tint, extra in ((_SHADOW, 2), (colour, 0)):
        cv2.putText(
            canvas, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size, tint, weight + extra, cv2.LINE_AA
        )
