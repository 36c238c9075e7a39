"""The chance that a box is right, from what a frame's maps show.

A network's foreground probability ranks its boxes well, but is no probability that they are right:
a look-alike scores as high as the target. :func:`observe` takes from the maps what tells them
apart, and :class:`Calibration`, a logistic model that ``tools/calibrate.py`` fits to annotated
footage, makes of it the chance that the box overlaps the target by more than half.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from siamcar_ros.runtime.config import refuse_unknown
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
    s, rows = grid.score_size, np.arange(len(size))[:, None]
    logit = (maps.cls[:, 1] - maps.cls[:, 0]).clip(-_LIMIT, _LIMIT)
    place = decoded.shift * scale[:, None] / grid.stride + (s - 1) / 2  # x, y in cells
    middle = np.rint(place).clip(1, s - 2).astype(int)
    y, x = middle[:, 1:] + _AROUND[0], middle[:, :1] + _AROUND[1]
    near = logit[rows, y, x]
    best = near.argmax(1)
    rows = rows[:, 0]
    peak = near[rows, best].astype(float)
    quality = maps.cen[rows, 0, y[rows, best], x[rows, best]].clip(-_LIMIT, _LIMIT)

    left, top, right, bottom = maps.reg[rows[:, None], :, y, x].transpose(2, 0, 1).clip(0, _FAR)
    last = size * scale[:, None]
    across, down = grid.stride * x, grid.stride * y
    sides = np.stack((across - left, down - top, across + right, down + bottom))
    last_area = last[:, 0] * last[:, 1]
    wobble = sides.std(2).mean(0) / np.sqrt(last_area)
    w, h = (part[rows, best].clip(1) for part in (left + right, top + bottom))
    area, shape = w * h / last_area, w / h * last[:, 1] / last[:, 0]
    growth = (np.abs(np.log(area)) + np.abs(np.log(shape))) / 2

    cells = decoded.size * scale[:, None] / grid.stride
    far = np.abs(np.arange(s) - place[:, :, None]) > np.maximum(cells / 2, 1.5)[:, :, None]
    elsewhere = np.where(far[:, 0, None, :] | far[:, 1, :, None], logit, -_LIMIT)
    lead = peak - elsewhere.max((1, 2))
    spread = np.log((1 + (logit > 0).sum((1, 2))) / (1 + cells[:, 0] * cells[:, 1]))

    corner = center + decoded.shift - decoded.size / 2
    inside = np.minimum(corner + decoded.size, frame_size) - np.maximum(corner, 0)
    shift = np.hypot(*decoded.shift.T) / np.sqrt(size[:, 0] * size[:, 1])
    evidence = {
        "peak": peak,
        "strength": np.maximum(peak - 4, 0),
        "quality": quality,
        "lead": np.minimum(lead, 3),
        "margin": np.maximum(lead, 0),
        "spread": spread,
        "wobble": np.log(0.01 + wobble),
        "growth": np.minimum(growth, 1),
        "shift": np.minimum(shift, 1.5),
        "outside": 1 - (inside.clip(0) / decoded.size).prod(1),
        "usual": np.where(np.isnan(usual), peak, usual),
        "confidence": np.clip(confidence, -1, 1.5),
    }
    return np.stack([evidence[name] for name in EVIDENCE], 1)


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
        """From coefficients by name, zero where they are not named; None without any.

        Args:
            named: "alone" and, where it was fitted, "online".

        Raises:
            ValueError: a name is unknown.
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

        Args:
            evidence: from :func:`observe`.
            learned: (B,) whether a model of the target was learned online.
        """
        by_row = np.where(learned[:, None], self.online, self.alone)
        logit = (evidence * by_row[:, :-1]).sum(1) + by_row[:, -1]
        return 1 / (1 + np.exp(-logit))
