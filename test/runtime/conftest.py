"""Small stand-ins with normalized random weights, and a cache of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from siamcar_ros.model import SiamCAR, build_model, save_weights
from siamcar_ros.runtime.graphs import example_inputs


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Converted graphs go to a folder of this test run, not to the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


def seeded(name: str) -> SiamCAR:
    """Random weights whose activations are of unit order, as trained ones are."""
    torch.manual_seed(4)
    model = build_model(name).train()
    for part in model.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = None
    with torch.no_grad():
        z, x = example_inputs(model, 2)
        model(x, model.template(z))
    return model.eval()


@pytest.fixture(scope="session")
def compact() -> SiamCAR:
    """Not to be changed."""
    return seeded("compact")


@pytest.fixture(scope="session")
def alexnet() -> SiamCAR:
    """Not to be changed; its maps are 17x17."""
    return seeded("alexnet")


@pytest.fixture(scope="session")
def weights(compact: SiamCAR, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "compact.safetensors"
    save_weights(compact, path, {})
    return path
