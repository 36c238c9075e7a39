"""From the network's three maps to a displacement, a size and a score. Pure functions of arrays.

The decoders lower each cell's foreground probability by a penalty p on change of size and aspect,
and pick a place with a cosine window H that favours small motion:

``paper`` (Section 3.3): q = argmax (1 - w) cls p + w H (Equation 9); the box is the mean of the
boxes of the 3 best of q's 8 neighbours, weighted by cls p. Centerness is not used, nor any
smoothing over time.

``upsampled`` (the authors' code): the score is cls p times the centerness, min-max normalised over
the map; the windowed score is enlarged bicubically to one value a search pixel and its peak is the
coarse place; the highest enlarged score without the window, in a region around it as large as the
box that the map shows there, is the place. The size is the enlarged distances there, blended
with the last size by lr, p and the enlarged cls. The code's quirks are part of it: enlarging to
8 (S - 1) + 1 samples with OpenCV's pixel-centre rule stretches the map a little (cell 0 shows at
sample 3.4), and the blending penalty compares the new size in image pixels with the last one in
search pixels. Its faults are not: an index past the border, 0/0 on a constant centerness map, a
jump to the corner where no score in the region is positive.

``regressed`` finds its place as ``upsampled`` does and takes the box that the distances give there
(Section 3.2), centre included, where the code takes the place itself for the centre; the blending
penalty compares sizes in search pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from siamcar_ros.tracking.crop import CONTEXT, TEMPLATE_SIZE
from siamcar_ros.tracking.interface import TrackerParams

Array = NDArray[np.float64]

STRIDE = 8
# Smallest and largest reach of the accurate search to one side, before it is halved.
_REACH = (int(0.1 * TEMPLATE_SIZE), int(0.44 * TEMPLATE_SIZE))
_TINY = 1e-12
_FAR = 1e4  # search pixels; a wild cell, infinite even, must not spoil its neighbours


class Maps(NamedTuple):
    """A network's outputs for B targets: raw logits and distances in search pixels.

    Attributes:
        cls: (B, 2, S, S), foreground at index 1.
        reg: (B, 4, S, S), l, t, r, b.
        cen: (B, 1, S, S).
    """

    cls: NDArray[np.float32]
    reg: NDArray[np.float32]
    cen: NDArray[np.float32]


class Decoded(NamedTuple):
    """What the maps say of B targets.

    Attributes:
        shift: (B, 2) from the last centre to the new one, x and y, image pixels.
        size: (B, 2) new width and height, image pixels.
        score: (B,) foreground probability, in [0, 1].
    """

    shift: Array
    size: Array
    score: Array


class Decoder:
    """Decodes maps of S x S cells, stride 8, whose middle cell lies on the last centre."""

    def __init__(self, score_size: int) -> None:
        if score_size < 3:
            raise ValueError(f"a score map has at least 3x3 cells, not {score_size}")
        self.score_size = score_size
        hanning = np.hanning(score_size)
        self._window = np.outer(hanning, hanning)
        # (samples, cells): row r holds the bicubic weights of enlarged sample r.
        samples = STRIDE * (score_size - 1) + 1
        eye = np.eye(score_size)
        self._enlarge = cv2.resize(eye, (score_size, samples), interpolation=cv2.INTER_CUBIC)

    def __call__(self, maps: Maps, size: Array, scale: Array, params: TrackerParams) -> Decoded:
        """Decode B targets at once.

        Args:
            maps: the network's outputs.
            size: (B, 2) last width and height of each target, image pixels.
            scale: (B,) search pixels per image pixel.
            params: decoder, penalty_k, window_influence, lr.
        """
        cls = foreground(maps.cls)
        last = (size * scale[:, None])[..., None, None]
        reg = maps.reg.astype(np.float64).clip(_TINY, _FAR)
        w, h = reg[:, 0] + reg[:, 2], reg[:, 1] + reg[:, 3]
        penalty = change_penalty(w, h, last[:, 0], last[:, 1], params.penalty_k)
        ranked = cls * penalty
        if params.decoder == "paper":
            return self._paper(cls, reg, ranked, scale, params.window_influence)
        score = ranked * normalised(maps.cen[:, 0])
        windowed = self._windowed(score, params.window_influence)
        sizes, scales = size.tolist(), scale.tolist()
        decoded = [
            self._enlarged(cls[i], reg[i], score[i], windowed[i], sizes[i], scales[i], params)
            for i in range(len(cls))
        ]
        return Decoded(*(np.array(part) for part in zip(*decoded, strict=True)))

    def _enlarged(
        self,
        cls: Array,
        reg: Array,
        score: Array,
        windowed: Array,
        size: Sequence[float],
        scale: float,
        params: TrackerParams,
    ) -> tuple[tuple[float, float], tuple[float, float], float]:
        """One target's shift, size and score by the enlarged map, as in :class:`Decoded`."""
        row, column = self._place(score, windowed, reg)
        # The other maps are wanted at that one sample of the enlarged map only.
        x, y = self._enlarge[column], self._enlarge[row]
        probability = float(y @ cls @ x)
        left, top, right, bottom = (y @ reg @ x).tolist()
        w, h = max(left + right, _TINY), max(top + bottom, _TINY)
        samples = len(self._enlarge)
        if params.decoder == "regressed":
            compared, to_cell, middle = 1.0, self.score_size / samples, (self.score_size - 1) / 2
            dx = STRIDE * ((column + 0.5) * to_cell - 0.5 - middle) + (right - left) / 2
            dy = STRIDE * ((row + 0.5) * to_cell - 0.5 - middle) + (bottom - top) / 2
        else:
            compared, dx, dy = scale, column - samples // 2, row - samples // 2
        trust = change_penalty(
            w / compared, h / compared, size[0] * scale, size[1] * scale, params.penalty_k
        )
        blend = float(trust) * probability * params.lr
        new = (
            blend * w / scale + (1 - blend) * size[0],
            blend * h / scale + (1 - blend) * size[1],
        )
        return (dx / scale, dy / scale), new, min(max(probability, 0.0), 1.0)

    def _paper(
        self, cls: Array, reg: Array, ranked: Array, scale: Array, influence: float
    ) -> Decoded:
        batch, s = len(cls), self.score_size
        rows = np.arange(batch)
        windowed = self._windowed(ranked, influence).reshape(batch, -1)
        row, column = np.divmod(windowed.argmax(1), s)
        # The 8 neighbours; those beyond the border never rank.
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
        centre_x = STRIDE * (x - middle) + (right - left) / 2
        centre_y = STRIDE * (y - middle) + (bottom - top) / 2
        box = np.stack((centre_x, centre_y, left + right, top + bottom))
        box = (box * weight).sum(2).T / scale[:, None]
        return Decoded(box[:, :2], box[:, 2:], cls[rows, row, column])

    def _place(self, score: Array, windowed: Array, reg: Array) -> tuple[int, int]:
        """Row and column on the enlarged map: the coarse peak, then the accurate one near it."""
        samples = len(self._enlarge)
        enlarged = cv2.resize(windowed, (samples, samples), interpolation=cv2.INTER_CUBIC)
        row, column = divmod(int(enlarged.argmax()), samples)
        cells = self.score_size
        cell_y = min(round(row * cells / samples), cells - 1)
        cell_x = min(round(column * cells / samples), cells - 1)
        left, top, right, bottom = reg[:, cell_y, cell_x].clip(*_REACH).tolist()
        x0, x1 = column - _half(column, left), column + _half(samples - column, right) + 1
        y0, y1 = row - _half(row, top), row + _half(samples - row, bottom) + 1
        region = self._enlarge[y0:y1] @ score @ self._enlarge[x0:x1].T
        down, across = divmod(int(region.argmax()), region.shape[1])
        return y0 + down, x0 + across

    def _windowed(self, score: Array, influence: float) -> Array:
        return score * (1 - influence) + self._window * influence


