"""From the network's three maps to a displacement, a size and a score. Pure functions of arrays.

A decoder is a function; :func:`register_decoder` makes it known by name. All of these lower each
cell's foreground probability by a penalty p on change of size and aspect ratio, and pick a place
with a cosine window H that favors small motion:

``paper`` (Section 3.3): q = argmax (1 - w) cls p + w H (Equation 9); the box is the mean of the
boxes of the 3 best of q's 8 neighbors, weighted by cls p. It uses neither centerness nor smoothing
over time.

``upsampled`` (the authors' code): the score is cls p times the centerness, min-max normalized over
the map. The windowed score is enlarged bicubically to one value per search pixel, and its peak is
the coarse place. The highest enlarged score without the window, in a region around it as large as
the box that the map shows there, is the place. The size is the enlarged distances there, blended
with the last size by lr, p and the enlarged cls. Two quirks of the code are kept: enlarging to
8 (S - 1) + 1 samples with OpenCV's pixel-center rule stretches the map a little (cell 0 appears at
sample 3.4), and the blending penalty compares the new size in image pixels with the last one in
search pixels. Its faults are not: an index past the border, 0/0 on a constant centerness map, a
jump to the corner where no score in the region is positive.

``regressed`` finds its place as ``upsampled`` does and takes the box that the distances give there
(Section 3.2), its center included, where the code takes the place itself as the center; the
blending penalty compares sizes in search pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from siamcar_ros.geometry import CONTEXT, TEMPLATE_SIZE
from siamcar_ros.runtime.network import Maps
from siamcar_ros.tracking.interface import DECODERS, TrackerParams

Array = NDArray[np.float64]

# Smallest and largest reach of the fine search to one side, before it is halved.
_REACH = (int(0.1 * TEMPLATE_SIZE), int(0.44 * TEMPLATE_SIZE))
_TINY = 1e-12
_FAR = 1e4  # search pixels; a wild cell, infinite even, must not spoil its neighbors

_Decode = TypeVar("_Decode", bound=Callable[..., "Decoded"])


class Decoded(NamedTuple):
    """What the maps say of B targets.

    Attributes:
        shift: (B, 2) from the last center to the new one, x and y, image pixels.
        size: (B, 2) new width and height, image pixels.
        score: (B,) foreground probability, in [0, 1].
    """

    shift: Array
    size: Array
    score: Array


class Grid:
    """The S x S cells of a network's maps; the middle one lies on the last center.

    Args:
        score_size: S, at least 3.
        stride: search pixels from cell to cell.

    Attributes:
        window: (S, S) cosine window.
        enlarge: (samples, S): row r holds the bicubic weights of enlarged sample r.
    """

    def __init__(self, score_size: int, stride: int = 8) -> None:
        if score_size < 3:
            raise ValueError(f"a score map has at least 3x3 cells, not {score_size}")
        self.score_size, self.stride = score_size, stride
        hanning = np.hanning(score_size)
        self.window = np.outer(hanning, hanning)
        samples, eye = stride * (score_size - 1) + 1, np.eye(score_size)
        self.enlarge = cv2.resize(eye, (score_size, samples), interpolation=cv2.INTER_CUBIC)

    def windowed(self, score: Array, influence: float) -> Array:
        """(B, S, S) scores blended with the window."""
        return score * (1 - influence) + self.window * influence


def decode(grid: Grid, maps: Maps, size: Array, scale: Array, params: TrackerParams) -> Decoded:
    """Decode B targets at once, by the function that ``params.decoder`` names.

    Args:
        grid: of the network's maps.
        maps: the network's outputs.
        size: (B, 2) last width and height of each target, image pixels.
        scale: (B,) search pixels per image pixel.
        params: the tracker's.
    """
    decoded: Decoded = DECODERS[params.decoder](grid, maps, size, scale, params)
    return decoded


def register_decoder(name: str) -> Callable[[_Decode], _Decode]:
    """Make a function of :func:`decode`'s arguments known as a decoder.

    Raises:
        ValueError: the name is taken.
    """
    if name in DECODERS:
        raise ValueError(f"the decoder {name!r} is registered already")

    def register(function: _Decode) -> _Decode:
        DECODERS[name] = function
        return function

    return register


class Evidence(NamedTuple):
    """What the decoders here begin with.

    Attributes:
        cls: (B, S, S) foreground probability.
        reg: (B, 4, S, S) distances, kept in a sane range.
        ranked: (B, S, S) probability, lowered by the penalty on change.
    """

    cls: Array
    reg: Array
    ranked: Array

    @classmethod
    def of(cls, maps: Maps, size: Array, scale: Array, penalty_k: float) -> Evidence:
        """From :func:`decode`'s arguments."""
        probability = foreground(maps.cls)
        last = (size * scale[:, None])[..., None, None]
        reg = maps.reg.astype(np.float64).clip(_TINY, _FAR)
        w, h = reg[:, 0] + reg[:, 2], reg[:, 1] + reg[:, 3]
        penalty = change_penalty(w, h, last[:, 0], last[:, 1], penalty_k)
        return cls(probability, reg, probability * penalty)


