"""Targets and losses: against the published code's, and by their own definitions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from references import reference

from siamcar_ros.model import build_model
from siamcar_ros.training import make_targets, siamcar_loss, teacher_loss
from siamcar_ros.training.losses import Positives


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    with np.load(reference("golden/network_r50.npz")) as arrays:
        return {key: torch.as_tensor(arrays[key]) for key in arrays.files if "blocks" not in key}


def locations(score_size: int = 25, offset: int = 32) -> torch.Tensor:
    steps = offset + 8.0 * torch.arange(score_size)
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    return torch.stack((x, y), -1).reshape(-1, 2)


def test_targets_are_the_published_ones(golden: dict[str, torch.Tensor]) -> None:
    targets = make_targets(golden["loss_boxes"], golden["locations"])
    assert torch.equal(targets.labels.reshape(2, 25, 25).long(), golden["label_cls"])
    assert torch.allclose(targets.distances.reshape(2, 25, 25, 4), golden["reg_targets"])
    positive = targets.labels.reshape(2, 25, 25)
    assert torch.allclose(
        targets.centerness.reshape(2, 25, 25)[positive], golden["centerness_targets"][positive]
    )


def test_locations_are_the_published_ones(golden: dict[str, torch.Tensor]) -> None:
    assert torch.equal(build_model("resnet50").locations, golden["locations"])


def test_losses_are_the_published_ones(golden: dict[str, torch.Tensor]) -> None:
    losses = siamcar_loss(
        golden["eval_out_cls"],
        golden["eval_out_loc"],
        golden["eval_out_cen"],
        golden["loss_boxes"],
        golden["locations"],
    )
    for ours, theirs in {"cls": "cls", "reg": "loc", "cen": "cen", "total": "total"}.items():
        assert float(losses[ours]) == pytest.approx(float(golden[f"eval_{theirs}_loss"]), abs=1e-4)


sides = st.floats(1, 240)
corner = st.floats(-60, 250)


@settings(deadline=None)
@given(
    corner,
    corner,
    sides,
    sides,
    st.sampled_from(["center", "box"]),
    st.sampled_from([(25, 32), (17, 63)]),
)
def test_targets_by_their_definition(
    x: float, y: float, w: float, h: float, rule: Positives, grid: tuple[int, int]
) -> None:
    cells = locations(*grid)
    box = torch.tensor([[x, y, x + w, y + h]])
    targets = make_targets(box, cells, rule)
    assert targets.labels.any(), "every target has a positive cell"
    low, high = box[:, :2] + 0.0, box[:, 2:] + 0.0
    share = 0.3 if rule == "center" else 0.0
    margin = share * (high - low)
    inside = ((cells > low + margin) & (cells < high - margin)).all(1)
    if inside.sum() > 1:
        on_edge = (cells - low - margin).abs().min() + (cells - high + margin).abs().min() < 1e-3
        assert on_edge or torch.equal(targets.labels[0], inside)
    else:
        assert targets.labels.sum() == 1
    rebuilt = torch.cat(
        (cells - targets.distances[0, :, :2], cells + targets.distances[0, :, 2:]), 1
    )
    assert torch.allclose(rebuilt, box.expand_as(rebuilt), atol=1e-3)
    assert ((targets.centerness >= 0) & (targets.centerness <= 1)).all()
    outside = ~((cells > low) & (cells < high)).all(1)
    assert (targets.centerness[0, outside] == 0).all()


def test_paper_and_code_differ_in_what_is_positive() -> None:
    box = torch.tensor([[60.0, 60.0, 180.0, 140.0]])
    center = make_targets(box, locations(), "center").labels
    whole = make_targets(box, locations(), "box").labels
    assert (whole | center).equal(whole)
    assert whole.sum() > 4 * center.sum()


def test_targets_refuse_boxes_of_another_shape() -> None:
    with pytest.raises(ValueError, match=r"\(B, 4\)"):
        make_targets(torch.zeros(2, 3), locations())


def maps(batch: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    cls = torch.randn(batch, 2, 25, 25, generator=draw)
    reg = torch.rand(batch, 4, 25, 25, generator=draw) * 60 + 5
    cen = torch.randn(batch, 1, 25, 25, generator=draw)
    return cls, reg, cen


BOXES = torch.tensor(
    [[60.0, 60, 180, 140], [100, 90, 160, 170], [30, 40, 90, 230], [120, 120, 135, 131]]
)


def test_a_perfect_prediction_costs_nothing_but_centerness() -> None:
    cells = locations()
    targets = make_targets(BOXES, cells)
    cls = torch.stack((~targets.labels, targets.labels), 1).float().reshape(4, 2, 25, 25) * 60
    reg = targets.distances.clamp(min=0.1).transpose(1, 2).reshape(4, 4, 25, 25)
    cen = torch.logit(targets.centerness.clamp(1e-6, 1 - 1e-6)).reshape(4, 1, 25, 25)
    losses = siamcar_loss(cls, reg, cen, BOXES, cells)
    assert float(losses["cls"]) < 1e-6
    assert float(losses["reg"]) < 1e-5
    share = targets.centerness[targets.labels].clamp(1e-6, 1 - 1e-6)
    entropy = -(share * share.log() + (1 - share) * (1 - share).log()).mean()
    assert float(losses["cen"]) == pytest.approx(float(entropy), abs=1e-4)


def test_negative_pairs_are_background_only() -> None:
    cls, reg, cen = maps(4)
    cells = locations()
    some = torch.tensor([False, True, False, True])
    losses = siamcar_loss(cls, reg, cen, BOXES, cells, negative=some)
    alone = siamcar_loss(cls[::2], reg[::2], cen[::2], BOXES[::2], cells)
    assert torch.allclose(losses["reg"], alone["reg"])
    assert torch.allclose(losses["cen"], alone["cen"])
    none = siamcar_loss(cls, reg, cen, BOXES, cells, negative=torch.ones(4, dtype=torch.bool))
    background = torch.nn.functional.cross_entropy(cls, torch.zeros(4, 25, 25, dtype=torch.long))
    assert torch.allclose(none["cls"], background / 2)
    assert float(none["reg"]) == float(none["cen"]) == 0


def test_a_batch_shared_by_processes_has_the_gradients_of_one() -> None:
    cells, parts = locations(), [slice(0, 1), slice(1, 4)]
    whole = [m.requires_grad_() for m in maps(4)]
    siamcar_loss(whole[0], whole[1], whole[2], BOXES, cells)["total"].backward()

    counts: list[torch.Tensor] = []

    def collect(values: torch.Tensor) -> torch.Tensor:
        counts.append(values)
        return values

    cls, reg, cen = (m.requires_grad_() for m in maps(4))
    for part in parts:
        siamcar_loss(cls[part], reg[part], cen[part], BOXES[part], cells, average=collect)
    mean = torch.stack(counts).mean(0)
    for part in parts:
        losses = siamcar_loss(
            cls[part], reg[part], cen[part], BOXES[part], cells, average=lambda _: mean
        )
        (losses["total"] / len(parts)).backward()
    for one, other in zip(whole, (cls, reg, cen), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert torch.allclose(one.grad, other.grad, atol=1e-7)


def test_the_papers_cross_entropy_is_the_plain_mean() -> None:
    cls, reg, cen = maps(4)
    plain = siamcar_loss(cls, reg, cen, BOXES, locations(), balanced=False)
    labels = make_targets(BOXES, locations(), "center").labels.reshape(4, 25, 25).long()
    assert torch.allclose(plain["cls"], torch.nn.functional.cross_entropy(cls, labels))


def test_options_change_the_regression_loss() -> None:
    cls, reg, cen = maps(4)
    cells = locations()
    weighted = siamcar_loss(cls, reg, cen, BOXES, cells, positives="box")
    plain = siamcar_loss(cls, reg, cen, BOXES, cells, positives="box", centerness_weighted=False)
    assert not torch.allclose(weighted["reg"], plain["reg"])
    doubled = siamcar_loss(cls, reg, cen, BOXES, cells, weights=(2.0, 6.0, 2.0))
    once = siamcar_loss(cls, reg, cen, BOXES, cells)
    assert torch.allclose(doubled["total"], 2 * once["total"])


def test_a_teacher_is_agreed_with_by_its_own_maps_alone() -> None:
    taught, other = maps(2, 0), maps(2, 1)
    assert float(teacher_loss(*taught, taught)) == pytest.approx(0, abs=1e-6)
    mixed = (
        ((other[0], taught[1], taught[2]), (1.0, 0.0, 0.0), (0.0, 1.0, 1.0)),
        ((taught[0], other[1], taught[2]), (0.0, 1.0, 0.0), (1.0, 0.0, 1.0)),
        ((taught[0], taught[1], other[2]), (0.0, 0.0, 1.0), (1.0, 1.0, 0.0)),
    )
    for (cls, reg, cen), only, others in mixed:
        assert float(teacher_loss(cls, reg, cen, taught, weights=only)) > 0.05
        agreed = teacher_loss(cls, reg, cen, taught, weights=others)
        assert float(agreed) == pytest.approx(0, abs=1e-6)


def test_a_learner_arrives_at_its_teacher() -> None:
    taught = maps(2, 0)
    first = maps(2, 1)
    cls, log_reg, cen = first[0], first[1].log(), first[2]
    for part in (cls, log_reg, cen):
        part.requires_grad_()
    optimizer = torch.optim.Adam((cls, log_reg, cen), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        teacher_loss(cls, log_reg.exp(), cen, taught).backward()
        optimizer.step()
    wanted = taught[0].softmax(1)[:, 1]
    assert float((cls.detach().softmax(1)[:, 1] - wanted).abs().max()) < 0.05
    assert float((cen.detach().sigmoid() - taught[2].sigmoid()).abs().max()) < 0.05
    certain = (wanted > 0.5)[:, None].expand_as(log_reg)
    assert float((log_reg.detach().exp() / taught[1] - 1)[certain].abs().max()) < 0.1


def test_where_the_teacher_sees_no_target_its_boxes_do_not_count() -> None:
    cls, reg, cen = maps(2, 0)
    cls[:, 0], cls[:, 1] = 40.0, -40.0
    cls[0, :, 3, 4] = torch.tensor([-40.0, 40.0])
    changed = reg * 2
    changed[0, :, 3, 4] = reg[0, :, 3, 4]
    assert float(teacher_loss(cls, changed, cen, (cls, reg, cen))) == pytest.approx(0, abs=1e-6)


def test_a_teacher_that_sees_no_target_at_all_teaches_no_boxes() -> None:
    cls, reg, cen = maps(2, 0)
    sure = torch.tensor([60.0, -60.0])[:, None, None].expand_as(cls).contiguous()
    assert float(teacher_loss(sure, reg * 2, cen, (sure, reg, cen))) == pytest.approx(0, abs=1e-6)
    assert float(teacher_loss(-sure, reg, cen, (sure, reg, cen))) > 10


def test_a_batch_shared_by_processes_weighs_as_one() -> None:
    taught, own = maps(2, 0), maps(2, 1)
    whole = teacher_loss(*own, taught)
    seen: list[torch.Tensor] = []

    def note(sums: torch.Tensor) -> torch.Tensor:
        seen.append(sums)
        return sums

    def half(i: int, average: Callable[[torch.Tensor], torch.Tensor]) -> float:
        (cls, reg, cen), (cls_t, reg_t, cen_t) = own, taught
        part = slice(i, i + 1)
        theirs = (cls_t[part], reg_t[part], cen_t[part])
        return float(teacher_loss(cls[part], reg[part], cen[part], theirs, average=average))

    for i in range(2):
        half(i, note)
    mean = torch.stack(seen).mean(0)
    shared = [half(i, lambda _: mean) for i in range(2)]
    assert sum(shared) / 2 == pytest.approx(float(whole), rel=1e-5)


def _maps(distances: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Maps of one pair whose cells all predict the (N, 4) distances; logits of 0."""
    reg = distances.T.reshape(1, 4, 25, 25)
    return torch.zeros(1, 2, 25, 25), reg, torch.zeros(1, 1, 25, 25)


