"""The overlay image: the frame with the targets drawn on it."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from siamcar_ros.geometry import Box, Image
from siamcar_ros.tracking.interface import TrackResult, TrackState

# Blue, green, red.
COLORS: dict[TrackState, tuple[int, int, int]] = {
    TrackState.TRACKING: (80, 220, 60),
    TrackState.UNCERTAIN: (0, 190, 255),
    TrackState.LOST: (60, 60, 235),
}
_SHADOW, _WHITE = (20, 20, 20), (255, 255, 255)
_LONGEST_ID = 32


def draw_overlay(
    image: Image,
    results: dict[str, TrackResult],
    *,
    scale: float = 1.0,
    caption: str = "",
    truth: Box | None = None,
) -> NDArray[np.uint8]:
    """Return a scaled copy of `image` with each target's box, id, score and state.

    Args:
        image: (H, W, 3) uint8 BGR, any strides; it is not changed.
        results: by track; ids are cut after 32 characters.
        scale: of the result, at most 1.
        caption: one line for the lower left corner.
        truth: the true box, drawn in white.

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
    if truth is not None:
        cv2.rectangle(canvas, *_corners(truth, scale, size), _WHITE, 1, cv2.LINE_AA)
    for target, result in results.items():
        corner, opposite = _corners(result.box, scale, size)
        color = COLORS[result.state]
        cv2.rectangle(canvas, corner, opposite, _SHADOW, thickness + 2, cv2.LINE_AA)
        cv2.rectangle(canvas, corner, opposite, color, thickness, cv2.LINE_AA)
        name = target if len(target) <= _LONGEST_ID else f"{target[: _LONGEST_ID - 3]}..."
        label = f"{name} {result.score:.2f}"
        if result.state is not TrackState.TRACKING:
            label += f" {result.state.value}"
        _write(canvas, label, (corner[0], corner[1] - 3 * thickness), color)
    _write(canvas, caption, (4 * thickness, size[1] - 4 * thickness), _WHITE)
    return np.asarray(canvas, np.uint8)


def _corners(
    box: Box, scale: float, size: tuple[int, int]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return whole pixels of the top left and bottom right corner, within OpenCV's limits."""
    x, y, w, h = box
    far = 4 * max(size)
    x0, y0, x1, y1 = np.clip(scale * np.array((x, y, x + w, y + h)), -far, far).round().astype(int)
    return (int(x0), int(y0)), (int(x1), int(y1))


def _write(
    canvas: NDArray[np.uint8], text: str, at: tuple[int, int], color: tuple[int, int, int]
) -> None:
    """Write text with its lower left corner at `at`, moved so that it lies inside the canvas."""
    size = max(0.4, min(canvas.shape[:2]) / 900)
    weight = max(1, round(2 * size))
    (w, h), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, weight)
    x = max(0, min(at[0], canvas.shape[1] - w))
    y = max(h, min(at[1], canvas.shape[0] - 1))
    for tint, extra in ((_SHADOW, 2), (color, 0)):
        cv2.putText(
            canvas, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size, tint, weight + extra, cv2.LINE_AA
        )
