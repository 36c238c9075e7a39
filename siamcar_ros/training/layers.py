"""Where a target goes in a crop, and targets that are cut out, changed and pasted.

A layer is an image (S, S, 3) uint8 BGR, already multiplied by its opacity (S, S) uint8.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from siamcar_ros.data.frames import Frame
from siamcar_ros.geometry import TEMPLATE_SIZE, Image, context_side

from .photometric import Floats, blur_along, random_direction

_NODES = 33  # of the grid on which a deformation is computed, in each direction


def place(
    frame: Frame,
    linear: Floats,
    center: Floats,
    log_scale: float,
    errors: Floats | tuple[float, ...] = (0.0, 0.0, 0.0, 0.0),
) -> tuple[Floats, Floats]:
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


def edge_errors(rng: np.random.Generator, mean: float) -> Floats:
    """Errors of four edges, Laplace-distributed: most are small, a few very large."""
    return np.clip(rng.laplace(0.0, mean, 4), -0.4, 1.0) * (-1.0, -1.0, 1.0, 1.0)


def coverage(image: Image, matrix: Floats, size: int) -> float:
    """The share of the crop that the image, mapped by ``matrix``, fills."""
    height, width = image.shape[:2]
    corners = np.array([[0, 0, 1], [width, 0, 1], [width, height, 1], [0, height, 1]]) @ matrix.T
    crop = np.array([[0, 0], [size, 0], [size, size], [0, size]], np.float32)
    area, _ = cv2.intersectConvexConvex(corners.astype(np.float32), crop)
    return float(area) / (size * size)


def random_linear(rng: np.random.Generator, rotation: float, aspect: float) -> Floats:
    """A random linear map, (2, 2): a change of aspect ratio, then a rotation.

    `rotation` is the largest angle in degrees, `aspect` the largest change of log(width / height).
    """
    angle = math.radians(rng.uniform(-rotation, rotation))
    stretch = math.exp(rng.uniform(-aspect, aspect) / 2)
    return rotation_matrix(angle) @ np.diag((stretch, 1 / stretch))


def intersection(box: Floats, other: Floats) -> Floats:
    """Width and height, (2,), of what two boxes x1, y1, x2, y2 share."""
    return np.clip(np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2]), 0, None)


def rotation_matrix(angle: float) -> Floats:
    """(2, 2), by an angle in radians."""
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def cut(image: Image, mask: Image, matrix: Floats, size: int) -> tuple[Image, Image]:
    """Cut out a masked target as a layer of size S; its opacity is softened by a pixel at the edge.

    `image` is (H, W, 3) uint8 BGR, `mask` (H, W) uint8, 255 on the target; `matrix`, (2, 3), leads
    from image pixels to those of the layer.
    """
    moved = cv2.warpAffine(image, matrix, (size, size), borderMode=cv2.BORDER_REPLICATE)
    alpha = cv2.blur(cv2.warpAffine(mask, matrix, (size, size)), (3, 3))
    layer = cv2.multiply(moved, cv2.merge((alpha, alpha, alpha)), scale=1 / 255)
    return np.asarray(layer, np.uint8), np.asarray(alpha, np.uint8)


def paste(canvas: Image, layer: Image, alpha: Image) -> None:
    """Draw a layer onto a canvas (S, S, 3), in place."""
    inverse = cv2.bitwise_not(alpha)
    rest = cv2.multiply(canvas, cv2.merge((inverse, inverse, inverse)), scale=1 / 255)
    cv2.add(rest, layer, dst=canvas)


def blurred(layer: Image, alpha: Image, path: Floats) -> tuple[Image, Image]:
    """The layer and its opacity, blurred along a path (dx, dy) in pixels."""
    whole = torch.from_numpy(np.dstack((layer, alpha))).permute(2, 0, 1)[None]
    moved = blur_along(whole, *path.tolist())[0].permute(1, 2, 0).numpy()
    return np.ascontiguousarray(moved[..., :3]), np.ascontiguousarray(moved[..., 3])


def deform(
    layer: Image, alpha: Image, box: Floats, rng: np.random.Generator
) -> tuple[Image, Image, Floats]:
    """Bend a target at a joint, stretch it smoothly, or both; `rng` decides how.

    Returns:
        layer, opacity and box (x1, y1, x2, y2 in pixels of the layer) of the deformed target;
        unchanged if it would reach the border, which would cut it off.
    """
    size = alpha.shape[0]
    low, extent = box[:2], box[2:] - box[:2]
    nodes = (np.arange(_NODES) + 0.5) * size / _NODES - 0.5  # where cv2.resize takes them to be
    grid = np.stack(np.meshgrid(nodes, nodes), -1)
    shift = np.zeros_like(grid)
    bent = rng.random() < 0.6
    if bent:  # what lies beyond a line turns about a point of it
        joint = low + extent * rng.uniform(0.25, 0.75, 2)
        arm = grid - joint
        beyond = np.clip(arm @ random_direction(rng) / (0.15 * extent.mean()) + 0.5, 0, 1)
        turned = arm @ rotation_matrix(math.radians(rng.uniform(-40, 40))).T
        shift += (turned - arm) * (beyond**2 * (3 - 2 * beyond))[..., None]
    if not bent or rng.random() < 0.5:  # a smooth random field, its grain half the target
        count = max(4, min(12, round(2 * size / max(extent.mean(), 1.0))))
        coarse = rng.normal(0.0, 0.06, (count, count, 2)) * extent
        shift += cv2.resize(coarse, (_NODES, _NODES), interpolation=cv2.INTER_CUBIC)
    source = np.indices((size, size), np.float32)[::-1].transpose(1, 2, 0)
    source = source + cv2.resize(shift.astype(np.float32), (size, size))
    moved = cv2.remap(np.dstack((layer, alpha)), source, None, cv2.INTER_LINEAR)
    x, y, width, height = cv2.boundingRect(cv2.compare(moved[..., 3], 127, cv2.CMP_GT))
    if width < 2 or height < 2 or min(x, y) <= 0 or x + width >= size or y + height >= size:
        return layer, alpha, box
    bounds = np.array([x, y, x + width, y + height], np.float64) - 0.5
    return np.ascontiguousarray(moved[..., :3]), np.ascontiguousarray(moved[..., 3]), bounds


def recolored(image: Image, box: NDArray[np.float32], canvas: Image, target: Floats) -> Image:
    """The image with its object's mean color moved to that of the canvas's target."""

    def mean(picture: Image, where: NDArray[np.float64] | NDArray[np.float32]) -> Floats:
        x1, y1, x2, y2 = (max(0, int(v)) for v in where)
        part = picture[y1 : y2 + 1 : 4, x1 : x2 + 1 : 4].reshape(-1, 3)
        return part.mean(0) if len(part) else np.full(3, 114.0)

    difference = mean(canvas, target) - mean(image, box)
    steps = np.arange(256, dtype=np.float64)[:, None] + difference
    return np.asarray(cv2.LUT(image, np.clip(steps, 0, 255).astype(np.uint8)[None]), np.uint8)