def test_giou_is_its_definition() -> None:
    """Of two boxes about one point: 40x40 around the true 20x20, and 20x20 beside it."""
    true = torch.tensor([[118.0, 118.0, 138.0, 138.0]])  # about the middle cell, (128, 128)
    around = torch.full((625, 4), 20.0)
    loss = siamcar_loss(*_maps(around), true, locations(), box="giou")["reg"]
    assert float(loss) == pytest.approx(1 - 400 / 1600, abs=1e-5)  # the hull is the larger box
    beside = torch.tensor([0.0, 0.0, 30.0, 10.0]).expand(625, 4)  # overlap 10x10, hull 40x20
    loss = siamcar_loss(*_maps(beside), true, locations(), box="giou")["reg"]
    union, hull = 400 + 300 - 100, 40 * 20
    assert float(loss) == pytest.approx(1 - 100 / union + (hull - union) / hull, abs=1e-5)


def test_the_quality_of_a_cell_is_its_boxs_overlap() -> None:
    true = torch.tensor([[100.0, 104.0, 156.0, 152.0]])
    where = locations()
    low, high = true[:, :2], true[:, 2:]
    exact = torch.cat((where - low, high - where), 1)
    inside = (exact > 0).all(1)
    swollen = exact + 10  # by 10 pixels on each side
    overlap = 56 * 48 / (76 * 68)
    expected = torch.nn.functional.binary_cross_entropy(
        torch.full((1,), 0.5), torch.tensor([overlap])
    )
    cls, reg, cen = _maps(swollen)
    reg.requires_grad_()
    cen.requires_grad_()
    losses = siamcar_loss(cls, reg, cen, true, where, quality="iou")
    assert float(losses["cen"].detach()) == pytest.approx(float(expected), abs=1e-5)
    losses["cen"].backward()
    assert reg.grad is None  # the box is not drawn to its own rating
    assert cen.grad is not None
    # Drawn up where the overlap is above sigmoid(0), for all cells inside, and for no other.
    assert torch.equal(cen.grad.flatten() < 0, inside & (torch.tensor(overlap) > 0.5))
    absent = siamcar_loss(cls, reg, cen, true, where, quality="iou", negative=torch.tensor([True]))
    assert float(absent["cen"].detach()) == 0


def test_a_box_that_is_too_large_costs_more() -> None:
    true = torch.tensor([[118.0, 118.0, 138.0, 138.0]])
    for side, factor in ((12.0, 1.5), (8.0, 1.0)):
        maps = _maps(torch.full((625, 4), side))
        plain = siamcar_loss(*maps, true, locations())["reg"]
        dear = siamcar_loss(*maps, true, locations(), oversize=0.5)["reg"]
        assert float(dear) == pytest.approx(factor * float(plain), rel=1e-6)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"positives": "middle"}, "positives is one of center, box, not 'middle'"),
        ({"box": "diou"}, "box is one of iou, giou, not 'diou'"),
        ({"quality": "overlap"}, "quality is one of centerness, iou, not 'overlap'"),
    ],
)
def test_unknown_rules_are_refused(option: dict[str, Any], message: str) -> None:
    maps = _maps(torch.full((625, 4), 8.0))
    with pytest.raises(ValueError, match=message):
        siamcar_loss(*maps, torch.tensor([[118.0, 118.0, 138.0, 138.0]]), locations(), **option)
