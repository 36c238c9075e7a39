"""The chance that a box is right, from what a frame's maps show.

A network's foreground probability ranks its boxes well, but is no probability that they are right:
a look-alike scores as high as the target. :func:`observe` takes from the maps what tells them
apart, and :class:`Calibration`, a logistic model that ``tools/calibrate.py`` fits to annotated
footage, makes of it the chance that the box overlaps the target by more than half.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from siamcar_ros.resources import refuse_unknown
from siamcar_ros.runtime.network import Maps
from siamcar_ros.tracking.decode import Array, Decoded, Grid

EVIDENCE: Mapping[str, str] = {
    "peak": "the highest foreground logit at the box's center",
    "strength": "how far it exceeds 4",
    "quality": "the quality branch's logit there",
    "lead": "the peak's excess over the highest foreground logit outside the box, at most 3",
    "margin": "that excess, at least 0",
    "spread": "log of the foreground's area over the box's",
    "wobble": "log of the scatter, in box sides, of the boxes regressed around the center",
    "growth": "change of size and aspect ratio since the last frame, at most 1",
    "shift": "from the last center to the new one in box sides, at most 1.5",
    "outside": "share of the box beyond the image's border",
    "usual": "the running mean of the peak over the frames before",
    "confidence": "that of the model learned online, -1 to 1.5; 1 without one",
}
"""What a frame shows of a box, and what the coefficients of a calibration are named after."""

_LIMIT = 12.0  # of logits
_FAR = 1e4  # search pixels
_AROUND = np.indices((3, 3)).reshape(2, 9) - 1


def observe(
    grid: Grid,
    maps: Maps,
    decoded: Decoded,
    center: Array,
    size: Array,
    scale: Array,
    usual: Array,
    confidence: Sequence[float],
    frame_size: tuple[int, int],
) -> Array:
    """(B, len(EVIDENCE)): what the maps show of the decoded boxes.

    Args:
        grid: as for :func:`~siamcar_ros.tracking.decode.decode`.
        maps: likewise.
        decoded: what it returned.
        center: (B, 2) last centers, image pixels.
        size: (B, 2) last sizes, image pixels.
        scale: (B,) search pixels per image pixel.
        usual: (B,) running means of the peak, NaN where there is none yet.
        confidence: B numbers.
        frame_size: (width, height) of the image.
    """
    logit = (maps.cls[:, 1] - maps.cls[:, 0]).clip(-_LIMIT, _LIMIT)
    targets = zip(
        logit,
        maps.reg,
        maps.cen[:, 0],
        decoded.shift.tolist(),
        decoded.size.tolist(),
        center.tolist(),
        size.tolist(),
        scale.tolist(),
        usual.tolist(),
        confidence,
        strict=True,
    )
    return np.array([_observe_one(grid, frame_size, *target) for target in targets])


def _observe_one(
    grid: Grid,
    frame_size: tuple[int, int],
    logit: NDArray[np.float32],
    reg: NDArray[np.float32],
    quality: NDArray[np.float32],
    shift: Sequence[float],
    new_size: Sequence[float],
    center: Sequence[float],
    size: Sequence[float],
    scale: float,
    usual: float,
    confidence: float,
) -> list[float]:
    """One target's row of :func:`observe`, in Python floats: numpy is slow on tiny arrays.

    `logit` (S, S) is the foreground's, `reg` (4, S, S) in search pixels, `quality` (S, S) logits;
    the decoded `shift` and `new_size`, and the last `center` and `size`, are (x, y) image pixels.
    """
    s = grid.score_size
    place = [each * scale / grid.stride + (s - 1) / 2 for each in shift]  # x, y in cells
    column, row = (min(max(round(each), 1), s - 2) for each in place)
    around = slice(row - 1, row + 2), slice(column - 1, column + 2)
    best = int(logit[around].argmax())
    y, x = row - 1 + best // 3, column - 1 + best % 3
    peak = float(logit[y, x])

    distances = reg[:, around[0], around[1]].clip(0, _FAR)
    left, top, right, bottom = distances.reshape(4, 9)
    across, down = grid.stride * _AROUND[1], grid.stride * _AROUND[0]  # from the middle cell
    sides = np.stack((across - left, down - top, across + right, down + bottom))
    last_w, last_h = (each * scale for each in size)
    wobble = float(sides.std(1).mean()) / math.sqrt(last_w * last_h)
    w = max(float(left[best] + right[best]), 1.0)
    h = max(float(top[best] + bottom[best]), 1.0)
    area, shape = w * h / (last_w * last_h), w / h * last_h / last_w
    growth = (abs(math.log(area)) + abs(math.log(shape))) / 2

    cells = [each * scale / grid.stride for each in new_size]
    far_x, far_y = (
        np.abs(np.arange(s) - at) > max(side / 2, 1.5)
        for at, side in zip(place, cells, strict=True)
    )
    elsewhere = max(float(part.max(initial=-_LIMIT)) for part in (logit[far_y], logit[:, far_x]))
    lead = peak - elsewhere
    foreground = np.count_nonzero(logit > 0)

    inside = 1.0
    for c, moved, side, length in zip(center, shift, new_size, frame_size, strict=True):
        corner = c + moved - side / 2
        inside *= max(min(corner + side, length) - max(corner, 0.0), 0.0) / side
    evidence = {
        "peak": peak,
        "strength": max(peak - 4, 0.0),
        "quality": min(max(float(quality[y, x]), -_LIMIT), _LIMIT),
        "lead": min(lead, 3.0),
        "margin": max(lead, 0.0),
        "spread": math.log((1 + foreground) / (1 + cells[0] * cells[1])),
        "wobble": math.log(0.01 + wobble),
        "growth": min(growth, 1.0),
        "shift": min(math.hypot(*shift) / math.sqrt(size[0] * size[1]), 1.5),
        "outside": 1 - inside,
        "usual": peak if math.isnan(usual) else usual,
        "confidence": min(max(confidence, -1.0), 1.5),
    }
    return [evidence[name] for name in EVIDENCE]


class Calibration(NamedTuple):
    """Coefficients of :data:`EVIDENCE`, in its order, and a constant.

    Attributes:
        alone: for targets without a model learned online.
        online: for those with one.
    """

    alone: Array
    online: Array

    @classmethod
    def of(cls, named: Mapping[str, Mapping[str, float]] | None) -> Calibration | None:
        """From the coefficients of "alone" and, where they were fitted, of "online".

        A coefficient that is not named is zero. Without any the result is None.
        """
        if named is None:
            return None
        refuse_unknown(named, cls._fields, "part of the calibration")
        names = (*EVIDENCE, "constant")
        for part in named.values():
            refuse_unknown(part, names, "coefficient of the calibration")
        sets = (named.get(part, named["alone"]) for part in cls._fields)
        return cls(*(np.array([each.get(name, 0.0) for name in names]) for each in sets))

    def chance(self, evidence: Array, learned: NDArray[np.bool_]) -> Array:
        """(B,) the chance that each box overlaps its target by more than half.

        `evidence` is :func:`observe`'s; `learned`, (B,), tells which have a model learned online.
        """
        by_row = np.where(learned[:, None], self.online, self.alone)
        logit = (evidence * by_row[:, :-1]).sum(1) + by_row[:, -1]
        return 1 / (1 + np.exp(-logit))
