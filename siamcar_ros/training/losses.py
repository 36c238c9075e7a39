"""The three losses of SiamCAR and their weighted sum (Eq. 4, 7 and 8), and a teacher's."""

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
    balanced: bool = True,
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
        balanced: positive and negative cells count by half in the cross-entropy (published code);
            False is the paper's plain mean.
        negative: (B,) bool, pairs whose search region lacks the target: all their cells are
            background and they have no box.
        centerness_weighted: weigh the IoU loss by the centerness target (published code);
            False is Eq. 4's plain mean.
        weights: of classification, regression and centerness in the sum (paper: 1, 3, 1).
        average: where several processes share a batch, what averages a tensor over them. The sums
            are then divided by the whole batch's counts, so that the averaged gradients are those
            of one process.

    Returns:
        scalars by name: ``cls`` (cross-entropy), ``reg`` (-log IoU, areas plus 1), ``cen`` (binary
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
    if balanced:
        halves = cross_entropy[labels].sum() / n_positive, cross_entropy[~labels].sum() / n_negative
        cls_loss = sum(halves) / 2
    else:
        cls_loss = cross_entropy.sum() / counts[:2].sum()
    losses = {"cls": cls_loss, "reg": iou_loss.sum() / n_shares, "cen": cen_sum / n_positive}
    total = sum(weight * loss for weight, loss in zip(weights, losses.values(), strict=True))
    return {**losses, "total": torch.as_tensor(total)}


def teacher_loss(
    cls: Tensor,
    reg: Tensor,
    cen: Tensor,
    taught: tuple[Tensor, Tensor, Tensor],
    *,
    weights: tuple[float, float, float] = (1.0, 3.0, 1.0),
    average: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """How far a network's maps are from a teacher's (knowledge distillation, Hinton et al. 2015).

    Each cell is foreground by as much as the teacher takes it for. Foreground and background count
    by half in the cross-entropies of classification and centerness; the centerness matters in the
    background, too, since decoders stretch it over the whole map. The distances' -log IoU counts
    by the teacher's foreground probability times its centerness.

    Args:
        cls: foreground logits (B, 2, S, S).
        reg: distances (B, 4, S, S), search pixels.
        cen: centerness logits (B, 1, S, S).
        taught: the teacher's cls, reg and cen, of the same shapes, without gradients.
        weights: of classification, regression and centerness.
        average: as for :func:`siamcar_loss`.

    Returns:
        a scalar, the weighted sum; 0 where the maps are the teacher's.
    """
    cls_t, reg_t, cen_t = (part.float().flatten(2) for part in taught)
    logit, logit_t = cls.float().flatten(2).diff(dim=1).squeeze(1), cls_t.diff(dim=1).squeeze(1)
    share, centerness = logit_t.sigmoid(), cen_t.squeeze(1).sigmoid()
    inner = share * centerness
    sums = torch.stack((share.sum(), (1 - share).sum(), inner.sum()))
    if average is not None:
        sums = average(sums)
    sums = sums.clamp(min=1.0)  # where the teacher is sure of all cells, a cell's worth
    halves = (share / sums[0] + (1 - share) / sums[1]) / 2
    cls_loss = (halves * _excess_entropy(logit, share)).sum()
    cen_loss = (halves * _excess_entropy(cen.float().flatten(1), centerness)).sum()
    distances = (part.transpose(1, 2).flatten(0, 1) for part in (reg.float().flatten(2), reg_t))
    reg_loss = (inner.flatten() * _iou_loss(*distances)).sum() / sums[2]
    return weights[0] * cls_loss + weights[1] * reg_loss + weights[2] * cen_loss


def _excess_entropy(logit: Tensor, wanted: Tensor) -> Tensor:
    """Binary cross-entropy less its least value, cell by cell, (B, S*S) both: the divergence."""
    least = F.binary_cross_entropy(wanted, wanted, reduction="none")
    return F.binary_cross_entropy_with_logits(logit, wanted, reduction="none") - least


def _iou_loss(distances: Tensor, wanted: Tensor) -> Tensor:
    """-log IoU of boxes given by (N, 4) distances l, t, r, b from a common point."""
    areas = [(d[:, 0] + d[:, 2]) * (d[:, 1] + d[:, 3]) for d in (distances, wanted)]
    least = torch.minimum(distances, wanted)
    overlap = (least[:, 0] + least[:, 2]) * (least[:, 1] + least[:, 3])
    return -torch.log((overlap + 1) / (areas[0] + areas[1] - overlap + 1))
