"""A model of one target, learned while it is followed: a second opinion on where it is.

A Siamese network is taught what similar means, and never what this target's surroundings look like.
Here a ridge regression is fitted from the features that the network's head reads, cell by cell, to
a Gaussian around the target's center, as correlation filters, ATOM (Danelljan et al., CVPR 2019)
and DiMP (Bhat et al., ICCV 2019) do. As those features are responses to the template already, a
filter of one cell is enough, and its weights are found in closed form: they say which parts of the
template tell this target from what is around it.

What is learned is a pair of moments of the samples, which are added up and forgotten exponentially.
Those of the first frame, the only one whose box is known, keep a fixed share. All that is in a
frame beside the target, look-alikes included, is learned as not being it. A frame is learned where
network and model agree, see :func:`sure`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Cells = Sequence[float] | NDArray[np.floating[Any]]
"""A box on the score grid: center x and y, width and height, in cells; cell (0, 0) is at 0, 0."""

_SPREAD = 0.12  # of the Gaussian, of the box's sides
_LEAST_SPREAD = 0.6  # cells
_TARGET = 0.05  # the Gaussian's value above which a cell counts as the target's
_RIDGE = 1e-3  # of the mean of the moments' diagonal
_FIRST = 0.3  # share of the first frame's samples
_RATE = 0.1  # share of a new frame's samples among the others
_INTERVAL = 3  # frames from one that is learned to the next; neighbors are alike
_SURE_SCORE = 0.7
_SURE_CONFIDENCE = 0.4


class Moments(NamedTuple):
    """Of weighted samples x, (D,), with labels y.

    Attributes:
        xx: (D, D) mean of x x'.
        xy: (D,) mean of x y.
    """

    xx: Array
    xy: Array

    def blended(self, other: Moments, share: float) -> Moments:
        """With a share of another's samples in place of its own."""
        return Moments(*((1 - share) * a + share * b for a, b in zip(self, other, strict=True)))


@dataclass(frozen=True)
class OnlineModel:
    """What tells a target from its surroundings. Immutable: learning gives another one.

    Attributes:
        mean, scale: (C, 1) of the first frame's features, which standardize all others.
        first, recent: moments of the first frame's samples and of those since.
        weights: (C + 1,) of the features and of a constant.
        reference: the response at the target's center in the frames that were learned.
        waited: frames given to :meth:`learn` since the last one that was learned.
    """

    mean: Array
    scale: Array
    first: Moments
    recent: Moments
    weights: Array
    reference: float
    waited: int = 0

    @classmethod
    def start(cls, features: Array, box: Cells) -> OnlineModel:
        """Learn the target from the first frame's features, (C, S, S), of `Network.observe`.

        `box` is the target's, in cells of the score grid.
        """
        flat = features.reshape(len(features), -1)
        mean, spread = flat.mean(1, keepdims=True), flat.std(1, keepdims=True)
        scale = 1 / (spread + 1e-3 * flat.std() + 1e-12)
        nothing = np.zeros(len(flat) + 1, np.float32)
        moments = _moments(_samples(features, mean, scale), box, features.shape[-1])
        model = cls(mean, scale, moments, moments, nothing, 1.0)._solved()
        return replace(model, reference=max(at_center(model.respond(features), box), 0.1))

    def respond(self, features: Array) -> Array:
        """(C, S, S) features to (S, S): about 1 at the target's center, 0 away from it."""
        weights = self.weights[:-1] * self.scale[:, 0]
        constant = self.weights[-1] - weights @ self.mean[:, 0]
        response: Array = weights @ features.reshape(len(weights), -1) + constant
        return response.reshape(features.shape[1:])

    def confidence(self, response: Array, box: Cells) -> float:
        """How much the place of a box looks like the target, and no other place does.

        It is the response there, over that in the frames that were learned, less the highest one
        outside the box: about 1 where the target is alone, below 0 where another place fits better.
        """
        away = ~_inside(box, response.shape[-1])
        rival = float(response.max(where=away, initial=0.0))
        return (at_center(response, box) - rival) / self.reference

    def learn(self, features: Array, box: Cells) -> OnlineModel:
        """The model with another frame's samples, those of the past forgotten a little.

        Every third call does so; those between only count. `box` is where the target surely is.
        """
        if self.waited + 1 < _INTERVAL:
            return replace(self, waited=self.waited + 1)
        samples = _samples(features, self.mean, self.scale)
        seen = _moments(samples, box, features.shape[-1])
        model = replace(self, recent=self.recent.blended(seen, _RATE))._solved()
        response = at_center(self.respond(features), box)
        reference = (1 - _RATE) * self.reference + _RATE * response
        return replace(model, reference=max(reference, 0.1), waited=0)

    def _solved(self) -> OnlineModel:
        xx, xy = self.recent.blended(self.first, _FIRST)
        ridge = np.full(len(xy), _RIDGE * np.trace(xx) / len(xy), np.float32)
        ridge[-1] = 1e-6
        return replace(self, weights=np.linalg.solve(xx + np.diag(ridge), xy))


def sure(score: float, confidence: float) -> bool:
    """Whether network and model agree enough on a frame that it may be learned."""
    return score >= _SURE_SCORE and confidence >= _SURE_CONFIDENCE


def at_center(response: Array, box: Cells) -> float:
    """The highest response of the cell at a box's center and its neighbors."""
    last = response.shape[-1] - 1
    x, y = (round(min(max(float(value), 0.0), last)) for value in box[:2])
    return float(response[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].max())


def _samples(features: Array, mean: Array, scale: Array) -> Array:
    """(C, S, S) to (C + 1, S * S), standardized, with a constant."""
    samples = np.ones((len(features) + 1, features[0].size), np.float32)
    np.multiply(features.reshape(len(features), -1) - mean, scale, out=samples[:-1])
    return samples


def _moments(samples: Array, box: Cells, side: int) -> Moments:
    label = _gaussian(box, side)
    weight = np.ones_like(label)
    target = label > _TARGET
    if target.any() and not target.all():
        # All of the target's cells weigh half as much as all the others.
        weight[target] = 0.5 * (~target).sum() / target.sum()
    # One product for each row of the grid: for a single large one BLAS would use threads, which on
    # a busy CPU wait for each other many times longer than it takes.
    rows = samples.reshape(-1, side, side).swapaxes(0, 1)
    weighted = rows * (weight / weight.sum())[:, None]
    return Moments(
        (weighted @ rows.swapaxes(1, 2)).sum(0), (weighted @ label[:, :, None]).sum((0, 2))
    )


def _gaussian(box: Cells, side: int) -> Array:
    across, down = (
        ((np.arange(side, dtype=np.float32) - center) / max(_SPREAD * extent, _LEAST_SPREAD)) ** 2
        for center, extent in zip(box[:2], box[2:], strict=True)
    )
    # Down to exp(-60): sums of denormal numbers take many times as long.
    label: Array = np.exp(np.maximum(-0.5 * (down[:, None] + across), -60)).astype(np.float32)
    return label


def _inside(box: Cells, side: int) -> NDArray[np.bool_]:
    """The cells that a box, of at least five cells a side, covers."""
    x, y, w, h = (float(value) for value in box)
    cells = np.arange(side)
    return np.outer(abs(cells - y) <= max(h / 2, 2), abs(cells - x) <= max(w / 2, 2))
