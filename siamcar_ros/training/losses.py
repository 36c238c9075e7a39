"""Targets (Eq. 3, 5, 6), losses and their sum (Eq. 4, 7, 8), and the loss against a teacher."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from siamcar_ros.options import check_choice

Positives: TypeAlias = Literal["center", "box"]
BoxLoss: TypeAlias = Literal["iou", "giou"]
Quality: TypeAlias = Literal["centerness", "iou"]
# A positive cell is farther from each side of the box than this share of the box's half size.
_INSET: dict[Positives, float] = {"center": 0.6, "box": 0.0}


class Targets(NamedTuple):
    """Targets for B boxes on N locations.

    ``labels`` (B, N) bool, the positive cells; ``distances`` (B, N, 4) float32 l, t, r, b in
    search pixels; ``centerness`` (B, N) float32 in [0, 1], 0 outside the box.
    """

    labels: Tensor
    distances: Tensor
    centerness: Tensor


def make_targets(boxes: Tensor, locations: Tensor, positives: Positives = "center") -> Targets:
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
    check_choice("positives", positives, _INSET)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes have the shape {tuple(boxes.shape)}; it must be (B, 4)")
    boxes = boxes.to(locations.dtype)
    low, high = boxes[:, None, :2], boxes[:, None, 2:]
    distances = torch.cat((locations - low, high - locations), -1)
    least = _INSET[positives] * (high - low) / 2
    labels = (distances > torch.cat((least, least), -1)).all(-1)
    middle = (low + high) / 2
    nearest = (locations - middle).square().sum(-1).argmin(1)
    empty = ~labels.any(1)
    labels = labels | (F.one_hot(nearest, len(locations)).bool() & empty[:, None])
    inside = distances.clamp(min=0)
    pairs = torch.stack((inside[..., 0::2], inside[..., 1::2]), -2)
    ratios = pairs.amin(-1) / pairs.amax(-1).clamp(min=1e-6)
    return Targets(labels, distances, ratios.prod(-1).sqrt())


def siamcar_loss(
    cls: Tensor,
    reg: Tensor,
    cen: Tensor,
    boxes: Tensor,
    locations: Tensor,
    *,
    positives: Positives = "center",
    balanced: bool = True,
    negative: Tensor | None = None,
    centerness_weighted: bool = True,
    box: BoxLoss = "iou",
    oversize: float = 0.0,
    quality: Quality = "centerness",
    weights: tuple[float, float, float] = (1.0, 3.0, 1.0),
    average: Callable[[Tensor], Tensor] | None = None,
) -> dict[str, Tensor]:
    """The losses of a batch.

    Args:
        cls: the network's foreground logits (B, 2, S, S).
        reg: its distances (B, 4, S, S), search pixels.
        cen: its centerness logits (B, 1, S, S).
        boxes: (B, 4) x1, y1, x2, y2 in search pixels.
        locations: (S*S, 2), the model's.
        positives: "center" (published code) or "box" (paper); see
            :func:`~siamcar_ros.training.make_targets`.
        balanced: positive and negative cells count by half in the cross-entropy (published code);
            False is the paper's plain mean.
        negative: (B,) bool, pairs whose search region lacks the target: all their cells are
            background and they have no box.
        centerness_weighted: weigh the box loss by the centerness target (published code);
            False is Eq. 4's plain mean.
        box: "iou" (published), -log IoU with areas plus 1; or "giou", 1 - GIoU (Rezatofighi et
            al., CVPR 2019).
        oversize: the box loss of a cell whose box is larger than the true one is multiplied by
            1 + `oversize`.
        quality: the target of the centerness branch: "centerness" of the positive cells
            (published), or "iou", the overlap of a cell's predicted box with the true one, for each
            cell inside the true box (as in IoU-Net and PAA), so that a bad box scores low.
        weights: of classification, regression and centerness in the sum (paper: 1, 3, 1).
        average: averages a tensor over the processes that share a batch. The sums are then divided
            by the counts of the whole batch, so that the averaged gradients equal those of a single
            process.

    Returns:
        scalars by name: ``cls`` (cross-entropy), ``reg`` (box loss), ``cen`` (binary cross-entropy)
        and ``total``.

    Raises:
        ValueError: an unknown `positives`, `box` or `quality`.
    """
    check_choice("box", box, _BOX_LOSS)
    check_choice("quality", quality, get_args(Quality))
    targets = make_targets(boxes, locations, positives)
    labels = targets.labels if negative is None else targets.labels & ~negative[:, None]
    # Masks, not selections: shapes stay fixed, and a GPU need not wait for their counts.
    shares = targets.centerness * labels if centerness_weighted else labels.float()
    cross_entropy = F.cross_entropy(cls.float().flatten(2), labels.long(), reduction="none")

    distances, wanted = reg.float().flatten(2).transpose(1, 2), targets.distances.clamp(min=0)
    box_loss = torch.where(labels, _BOX_LOSS[box](distances, wanted), 0) * shares
    if oversize:
        box_loss = box_loss * (1 + oversize * (_area(distances.detach()) > _area(wanted)))
    if quality == "iou":
        rated = (targets.distances > 0).all(-1) & labels.any(1, keepdim=True)
        ratings = _iou(distances.detach(), wanted)
    else:
        rated, ratings = labels, targets.centerness
    ratings = torch.where(rated, ratings, 0)
    entropy = F.binary_cross_entropy_with_logits(cen.float().flatten(1), ratings, reduction="none")

    positive = labels.sum()
    counts = torch.stack((positive, labels.numel() - positive, shares.sum(), rated.sum())).float()
    if average is not None:
        counts = average(counts)
    n_positive, n_negative, n_shares, n_rated = torch.where(
        counts > 0, counts, torch.ones_like(counts)
    )
    if balanced:
        cls_loss = (cross_entropy * torch.where(labels, 1 / n_positive, 1 / n_negative)).sum() / 2
    else:
        cls_loss = cross_entropy.sum() / counts[:2].sum()
    losses = {"cls": cls_loss, "reg": box_loss.sum() / n_shares}
    losses["cen"] = (entropy * rated).sum() / n_rated
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
    """The distance of maps from a teacher's (knowledge distillation, Hinton et al. 2015).

    The teacher's foreground probability is each cell's soft label. Foreground and background have
    equal weight in the cross-entropies of classification and centerness; centerness counts in the
    background, too, since decoders normalize it over the whole map. The -log IoU of the distances
    is weighted by the teacher's foreground probability times its centerness. The result is a
    scalar, the weighted sum; 0 if the maps equal the teacher's.

    `taught` are the teacher's cls, reg and cen, without gradients; the other arguments are those of
    :func:`siamcar_loss`.
    """
    cls_t, reg_t, cen_t = (part.float().flatten(2) for part in taught)
    logit, logit_t = cls.float().flatten(2).diff(dim=1).squeeze(1), cls_t.diff(dim=1).squeeze(1)
    share, centerness = logit_t.sigmoid(), cen_t.squeeze(1).sigmoid()
    inner = share * centerness
    sums = torch.stack((share.sum(), (1 - share).sum(), inner.sum()))
    if average is not None:
        sums = average(sums)
    sums = sums.clamp(min=1.0)  # at least one cell, if the teacher is sure of all
    halves = (share / sums[0] + (1 - share) / sums[1]) / 2
    cls_loss = (halves * _excess_entropy(logit, share)).sum()
    cen_loss = (halves * _excess_entropy(cen.float().flatten(1), centerness)).sum()
    distances = (part.transpose(1, 2).flatten(0, 1) for part in (reg.float().flatten(2), reg_t))
    reg_loss = (inner.flatten() * _iou_loss(*distances)).sum() / sums[2]
    return weights[0] * cls_loss + weights[1] * reg_loss + weights[2] * cen_loss


def _excess_entropy(logit: Tensor, wanted: Tensor) -> Tensor:
    """Binary cross-entropy minus its minimum (the divergence), cell by cell, (B, S*S)."""
    least = F.binary_cross_entropy(wanted, wanted, reduction="none")
    return F.binary_cross_entropy_with_logits(logit, wanted, reduction="none") - least


def _area(distances: Tensor) -> Tensor:
    """The areas of boxes given by (..., 4) distances l, t, r, b."""
    return (distances[..., 0] + distances[..., 2]) * (distances[..., 1] + distances[..., 3])


def _iou_loss(distances: Tensor, wanted: Tensor) -> Tensor:
    """-log IoU, areas plus 1, of boxes given by (..., 4) distances from a common point."""
    overlap = _area(torch.minimum(distances, wanted))
    return -torch.log((overlap + 1) / (_area(distances) + _area(wanted) - overlap + 1))


def _iou(distances: Tensor, wanted: Tensor) -> Tensor:
    """The overlap of boxes given as for :func:`_iou_loss`, in [0, 1]."""
    overlap = _area(torch.minimum(distances, wanted))
    return overlap / (_area(distances) + _area(wanted) - overlap).clamp(min=1e-6)


def _giou_loss(distances: Tensor, wanted: Tensor) -> Tensor:
    """1 - GIoU of boxes given as for :func:`_iou_loss`."""
    union = _area(distances) + _area(wanted) - _area(torch.minimum(distances, wanted))
    hull = _area(torch.maximum(distances, wanted)).clamp(min=1e-6)
    return 1 - _iou(distances, wanted) + (hull - union) / hull


_BOX_LOSS = {"iou": _iou_loss, "giou": _giou_loss}