@register_decoder("upsampled")
def upsampled(grid: Grid, maps: Maps, size: Array, scale: Array, params: TrackerParams) -> Decoded:
    """The published code's; see the module."""
    return _enlarged(grid, maps, size, scale, params, regressed=False)


@register_decoder("paper")
def paper(grid: Grid, maps: Maps, size: Array, scale: Array, params: TrackerParams) -> Decoded:
    """Equation 9; see the module."""
    cls, reg, ranked = Evidence.of(maps, size, scale, params.penalty_k)
    batch, s = len(cls), grid.score_size
    rows = np.arange(batch)
    windowed = grid.windowed(ranked, params.window_influence).reshape(batch, -1)
    row, column = np.divmod(windowed.argmax(1), s)
    # The 8 neighbors; those beyond the border never rank.
    step_y, step_x = np.delete(np.indices((3, 3)).reshape(2, 9) - 1, 4, axis=1)
    y, x = row[:, None] + step_y, column[:, None] + step_x
    inside = (y >= 0) & (y < s) & (x >= 0) & (x < s)
    y, x = y.clip(0, s - 1), x.clip(0, s - 1)
    weight = np.where(inside, ranked[rows[:, None], y, x], -1.0)
    best = np.argsort(-weight, axis=1, kind="stable")[:, :3]
    y, x = np.take_along_axis(y, best, 1), np.take_along_axis(x, best, 1)
    weight = np.take_along_axis(weight, best, 1) + _TINY
    weight /= weight.sum(1, keepdims=True)
    left, top, right, bottom = np.moveaxis(reg[rows[:, None], :, y, x], 2, 0)
    middle = (s - 1) / 2
    center_x = grid.stride * (x - middle) + (right - left) / 2
    center_y = grid.stride * (y - middle) + (bottom - top) / 2
    box = np.stack((center_x, center_y, left + right, top + bottom))
    box = (box * weight).sum(2).T / scale[:, None]
    return Decoded(box[:, :2], box[:, 2:], cls[rows, row, column])


@register_decoder("regressed")
def regressed(grid: Grid, maps: Maps, size: Array, scale: Array, params: TrackerParams) -> Decoded:
    """The published code's place with the box regressed there; see the module."""
    return _enlarged(grid, maps, size, scale, params, regressed=True)


def _enlarged(
    grid: Grid, maps: Maps, size: Array, scale: Array, params: TrackerParams, *, regressed: bool
) -> Decoded:
    evidence = Evidence.of(maps, size, scale, params.penalty_k)
    score = evidence.ranked * normalized(maps.cen[:, 0])
    windowed = grid.windowed(score, params.window_influence)
    targets = zip(
        evidence.cls, evidence.reg, score, windowed, size.tolist(), scale.tolist(), strict=True
    )
    decoded = [_enlarged_one(grid, params, regressed, *target) for target in targets]
    return Decoded(*(np.array(part) for part in zip(*decoded, strict=True)))


