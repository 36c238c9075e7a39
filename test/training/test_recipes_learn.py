"""The published networks' recipes lower the loss from random weights, on one pair, on a CPU."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from siamcar_ros.resources import resource_path
from siamcar_ros.runtime.graphs import example_inputs
from siamcar_ros.training import load_recipe, siamcar_loss
from siamcar_ros.training.build import Siamese, autocast, build_network, build_optimizer

_STEPS = 3
_DEVICE = torch.device("cpu")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("recipe", ["siamcar_alexnet", "siamcar_r34", "siamcar_r50"])
def test_a_few_steps_lower_the_loss(recipe: str) -> None:
    settings = ["variant=code", "backbone.frozen_epochs=0", "compute.precision=bf16"]
    told = load_recipe(resource_path(f"config/train/{recipe}.yaml"), settings)
    model = build_network(told, _DEVICE).train()
    network, optimizer = Siamese(model), build_optimizer(model, told)
    z, x = example_inputs(model, 1)
    boxes = torch.tensor([[90.0, 100.0, 160.0, 150.0]])
    losses = []
    for _ in range(_STEPS):
        with autocast(told, _DEVICE):
            cls, reg, cen = network(z, x)
        loss = siamcar_loss(cls, reg, cen, boxes, model.locations)["total"]
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), told.optimizer.clip)
        assert math.isfinite(norm)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0], losses
