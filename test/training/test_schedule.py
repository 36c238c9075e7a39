"""Rates against the authors' schedule, and what is frozen when."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from torch import nn

from siamcar_ros.model import SiamCAR, build_model
from siamcar_ros.training.recipe import Recipe, recipe_from_dict
from siamcar_ros.training.schedule import freeze, rate_factor, set_modes


def recipe(**sections: object) -> Recipe:
    return recipe_from_dict({"batch": 10, "data": {"pairs_per_epoch": 100}, **sections})


def test_log_schedule_is_the_authors() -> None:
    """0.001 to 0.005 in 5 epochs, by a constant factor; then 15 rates from 0.005 to 0.0005."""
    ours = recipe(epochs=20)
    rates = np.array([0.005 * rate_factor(ours, 10 * epoch) for epoch in range(20)])
    warmup = 0.001 * 5 ** (np.arange(5) / 5)
    assert np.allclose(rates, np.concatenate((warmup, np.geomspace(0.005, 0.0005, 15))))
    assert rate_factor(ours, 13) == rate_factor(ours, 10), "constant within an epoch"


def test_cosine_rises_stays_and_falls() -> None:
    schedule = {"kind": "cosine", "warmup_epochs": 1, "decay_epochs": 2, "final": 0.1}
    ours = recipe(epochs=6, schedule=schedule)
    factors = [rate_factor(ours, step) for step in range(60)]
    assert factors[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert factors[10:40] == pytest.approx([1.0] * 30)
    assert all(a > b for a, b in pairwise(factors[40:]))
    assert factors[50] == pytest.approx(0.55)
    assert factors[59] == pytest.approx(0.1, abs=0.01)


def test_cosine_without_a_plateau() -> None:
    ours = recipe(epochs=4, schedule={"kind": "cosine", "warmup_epochs": 0, "final": 0})
    assert rate_factor(ours, 0) == 1
    assert rate_factor(ours, 20) == pytest.approx(0.5)


def test_a_short_run_falls_from_the_full_rate() -> None:
    schedule = {"kind": "cosine", "warmup_epochs": 1, "decay_epochs": 60}
    ours = recipe(epochs=3, schedule=schedule)
    assert rate_factor(ours, 10) == pytest.approx(1)
    assert rate_factor(ours, 20) == pytest.approx(0.55)


PUBLISHED = {"frozen_epochs": 10, "train": ["layer2", "layer3", "layer4"], "lr_factor": 0.1}


def trained(model: SiamCAR) -> set[str]:
    named = model.backbone.named_parameters()
    return {name.split(".")[0] for name, parameter in named if parameter.requires_grad}


def learning_norms(model: SiamCAR) -> set[str]:
    modules = model.backbone.named_modules()
    return {n.split(".")[0] for n, m in modules if isinstance(m, nn.BatchNorm2d) and m.training}


def test_the_published_backbone_schedule() -> None:
    """Frozen for ten epochs, then the last three stages; conv1, bn1 and layer1 never."""
    ours = recipe(network="resnet34", backbone=PUBLISHED)
    model = build_model("resnet34")
    assert freeze(model.backbone, ours.backbone, 0)
    set_modes(model, ours, 0)
    assert trained(model) == learning_norms(model) == set()
    assert model.neck is not None
    assert all(p.requires_grad for p in model.neck.parameters())
    assert any(m.training for m in model.neck.modules() if isinstance(m, nn.BatchNorm2d))
    assert not freeze(model.backbone, ours.backbone, 9)
    assert freeze(model.backbone, ours.backbone, 10)
    set_modes(model, ours, 10)
    assert trained(model) == learning_norms(model) == {"layer2", "layer3", "layer4"}


def test_resuming_late_keeps_the_first_convolution_frozen() -> None:
    ours = recipe(network="resnet34", backbone=PUBLISHED)
    model = build_model("resnet34")
    freeze(model.backbone, ours.backbone, 15)
    set_modes(model, ours, 15)
    assert trained(model) == learning_norms(model) == {"layer2", "layer3", "layer4"}


def test_all_norms_frozen() -> None:
    ours = recipe(compute={"batchnorm": "frozen"})
    model = build_model("compact")
    set_modes(model, ours, 3)
    assert not any(m.training for m in model.modules() if isinstance(m, nn.BatchNorm2d))


def test_a_part_that_is_not_there_is_named() -> None:
    ours = recipe(backbone={"train": ["layer9"]})
    with pytest.raises(ValueError, match=r"layer9.*stage1"):
        freeze(build_model("compact").backbone, ours.backbone, 0)