def _half(room: int, reach: float) -> int:
    return int(min(room, reach) / 2)


def foreground(cls: NDArray[np.float32]) -> Array:
    """(B, 2, S, S) logits -> (B, S, S) probability of the second class."""
    difference = cls[:, 1].astype(np.float64) - cls[:, 0]
    return 0.5 + 0.5 * np.tanh(0.5 * difference)


def normalised(cen: NDArray[np.float32]) -> Array:
    """(B, S, S) stretched to 0..1 over each map; a constant map says nothing and becomes 1."""
    flat = cen.astype(np.float64).reshape(len(cen), -1)
    low = flat.min(1, keepdims=True)
    span = flat.max(1, keepdims=True) - low
    constant = span == 0
    stretched: Array = (flat - (low - constant)) / (span + constant)
    return stretched.reshape(cen.shape)


def change_penalty(w: Any, h: Any, last_w: Any, last_h: Any, k: float) -> Any:
    """exp(-k (r s - 1)), r and s the changes of aspect ratio and of size (SiamRPN).

    Args:
        w: new widths, numbers or arrays, above 0.
        h: new heights.
        last_w: last widths, broadcast against the new ones.
        last_h: last heights.
        k: strength.
    """
    s = _context_area(w, h) / _context_area(last_w, last_h)
    r = h / w * (last_w / last_h)
    return np.exp(k - k * (np.maximum(r, 1 / r) * np.sqrt(np.maximum(s, 1 / s))))


def _context_area(w: Any, h: Any) -> Any:
    """The square of the side that a box of this size is shown with, see crop.template_side."""
    return (CONTEXT + CONTEXT**2) * (w + h) ** 2 + w * h