def _enlarged_one(
    grid: Grid,
    params: TrackerParams,
    regressed: bool,
    cls: Array,
    reg: Array,
    score: Array,
    windowed: Array,
    size: Sequence[float],
    scale: float,
) -> tuple[tuple[float, float], tuple[float, float], float]:
    """One target's shift, size and score by the enlarged map, as in :class:`Decoded`."""
    row, column = _place(grid, score, windowed, reg)
    # The other maps are wanted at that one sample of the enlarged map only.
    x, y = grid.enlarge[column], grid.enlarge[row]
    probability = float(y @ cls @ x)
    left, top, right, bottom = (y @ reg @ x).tolist()
    w, h = max(left + right, _TINY), max(top + bottom, _TINY)
    samples = len(grid.enlarge)
    if regressed:
        compared, to_cell, middle = 1.0, grid.score_size / samples, (grid.score_size - 1) / 2
        dx = grid.stride * ((column + 0.5) * to_cell - 0.5 - middle) + (right - left) / 2
        dy = grid.stride * ((row + 0.5) * to_cell - 0.5 - middle) + (bottom - top) / 2
    else:
        compared, dx, dy = scale, column - samples // 2, row - samples // 2
    trust = change_penalty(
        w / compared, h / compared, size[0] * scale, size[1] * scale, params.penalty_k
    )
    # Between cells, enlarging overshoots: no more than all of the new size is adopted.
    blend = min(max(float(trust) * probability * params.lr, 0.0), 1.0)
    new = (
        blend * w / scale + (1 - blend) * size[0],
        blend * h / scale + (1 - blend) * size[1],
    )
    return (dx / scale, dy / scale), new, min(max(probability, 0.0), 1.0)


def _place(grid: Grid, score: Array, windowed: Array, reg: Array) -> tuple[int, int]:
    """Row and column on the enlarged map: the coarse peak, then the fine one near it."""
    samples, cells = len(grid.enlarge), grid.score_size
    enlarged = cv2.resize(windowed, (samples, samples), interpolation=cv2.INTER_CUBIC)
    row, column = divmod(int(enlarged.argmax()), samples)
    cell_y = min(round(row * cells / samples), cells - 1)
    cell_x = min(round(column * cells / samples), cells - 1)
    left, top, right, bottom = reg[:, cell_y, cell_x].clip(*_REACH).tolist()
    x0, x1 = column - _half(column, left), column + _half(samples - column, right) + 1
    y0, y1 = row - _half(row, top), row + _half(samples - row, bottom) + 1
    region = grid.enlarge[y0:y1] @ score @ grid.enlarge[x0:x1].T
    down, across = divmod(int(region.argmax()), region.shape[1])
    return y0 + down, x0 + across


def _half(room: int, reach: float) -> int:
    return int(min(room, reach) / 2)


def foreground(cls: NDArray[np.float32]) -> Array:
    """(B, 2, S, S) logits -> (B, S, S) probability of the second class."""
    difference = cls[:, 1].astype(np.float64) - cls[:, 0]
    return 0.5 + 0.5 * np.tanh(0.5 * difference)


def normalized(cen: NDArray[np.float32]) -> Array:
    """(B, S, S) stretched to 0..1 over each map; a constant map says nothing and becomes 1."""
    flat = cen.astype(np.float64).reshape(len(cen), -1)
    low = flat.min(1, keepdims=True)
    span = flat.max(1, keepdims=True) - low
    constant = span == 0
    stretched: Array = (flat - (low - constant)) / (span + constant)
    return stretched.reshape(cen.shape)


def change_penalty(w: Any, h: Any, last_w: Any, last_h: Any, k: float) -> Any:
    """exp(-k (r s - 1)), r and s the changes of aspect ratio and of size (SiamRPN).

    The new and the last widths and heights, above 0, are numbers or arrays that broadcast; `k` is
    the strength.
    """
    s = _context_area(w, h) / _context_area(last_w, last_h)
    r = h / w * (last_w / last_h)
    return np.exp(k - k * (np.maximum(r, 1 / r) * np.sqrt(np.maximum(s, 1 / s))))


def _context_area(w: Any, h: Any) -> Any:
    """The square of the side that a box of this size is shown with, see geometry.context_side."""
    return (CONTEXT + CONTEXT**2) * (w + h) ** 2 + w * h
