"""The calibration beside a network's weights: read with those weights only."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from siamcar_ros.networks import read_network_config
from siamcar_ros.resources import resource_path
from siamcar_ros.runtime.load import find_source
from siamcar_ros.runtime.source import Source

STEM = "siamcar_compact"
FITTED = {"alone": {"peak": 1.0}, "online": {"peak": 0.5, "constant": -1.0}}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    for suffix in (".safetensors", ".template.onnx", ".search.onnx"):
        shutil.copy(resource_path(f"models/{STEM}{suffix}"), tmp_path / f"{STEM}{suffix}")
    return tmp_path / f"{STEM}.safetensors"


def source(weights: Path) -> Source:
    return find_source(read_network_config("compact", weights))


def write(weights: Path, content: Any) -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    weights.with_name(f"{STEM}.calibration.json").write_text(text)


def test_it_is_read_with_its_weights_and_with_their_graphs(
    weights: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert source(weights).calibration() is None
    write(weights, {"weights": source(weights).fingerprint, "coefficients": FITTED})
    assert source(weights).calibration() == FITTED
    assert source(weights.with_name(f"{STEM}.search.onnx")).calibration() == FITTED
    write(weights, {"weights": "others", "coefficients": FITTED})
    with caplog.at_level(logging.WARNING):
        assert source(weights).calibration() is None
    assert "fitted for other weights" in caplog.text


@pytest.mark.parametrize(
    "content", ["", "[]", {"weights": "x"}, {"weights": "x", "coefficients": {"alone": {"a": "b"}}}]
)
def test_one_that_cannot_be_read_is_refused(weights: Path, content: Any) -> None:
    write(weights, content)
    with pytest.raises(ValueError, match=r"calibration\.json is not a readable .*: fit it again"):
        source(weights).calibration()


@pytest.mark.parametrize("name", ["compact", "mobile"])
def test_the_shipped_networks_have_theirs(name: str) -> None:
    fitted = find_source(read_network_config(name)).calibration()
    assert fitted is not None
    assert set(fitted) == {"alone", "online"}
