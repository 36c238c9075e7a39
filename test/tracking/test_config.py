"""Configurations: what is read, what is refused, and what a tracker is built from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from siamcar_ros.model import MODEL_NAMES, build_model, save_weights
from siamcar_ros.tracking import MultiTracker, SiamCarTracker, TrackerParams, read_config


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "fresh.safetensors"
    save_weights(build_model("compact"), path)
    return path


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_every_network_has_a_configuration(name: str, weights: Path) -> None:
    config = read_config(name, weights)
    assert config.network.name == name
    assert config.weights == weights


def test_overrides_count_more_than_the_file(tmp_path: Path, weights: Path) -> None:
    path = write(tmp_path, "network: compact\ntracker: {decoder: paper, lr: 0.5}\n")
    config = read_config(path, knobs={"lr": 0.9})
    assert config.weights is None
    assert config.params == TrackerParams(decoder="paper", lr=0.9)


def test_weights_lie_beside_the_file(tmp_path: Path, weights: Path) -> None:
    (tmp_path / "own.safetensors").write_bytes(weights.read_bytes())
    path = write(tmp_path, "network: compact\nweights: own.safetensors\n")
    assert read_config(path).weights == tmp_path / "own.safetensors"


@pytest.mark.parametrize("tracker", [SiamCarTracker, MultiTracker])
def test_a_tracker_is_built_from_a_configuration(tracker: Any, weights: Path) -> None:
    built = tracker.from_config("compact", weights=weights, device="cpu", penalty_k=0.3)
    assert built.params.penalty_k == 0.3
    assert built.network.score_size == 25


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("network: compact\nweight: x\n", "weight is unknown; did you mean"),
        ("network: compact\ntracker: {lrate: 1}\n", "lrate is unknown; did you mean "),
        ("network: compact\ntracker: {lr: 2}\n", "lr must be from 0 to 1, not 2"),
        ("network: compact\ntracker: [1]\n", "by name"),
        ("weights: null\n", "'network' must name one"),
        ("- compact\n", "holds no keys"),
        ("network: [\n", "not valid YAML"),
        ("network: compact\nweights: 3\n", "path of a file"),
    ],
)
def test_bad_files_are_refused_with_what_is_wrong(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_config(write(tmp_path, text))


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nano.*alexnet, compact, mobile, resnet34, resnet50"):
        read_config("nano")
    with pytest.raises(FileNotFoundError, match=r"there\.yaml"):
        read_config(tmp_path / "there.yaml")
    with pytest.raises(FileNotFoundError, match=r"none\.pth"):
        read_config("compact", tmp_path / "none.pth")
    path = write(tmp_path, "network: compact\nweights: gone.safetensors\n")
    assert read_config(path).params == TrackerParams()
    with pytest.raises(FileNotFoundError, match=r"gone\.safetensors"):
        SiamCarTracker.from_config(path)
    with pytest.raises(ValueError, match="lrate is unknown; did you mean "):
        SiamCarTracker.from_config("resnet50", lrate=1)
