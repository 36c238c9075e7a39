"""The three losses of SiamCAR and their weighted sum (Eq. 4, 7 and 8)."""

from __future__ import annotations

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
) -> dict[str, Tensor]:
    """Losses of a batch.

    Args:
        cls: (B, 2, S, S) logits, foreground at index 1.
        reg: (B, 4, S, S) distances l, t, r, b in search pixels.
        cen: (B, 1, S, S) centerness logits.
        boxes: (B, 4) x1, y1, x2, y2 in search pixels.
        locations: (S*S, 2), the model's.
        positives: "center" (published code) or "box" (paper); see
            :func:`~siamcar_ros.training.make_targets`.
        negative: (B,) bool, pairs whose search region lacks the target: all their cells are
            background and they have no box.
        centerness_weighted: weigh the IoU loss by the centerness target (published code);
            False is Eq. 4's plain mean.
        weights: of classification, regression and centerness in the sum (paper: 1, 3, 1).

    Returns:
        scalars by name: ``cls`` (cross-entropy, the mean over positive cells and the mean over
        negative cells each by half), ``reg`` (-log IoU, areas plus 1), ``cen`` (binary
        cross-entropy) and ``total``.
    """
    batch = cls.shape[0]
    targets = make_targets(boxes, locations, positives)
    labels = targets.labels if negative is None else targets.labels & ~negative[:, None]
    logits = cls.float().flatten(2)
    cross_entropy = F.cross_entropy(logits, labels.long(), reduction="none")
    distances = reg.float().flatten(2).transpose(1, 2)[labels]
    wanted, centerness = targets.distances[labels], targets.centerness[labels]
    iou_loss = _iou_loss(distances, wanted.clamp(min=0))
    if centerness_weighted and centerness.sum() > 0:
        reg_loss = (iou_loss * centerness).sum() / centerness.sum()
    else:
        reg_loss = iou_loss.sum() / max(1, len(iou_loss))
    cen_loss = F.binary_cross_entropy_with_logits(
        cen.float().reshape(batch, -1)[labels], centerness, reduction="sum"
    ) / max(1, len(centerness))
    cls_loss = 0.5 * _mean(cross_entropy[labels]) + 0.5 * _mean(cross_entropy[~labels])
    total = weights[0] * cls_loss + weights[1] * reg_loss + weights[2] * cen_loss
    return {"cls": cls_loss, "reg": reg_loss, "cen": cen_loss, "total": total}


def _mean(values: Tensor) -> Tensor:
    """The mean, 0 of nothing."""
    return values.sum() / max(1, values.numel())


def _iou_loss(distances: Tensor, wanted: Tensor) -> Tensor:
    """-log IoU of boxes given by (N, 4) distances l, t, r, b from a common point."""
    areas = [(d[:, 0] + d[:, 2]) * (d[:, 1] + d[:, 3]) for d in (distances, wanted)]
    least = torch.minimum(distances, wanted)
    overlap = (least[:, 0] + least[:, 2]) * (least[:, 1] + least[:, 3])
    return -torch.log((overlap + 1) / (areas[0] + areas[1] - overlap + 1))
