"""Targets and losses: against the published code's, and by their own definitions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from siamcar_ros.model import build_model
from siamcar_ros.training import make_targets, siamcar_loss

GOLDEN = Path(__file__).parents[2] / "../shared/golden/network_r50.npz"


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    if not GOLDEN.is_file():
        pytest.skip(f"no golden arrays at {GOLDEN}")
    with np.load(GOLDEN) as arrays:
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
    x: float, y: float, w: float, h: float, rule: str, grid: tuple[int, int]
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


@pytest.mark.parametrize(
    ("boxes", "rule", "message"),
    [(torch.zeros(2, 3), "center", r"\(B, 4\)"), (torch.zeros(2, 4), "middle", "'middle'")],
)
def test_targets_refuse(boxes: torch.Tensor, rule: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_targets(boxes, locations(), rule)


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


def test_options_change_the_regression_loss() -> None:
    cls, reg, cen = maps(4)
    cells = locations()
    weighted = siamcar_loss(cls, reg, cen, BOXES, cells, positives="box")
    plain = siamcar_loss(cls, reg, cen, BOXES, cells, positives="box", centerness_weighted=False)
    assert not torch.allclose(weighted["reg"], plain["reg"])
    doubled = siamcar_loss(cls, reg, cen, BOXES, cells, weights=(2.0, 6.0, 2.0))
    once = siamcar_loss(cls, reg, cen, BOXES, cells)
    assert torch.allclose(doubled["total"], 2 * once["total"])
