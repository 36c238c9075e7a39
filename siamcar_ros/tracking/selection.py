"""Choosing a target on an image: by drawing a box in a window or, without a screen, from a grid."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from siamcar_ros.geometry import Box, Image
from siamcar_ros.tracking.overlay import write_text

# Width and height in pixels to which larger images are scaled down for the window.
_SCREEN = (1280, 720)
# Approximate number of grid lines across the longer side, and that side's minimum length in pixels.
_LINES, _GRID = 16, 960


class NoWindowError(ValueError):
    """No window can be shown here; the message says why."""


def call_window(show: Callable[..., Any], *arguments: Any) -> Any:
    """Call one of OpenCV's window functions."""
    if sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ):
        raise NoWindowError("no window can be shown here: there is no screen (DISPLAY is not set)")
    try:
        return show(*arguments)
    except cv2.error as error:
        why = "is there a screen?"
        if "not implemented" in str(error):
            pip, package = f"{shlex.quote(sys.executable)} -m pip", "opencv-contrib-python"
            why = (
                "this OpenCV is a headless build. For one with windows: "
                f"{pip} uninstall -y {package}-headless && {pip} install {package}"
            )
        raise NoWindowError(f"no window can be shown here: {why}") from error


def draw_box(image: Image) -> Box:
    """Let a person drag a box on an (H, W, 3) BGR image; return it in the image's pixels."""
    height, width = image.shape[:2]
    scale = min(1.0, _SCREEN[0] / width, _SCREEN[1] / height)
    shown = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    title = "drag a box around the target, then Enter or Space"
    x, y, w, h = call_window(cv2.selectROI, title, shown)
    call_window(cv2.destroyAllWindows)
    if w <= 0 or h <= 0:
        raise ValueError("no box was drawn")
    return x / scale, y / scale, w / scale, h / scale


def choose_box(image: Image, name: str, example: str) -> Box:
    """Let a person draw the target's box; without a window, write the image with a grid to a file.

    Args:
        image: (H, W, 3) uint8 BGR, the frame on which tracking starts.
        name: of the source; the grid goes to `NAME.grid.png` in the working folder.
        example: what to type next, with placeholders for the box.

    Raises:
        NoWindowError: no window can be shown here; the message says why, and what to type.
        ValueError: the window was closed without a box.
        OSError: the grid cannot be written.
    """
    try:
        return draw_box(image)
    except NoWindowError as error:
        path = Path("".join(c if c.isalnum() or c in "-_." else "_" for c in name) + ".grid.png")
        path.write_bytes(cv2.imencode(".png", grid(image))[1].tobytes())
        raise NoWindowError(
            f"which target? {error}. {path} is the first frame with its coordinates: read the box's"
            f" left edge, upper edge, width and height from it and type {example}"
        ) from error


def grid(image: Image) -> Image:
    """A copy of an (H, W, 3) BGR image with lines at round coordinates, enlarged if it is small."""
    height, width = image.shape[:2]
    scale = max(1, -(-_GRID // max(width, height)))
    canvas = np.repeat(np.repeat(image, scale, 0), scale, 1)
    steps = (digit * 10**power for power in range(5) for digit in (1, 2, 5))
    step = next(each for each in steps if each * _LINES >= max(width, height))
    for every, weight in ((max(1, step // 5), 0.15), (step, 0.5)):
        lines = canvas.copy()
        lines[:, :: every * scale] = lines[:: every * scale] = 255
        canvas = np.asarray(cv2.addWeighted(canvas, 1 - weight, lines, weight, 0), np.uint8)
    for x in range(0, width, step):
        write_text(canvas, str(x), (x * scale, 0))
    for y in range(step, height, step):
        write_text(canvas, str(y), (0, y * scale))
    return canvas
