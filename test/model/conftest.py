"""The reference outputs, and the weights behind them."""

from __future__ import annotations

import importlib.util
import json
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from references import reference

from siamcar_ros.model import SiamCAR, build_model


@pytest.fixture(scope="session")
def fixed_weights() -> ModuleType:
    """The module that gives each tensor from its key and shape."""
    spec = importlib.util.spec_from_file_location(
        "fixed_weights", reference("golden/fixed_weights.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def published_keys() -> dict[str, tuple[int, ...]]:
    content: dict[str, list[int]] = json.loads(reference("golden/keys_r50.json").read_text())
    return {key: tuple(shape) for key, shape in content.items()}


@pytest.fixture(scope="session")
def backbone_keys() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(reference("golden/keys_backbones.json").read_text())
    return content


@pytest.fixture(scope="session")
def network_arrays() -> dict[str, np.ndarray]:
    with np.load(reference("golden/network_r50.npz")) as arrays:
        return {key: arrays[key] for key in arrays.files}


@pytest.fixture(scope="session")
def golden_model(fixed_weights: ModuleType) -> SiamCAR:
    """ResNet-50 with the fixed weights, in evaluation mode; not to be changed."""
    model = build_model("resnet50").eval()
    model.load_state_dict(fixed_weights.fill(model.state_dict()))
    return model


@pytest.fixture(scope="session")
def images() -> tuple[torch.Tensor, torch.Tensor]:
    """Two templates and two search regions."""
    random = torch.Generator().manual_seed(3)
    z = torch.randint(0, 256, (2, 3, 127, 127), generator=random).float()
    x = torch.randint(0, 256, (2, 3, 255, 255), generator=random).float()
    return z, x
