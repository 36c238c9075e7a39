"""Overlap, center error and the curves computed from them.

Boxes are (N, 4) arrays of (x, y, w, h) in pixels and cover [x, x + w) x [y, y + h). A ground-truth
row that is not finite means that the target is absent; its overlap and error are NaN, and
`siamcar_ros.evaluation.protocols` decides how such a frame counts. A prediction that is not finite
overlaps nothing and is infinitely far away.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

#: Overlap thresholds of OTB, LaSOT, UAV123 and TrackingNet: 0, 0.05 ... 1.
OVERLAP_THRESHOLDS: Floats = np.linspace(0, 1, 21)
#: Center-error thresholds in pixels: 0 ... 50; benchmarks quote the value at 20.
PIXEL_THRESHOLDS: Floats = np.arange(51, dtype=np.float64)
#: Thresholds of the center error in units of the target's size: 0, 0.01 ... 0.5.
NORMALIZED_THRESHOLDS: Floats = np.arange(51, dtype=np.float64) / 100


def iou(boxes: ArrayLike, truth: ArrayLike, *, bound: tuple[float, float] | None = None) -> Floats:
    """Intersection over union, row by row.

    Args:
        boxes: predictions, (N, 4).
        truth: ground truth, (N, 4); rows that are not finite give NaN.
        bound: image (width, height); both boxes are first clipped to it, as GOT-10k does. Not
            clipped by default.

    Returns:
        (N,) overlaps in [0, 1]; 0 where both boxes are empty.

    Raises:
        ValueError: the arrays differ in shape or are not (N, 4).
    """
    predicted, true = _pair(boxes, truth)
    absent, broken = not_finite(true), not_finite(predicted)
    p1, p2 = _corners(np.where(broken[:, None], 0.0, predicted), bound)
    t1, t2 = _corners(np.where(absent[:, None], 0.0, true), bound)
    shared = np.prod(np.clip(np.minimum(p2, t2) - np.maximum(p1, t1), 0, None), axis=1)
    union = np.prod(p2 - p1, axis=1) + np.prod(t2 - t1, axis=1) - shared
    overlap = np.divide(shared, union, out=np.zeros(len(union)), where=union > 0)
    overlap = np.clip(overlap, 0.0, 1.0)
    overlap[absent] = np.nan
    return overlap


def center_error(boxes: ArrayLike, truth: ArrayLike, *, normalized: bool = False) -> Floats:
    """Distance of the centers, row by row.

    Args:
        boxes: predictions, (N, 4).
        truth: ground truth, (N, 4); rows that are not finite give NaN.
        normalized: divide the x and y parts by the true width and height (LaSOT, TrackingNet).

    Returns:
        (N,) distances, in pixels or in target sizes; infinite where the prediction is not finite.

    Raises:
        ValueError: the arrays differ in shape or are not (N, 4).
    """
    predicted, true = _pair(boxes, truth)
    offset = predicted[:, :2] + predicted[:, 2:] / 2 - true[:, :2] - true[:, 2:] / 2
    if normalized:
        with np.errstate(divide="ignore", invalid="ignore"):
            offset = offset / true[:, 2:]
    distance = np.hypot(offset[:, 0], offset[:, 1])
    distance[not_finite(predicted)] = np.inf
    distance[not_finite(true)] = np.nan
    return distance


def inflated(boxes: ArrayLike, truth: ArrayLike) -> NDArray[np.bool_]:
    """Whether a box has swollen over its surroundings, row by row.

    That is an overlap below 0.5 though the true center lies inside the box, whose area is more than
    1.7 times the true one.

    Args:
        boxes: predictions, (N, 4).
        truth: ground truth, (N, 4); False for rows that are not finite.

    Returns:
        (N,) bool.

    Raises:
        ValueError: the arrays differ in shape or are not (N, 4).
    """
    predicted, true = _pair(boxes, truth)
    usable = ~not_finite(predicted) & ~not_finite(true)
    predicted, true = (np.where(usable[:, None], part, 0.0) for part in (predicted, true))
    middle = true[:, :2] + true[:, 2:] / 2
    inside = (middle >= predicted[:, :2]) & (middle < predicted[:, :2] + predicted[:, 2:])
    larger = np.prod(predicted[:, 2:], axis=1) > 1.7 * np.prod(true[:, 2:], axis=1)
    return usable & inside.all(axis=1) & larger & (iou(predicted, true) < 0.5)


def not_finite(boxes: Floats) -> NDArray[np.bool_]:
    """Which rows, (N,) bool, hold a value that is not finite."""
    finite: NDArray[np.bool_] = np.isfinite(boxes)
    return ~np.all(finite, axis=1)


def success_curve(overlaps: ArrayLike, thresholds: ArrayLike = OVERLAP_THRESHOLDS) -> Floats:
    """Share of frames whose overlap is strictly above each threshold, (len(thresholds),)."""
    values = _frames(overlaps)
    return np.mean(values[:, None] > np.asarray(thresholds, np.float64), axis=0)


def precision_curve(errors: ArrayLike, thresholds: ArrayLike = PIXEL_THRESHOLDS) -> Floats:
    """Share of frames whose center error is at most each threshold, (len(thresholds),)."""
    values = _frames(errors)
    return np.mean(values[:, None] <= np.asarray(thresholds, np.float64), axis=0)


def average_overlap(overlaps: ArrayLike) -> float:
    """AO: the mean overlap of the frames with a ground truth; the caller omits the first frame."""
    return float(np.mean(_present(overlaps)))


def success_rate(overlaps: ArrayLike, threshold: float) -> float:
    """SR: the share of frames with a ground truth whose overlap is strictly above `threshold`."""
    return float(np.mean(_present(overlaps) > threshold))


def frame_rates(times: ArrayLike) -> Floats:
    """The rates 1 / t of the timed frames, (M,); the GOT-10k toolkit reports their mean."""
    seconds = np.asarray(times, np.float64).ravel()
    return np.asarray(1 / seconds[np.isfinite(seconds) & (seconds > 0)])


def _pair(boxes: ArrayLike, truth: ArrayLike) -> tuple[Floats, Floats]:
    predicted, true = np.asarray(boxes, np.float64), np.asarray(truth, np.float64)
    if predicted.shape != true.shape or predicted.ndim != 2 or predicted.shape[1] != 4:
        raise ValueError(
            f"expected two (N, 4) arrays of boxes, got shapes {predicted.shape} and {true.shape}"
        )
    return predicted, true


def _corners(boxes: Floats, bound: tuple[float, float] | None) -> tuple[Floats, Floats]:
    """Top-left and bottom-right corners, each (N, 2); a negative size counts as 0."""
    first = boxes[:, :2]
    last = first + np.clip(boxes[:, 2:], 0, None)
    if bound is None:
        return first, last
    # GOT-10k moves the corner inside and then limits the size, so a box that starts outside keeps
    # its size.
    first = np.clip(first, 0, bound)
    return first, first + np.clip(boxes[:, 2:], 0, np.asarray(bound) - first)


def _frames(values: ArrayLike) -> Floats:
    frames = np.asarray(values, np.float64)
    if frames.ndim != 1 or len(frames) == 0:
        raise ValueError(
            f"expected one value per frame and at least one frame, got shape {frames.shape}"
        )
    return frames


def _present(overlaps: ArrayLike) -> Floats:
    values = _frames(overlaps)
    values = values[~np.isnan(values)]
    if len(values) == 0:
        raise ValueError("no frame has a ground truth to score against")
    return values
