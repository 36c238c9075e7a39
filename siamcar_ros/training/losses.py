"""The three losses of SiamCAR and their weighted sum (Eq. 4, 7 and 8)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .targets import make_targets


def siamcar_loss(
    cls: Tensor,
    reg: Tensor,
    cen: Tensor,
    boxes: Tensor,
    locations: Tensor,
    *,
    positives: str = "center",
    negative: Tensor | None = None,
    centerness_weighted: bool = True,
    weights: tuple[float, float, float] = (1.0, 3.0, 1.0),
    average: Callable[[Tensor], Tensor] | None = None,
) -> dict[str, Tensor]:
    """Losses of a batch.

    Args:
        cls: the network's foreground logits (B, 2, S, S).
        reg: its distances (B, 4, S, S).
        cen: its centerness logits (B, 1, S, S).
        boxes: (B, 4) x1, y1, x2, y2 in search pixels.
        locations: (S*S, 2), the model's.
        positives: "center" (published code) or "box" (paper); see
            :func:`~siamcar_ros.training.make_targets`.
        negative: (B,) bool, pairs whose search region lacks the target: all their cells are
            background and they have no box.
        centerness_weighted: weigh the IoU loss by the centerness target (published code);
            False is Eq. 4's plain mean.
        weights: of classification, regression and centerness in the sum (paper: 1, 3, 1).
        average: where several processes share a batch, what averages a tensor over them. The sums
            are then divided by the whole batch's counts, so that the averaged gradients are those
            of one process.

    Returns:
        scalars by name: ``cls`` (cross-entropy, the mean over positive cells and the mean over
        negative cells each by half), ``reg`` (-log IoU, areas plus 1), ``cen`` (binary
        cross-entropy) and ``total``.
    """
    targets = make_targets(boxes, locations, positives)
    labels = targets.labels if negative is None else targets.labels & ~negative[:, None]
    wanted, centerness = targets.distances[labels], targets.centerness[labels]
    shares = centerness if centerness_weighted else torch.ones_like(centerness)

    cross_entropy = F.cross_entropy(cls.float().flatten(2), labels.long(), reduction="none")
    distances = reg.float().flatten(2).transpose(1, 2)[labels]
    iou_loss = _iou_loss(distances, wanted.clamp(min=0)) * shares
    logits = cen.float().flatten(1)[labels]
    cen_sum = F.binary_cross_entropy_with_logits(logits, centerness, reduction="sum")

    positive = labels.sum()
    counts = torch.stack((positive, labels.numel() - positive, shares.sum())).float()
    if average is not None:
        counts = average(counts)
    n_positive, n_negative, n_shares = torch.where(counts > 0, counts, torch.ones_like(counts))
    cls_loss = cross_entropy[labels].sum() / n_positive + cross_entropy[~labels].sum() / n_negative
    losses = {"cls": cls_loss / 2, "reg": iou_loss.sum() / n_shares, "cen": cen_sum / n_positive}
    total = sum(weight * loss for weight, loss in zip(weights, losses.values(), strict=True))
    return {**losses, "total": torch.as_tensor(total)}


def _iou_loss(distances: Tensor, wanted: Tensor) -> Tensor:
    """-log IoU of boxes given by (N, 4) distances l, t, r, b from a common point."""
    areas = [(d[:, 0] + d[:, 2]) * (d[:, 1] + d[:, 3]) for d in (distances, wanted)]
    least = torch.minimum(distances, wanted)
    overlap = (least[:, 0] + least[:, 2]) * (least[:, 1] + least[:, 3])
    return -torch.log((overlap + 1) / (areas[0] + areas[1] - overlap + 1))
