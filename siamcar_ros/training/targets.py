"""The positive cells, and the distances and centerness they should predict (Eq. 3, 5, 6)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

POSITIVE_RULES = ("center", "box")
CENTER_SHARE = 0.6


class Targets(NamedTuple):
    """Targets for B boxes on N locations.

    ``labels`` (B, N) bool, the positive cells; ``distances`` (B, N, 4) float32 l, t, r, b in
    search pixels; ``centerness`` (B, N) float32 in [0, 1], 0 outside the box.
    """

    labels: Tensor
    distances: Tensor
    centerness: Tensor


def make_targets(boxes: Tensor, locations: Tensor, positives: str = "center") -> Targets:
    """Targets for training.

    Args:
        boxes: (B, 4) x1, y1, x2, y2 in search pixels.
        locations: (N, 2) x, y of the cells.
        positives: "center", the published code's rule: each side farther than 0.6 of the half
            size; or "box", the paper's Eq. 5: any cell inside. A box that no cell falls in gets
            the cell nearest to its center either way.

    Raises:
        ValueError: an unknown rule, or boxes of the wrong shape.
    """
    if positives not in POSITIVE_RULES:
        raise ValueError(f"positives is {positives!r}; it may be {' or '.join(POSITIVE_RULES)}")
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes have the shape {tuple(boxes.shape)}; it must be (B, 4)")
    boxes = boxes.to(locations.dtype)
    low, high = boxes[:, None, :2], boxes[:, None, 2:]
    distances = torch.cat((locations - low, high - locations), -1)
    if positives == "center":
        least = CENTER_SHARE * (high - low) / 2
        labels = (distances > torch.cat((least, least), -1)).all(-1)
    else:
        labels = (distances > 0).all(-1)
    middle = (low + high) / 2
    nearest = (locations - middle).square().sum(-1).argmin(1)
    empty = ~labels.any(1)
    labels = labels | (torch.nn.functional.one_hot(nearest, len(locations)).bool() & empty[:, None])
    inside = distances.clamp(min=0)
    pairs = torch.stack((inside[..., 0::2], inside[..., 1::2]), -2)
    ratios = pairs.amin(-1) / pairs.amax(-1).clamp(min=1e-6)
    return Targets(labels, distances, ratios.prod(-1).sqrt())
