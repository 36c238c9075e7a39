"""An annotated image, of which training pairs are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from siamcar_ros.geometry import Image


@dataclass(frozen=True)
class Frame:
    """An image and the place of its target in it.

    Attributes:
        image: (H, W, 3) uint8 BGR.
        box: (4,) float32 x1, y1, x2, y2; pixel edges, so that the whole image is (0, 0, W, H).
        mask: (H, W) uint8, 0 or 255, the target's pixels; None where only the box is known.
        outline: (N, 2) float32 points x, y whose bounds are the box under any linear map: the
            mask's convex hull, or the box's corners.
        scene: the picture or video that it belongs to, "" if unknown. Frames of one scene may show
            the same target.
    """

    image: Image
    box: NDArray[np.float32]
    mask: Image | None
    outline: NDArray[np.float32]
    scene: str = ""


class PairSource(Protocol):
    """Draws two views of one target at random, the template's frame first."""

    def pair(self, rng: np.random.Generator) -> tuple[Frame, Frame]:
        """Draw a pair."""


def frame_from_box(image: Image, box: NDArray[np.float32], scene: str = "") -> Frame:
    """Make a frame from a box alone (x1, y1, x2, y2)."""
    x1, y1, x2, y2 = box
    corners = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float32)
    return Frame(image, np.asarray(box, np.float32), None, corners, scene)


def frame_from_mask(image: Image, mask: Image, scene: str = "") -> Frame:
    """Make a frame from the target's pixels."""
    if mask.shape != image.shape[:2]:
        raise ValueError(f"the mask is {mask.shape[::-1]}, its image {image.shape[1::-1]}")
    rows, columns = np.nonzero(mask)
    if not len(rows):
        raise ValueError("the mask is empty")
    hull = cv2.convexHull(np.stack((columns, rows), 1).astype(np.int32))[:, 0].astype(np.float32)
    corners = np.array([[0, 0], [1, 0], [0, 1], [1, 1]], np.float32)
    outline = (hull[:, None] + corners).reshape(-1, 2)
    box = np.concatenate((outline.min(0), outline.max(0)))
    return Frame(image, box, mask, outline, scene)
