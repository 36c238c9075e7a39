"""Overlap, center error and the curves computed from them.

Boxes are (N, 4) arrays of (x, y, w, h) in pixels and cover [x, x + w) x [y, y + h). A ground-truth
row that is not finite means that the target is absent; its overlap and error are NaN, and
`siamcar_ros.evaluation.protocols` decides how such a frame counts. A prediction that is not finite
overlaps nothing and is infinitely far away. Every function of boxes raises ValueError where two
arrays differ in shape or are not (N, 4).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from siamcar_ros.geometry import overlap

Floats = NDArray[np.float64]

#: Center-error thresholds in pixels: 0 ... 50; benchmarks quote the value at 20.
PIXEL_THRESHOLDS: Floats = np.arange(51, dtype=np.float64)
#: Thresholds of the center error in units of the target's size: 0, 0.01 ... 0.5.
NORMALIZED_THRESHOLDS: Floats = np.arange(51, dtype=np.float64) / 100


def iou(
    boxes: ArrayLike,
    truth: ArrayLike,
    *,
    bound: tuple[float, float] | None = None,
    keep_size: bool = False,
) -> Floats:
    """Intersection over union of predictions and truth, row by row: (N,) in [0, 1].

    It is 0 where both boxes are empty. With `bound`, an image's (width, height), both are first
    clipped to it. `keep_size` clips as GOT-10k does: it moves the top-left corner inside and then
    limits the size, so a box that starts outside keeps its size.
    """
    predicted, true = _pair(boxes, truth)
    seen = (_seen(each, bound, keep_size) for each in (predicted, true))
    found = np.clip(overlap(*seen), 0.0, 1.0)
    found[not_finite(true)] = np.nan
    return found


def center_error(boxes: ArrayLike, truth: ArrayLike, *, normalized: bool = False) -> Floats:
    """Distance of the predicted from the true centers, row by row, (N,) pixels.

    If `normalized`, its x and y parts are divided by the true width and height (LaSOT,
    TrackingNet).
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
    """Whether a predicted box has swollen over its surroundings, row by row: (N,) bool.

    Its overlap is below 0.5 although the true center lies inside it, and its area is more than 1.7
    times the true one.
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
    return np.asarray(~np.isfinite(boxes).all(axis=1))


def success_curve(overlaps: ArrayLike, thresholds: ArrayLike) -> Floats:
    """Share of frames whose overlap is strictly above each threshold, (len(thresholds),)."""
    return np.mean(np.asarray(overlaps)[:, None] > np.asarray(thresholds), axis=0)


def precision_curve(errors: ArrayLike, thresholds: ArrayLike = PIXEL_THRESHOLDS) -> Floats:
    """Share of frames whose center error is at most each threshold, (len(thresholds),)."""
    return np.mean(np.asarray(errors)[:, None] <= np.asarray(thresholds), axis=0)


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


def _seen(boxes: Floats, bound: tuple[float, float] | None, keep_size: bool) -> Floats:
    """The boxes, (N, 4), clipped to an image; without an area where not finite or negative."""
    corner, size = np.split(np.where(not_finite(boxes)[:, None], 0.0, boxes), 2, axis=1)
    if bound is not None:
        inside = corner.clip(0, bound)
        if not keep_size:
            size = size + corner - inside
        corner, size = inside, size.clip(max=np.asarray(bound) - inside)
    return np.hstack((corner, size.clip(0)))
