"""Where a frame's target goes in a crop: affine maps, boxes, and the errors of a tracker's box."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from siamcar_ros.data.frames import Frame
from siamcar_ros.geometry import TEMPLATE_SIZE, Image, context_side

Float = NDArray[np.float64]


def place(
    frame: Frame,
    linear: Float,
    center: Float,
    log_scale: float,
    errors: Float | tuple[float, ...] = (0.0, 0.0, 0.0, 0.0),
) -> tuple[Float, Float]:
    """The affine map that brings a frame's target to `center` of a crop, at the tracker's scale.

    Args:
        frame: with its target's outline.
        linear: (2, 2) map applied before scaling.
        center: x, y in the crop, pixel edges.
        log_scale: jitter of the scale.
        errors: of the left, top, right and bottom edge of the box that the tracker would crop
            around, as shares of the box's sides.

    Returns:
        (2, 3) matrix for ``cv2.warpAffine``; (4,) box x1, y1, x2, y2, pixel centers.
    """
    points = frame.outline.astype(np.float64) @ linear.T
    low, high = points.min(0), points.max(0)
    size = np.maximum(high - low, 2.0)
    wrong_low, wrong_high = low + errors[:2] * size, high + errors[2:] * size
    width, height = np.maximum(wrong_high - wrong_low, 2.0)
    scale = TEMPLATE_SIZE / float(context_side(width, height)) * math.exp(log_scale)
    middle = (wrong_low + wrong_high) / 2
    matrix = np.empty((2, 3))
    matrix[:, :2] = scale * linear
    matrix[:, 2] = center - scale * middle + matrix[:, :2].sum(1) / 2 - 0.5
    box = np.concatenate((scale * (low - middle) + center, scale * (high - middle) + center)) - 0.5
    return matrix, box


def edge_errors(rng: np.random.Generator, mean: float) -> Float:
    """Errors of four edges, Laplace-distributed: most are small, a few very large."""
    return np.clip(rng.laplace(0.0, mean, 4), -0.4, 1.0) * (-1.0, -1.0, 1.0, 1.0)


def coverage(image: Image, matrix: Float, size: int) -> float:
    """The share of the crop that the image, mapped by ``matrix``, fills."""
    height, width = image.shape[:2]
    corners = np.array([[0, 0, 1], [width, 0, 1], [width, height, 1], [0, height, 1]]) @ matrix.T
    crop = np.array([[0, 0], [size, 0], [size, size], [0, size]], np.float32)
    area, _ = cv2.intersectConvexConvex(corners.astype(np.float32), crop)
    return float(area) / (size * size)


def random_linear(rng: np.random.Generator, rotation: float, aspect: float) -> Float:
    """(2, 2): a rotation by up to so many degrees after a change of aspect ratio."""
    angle = math.radians(rng.uniform(-rotation, rotation))
    stretch = math.exp(rng.uniform(-aspect, aspect) / 2)
    return rotation_matrix(angle) @ np.diag((stretch, 1 / stretch))


def intersection(box: Float, other: Float) -> Float:
    """Width and height, (2,), of what two boxes x1, y1, x2, y2 share."""
    return np.clip(np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2]), 0, None)


def random_direction(rng: np.random.Generator) -> Float:
    """A unit vector, (2,)."""
    angle = rng.uniform(0, 2 * math.pi)
    return np.array([math.cos(angle), math.sin(angle)])


def rotation_matrix(angle: float) -> Float:
    """(2, 2), by an angle in radians."""
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
