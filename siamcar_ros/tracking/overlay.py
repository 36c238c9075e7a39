"""The overlay: a frame with the targets drawn on it."""

from __future__ import annotations

import cv2
import numpy as np

from siamcar_ros.geometry import Box, Image
from siamcar_ros.tracking.interface import TrackResult, TrackState

Color = tuple[int, int, int]
Rectangle = tuple[int, int, int, int]

COLORS: dict[TrackState, Color] = {
    TrackState.TRACKING: (80, 220, 60),
    TrackState.UNCERTAIN: (0, 190, 255),
    TrackState.LOST: (60, 60, 235),
}
"""Blue, green and red of a target's box and label, by its state."""

WHITE, _SHADOW = (255, 255, 255), (20, 20, 20)
_LONGEST_ID = 24
_FONT = cv2.FONT_HERSHEY_SIMPLEX
# The frame around a target smaller than _SMALL keeps _DISTANCE from it; pixels of the overlay.
_SMALL, _DISTANCE = 32, 4


def draw_overlay(
    image: Image,
    results: dict[str, TrackResult],
    *,
    scale: float = 1.0,
    caption: str = "",
    truth: Box | None = None,
) -> Image:
    """Draw each target's box, id, score and state on a scaled copy of an image.

    The color of the box shows the state (`COLORS`). Boxes and labels are drawn around the targets
    instead of over them, so that small ones stay visible.

    Args:
        image: (H, W, 3) uint8 BGR, any strides; not changed.
        results: by target id. Long ids are cut.
        scale: of the overlay relative to the image, at most 1.
        caption: one line for the lower left corner.
        truth: the true box (x, y, w, h) in image pixels, drawn as a thin white line.

    Returns:
        (round(scale H), round(scale W), 3) uint8 BGR, contiguous.
    """
    height, width = image.shape[:2]
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if size == (width, height):
        canvas = np.array(image, order="C")
    else:
        resized = cv2.resize(np.ascontiguousarray(image), size, interpolation=cv2.INTER_AREA)
        canvas = np.asarray(resized, np.uint8)
    thickness = max(1, round(min(size) / 240))
    if truth is not None:
        _draw_frame(canvas, _frame(truth, scale, size, 1), WHITE, 1)
    frames = {
        target: _frame(result.box, scale, size, thickness) for target, result in results.items()
    }
    for target, result in results.items():
        _draw_frame(canvas, frames[target], COLORS[result.state], thickness)
    taken = list(frames.values())
    for target, result in results.items():
        text = label(target, result)
        taken.append(_draw_label(canvas, text, frames[target], COLORS[result.state], taken))
    _, text_height = _text_size(canvas, caption)
    write_text(canvas, caption, (0, size[1] - text_height - 4 * thickness))
    return canvas


def label(target: str, result: TrackResult) -> str:
    """The text beside a target's box: id, score if the tracker has one, state unless TRACKING."""
    name = target if len(target) <= _LONGEST_ID else f"{target[: _LONGEST_ID - 2]}.."
    score = "" if np.isnan(result.score) else f"{result.score:.2f}"
    state = "" if result.state is TrackState.TRACKING else result.state.value
    return " ".join(filter(None, (name, score, state)))


def _frame(box: Box, scale: float, size: tuple[int, int], thickness: int) -> Rectangle:
    """Center lines of a frame around a box: x, y, w, h in pixels of the overlay."""
    limit = 4 * max(size)  # OpenCV counts in fixed point
    x, y, w, h = (float(np.clip(scale * value, -limit, limit)) for value in box)
    gap = (thickness + 5) // 2 + (_DISTANCE if min(w, h) < _SMALL else 0)
    return round(x) - gap, round(y) - gap, round(w) + 2 * gap - 1, round(h) + 2 * gap - 1


def _draw_frame(canvas: Image, frame: Rectangle, color: Color, thickness: int) -> None:
    x, y, w, h = frame
    for tint, width in ((_SHADOW, thickness + 2), (color, thickness)):
        cv2.rectangle(canvas, (x, y), (x + w, y + h), tint, width)


def _draw_label(
    canvas: Image, text: str, frame: Rectangle, color: Color, taken: list[Rectangle]
) -> Rectangle:
    """Write beside a frame, if possible without covering a taken rectangle; return the text's."""
    x, y, w, h = frame
    width, height = _text_size(canvas, text)
    rows, columns = canvas.shape[:2]
    left = max(0, min(x, columns - width))
    top = max(0, min(y, rows - height))
    places = [
        (left, y - height, width, height),
        (left, y + h, width, height),
        (x + w, top, width, height),
        (x - width, top, width, height),
    ]
    inside = [p for p in places if 0 <= p[0] <= columns - width and 0 <= p[1] <= rows - height]
    free = [p for p in inside if not any(_overlap(p, other) for other in taken)]
    place = (free or inside or [(left, top, width, height)])[0]
    write_text(canvas, text, place[:2], color)
    return place


def _overlap(a: Rectangle, b: Rectangle) -> bool:
    return a[0] < b[0] + b[2] and b[0] < a[0] + a[2] and a[1] < b[1] + b[3] and b[1] < a[1] + a[3]


def _font(canvas: Image) -> tuple[float, int]:
    """Scale and weight of the text."""
    scale = max(0.4, min(canvas.shape[:2]) / 900)
    return scale, max(1, round(2 * scale))


def _text_size(canvas: Image, text: str) -> tuple[int, int]:
    """Width and height of a line of text with a margin, in pixels."""
    scale, weight = _font(canvas)
    (width, height), baseline = cv2.getTextSize(text, _FONT, scale, weight)
    return width + 2 * weight, height + baseline + 2 * weight


def write_text(canvas: Image, text: str, corner: tuple[int, int], color: Color = WHITE) -> None:
    """Write a line of text with a dark edge on `canvas`, its upper left corner at (x, y)."""
    scale, weight = _font(canvas)
    (_, height), _ = cv2.getTextSize(text, _FONT, scale, weight)
    x, y = corner[0] + weight, corner[1] + weight + height
    for at in ((x - 1, y - 1), (x + 1, y - 1), (x - 1, y + 1), (x + 1, y + 1)):
        cv2.putText(canvas, text, at, _FONT, scale, _SHADOW, weight, cv2.LINE_AA)
    cv2.putText(canvas, text, (x, y), _FONT, scale, color, weight, cv2.LINE_AA)
