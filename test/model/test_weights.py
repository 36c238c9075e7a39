"""Weights in and out: published checkpoints, safetensors, and files that must be refused."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from siamcar_ros.model import (
    SiamCAR,
    WeightsError,
    build_model,
    load_weights,
    read_metadata,
    save_weights,
)


@pytest.fixture
def compact() -> SiamCAR:
    torch.manual_seed(7)
    return build_model("compact")


def _assert_equal(model: SiamCAR, state: dict[str, torch.Tensor]) -> None:
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key]), key


def _optimizer_with_numpy_scalars() -> dict[str, Any]:
    """As the authors' files have it: learning rates that numpy computed."""
    rates = np.logspace(np.log10(0.005), np.log10(0.0005), 3)
    return {
        "state": {},
        "param_groups": [
            {"lr": rates[0], "momentum": np.float32(0.9), "params": [0, 1]},
            {"lr": rates[1], "step": np.int64(4), "nesterov": np.bool_(False), "params": [2]},
        ],
    }


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "under state_dict"])
def test_checkpoint_forms(compact: SiamCAR, tmp_path: Path, prefix: str, wrapped: bool) -> None:
    state = {prefix + key: value for key, value in compact.state_dict().items()}
    content: Any = state
    if wrapped:
        content = {
            "epoch": 20,
            "state_dict": state,
            "optimizer": _optimizer_with_numpy_scalars(),
        }
    torch.save(content, tmp_path / "checkpoint.pth")
    torch.manual_seed(8)
    other = build_model("compact")
    load_weights(other, tmp_path / "checkpoint.pth")
    _assert_equal(other, compact.state_dict())


@pytest.mark.slow
def test_published_checkpoint_of_376_keys(
    tmp_path: Path, published_keys: dict[str, tuple[int, ...]], fixed_weights: Any
) -> None:
    arrays = fixed_weights.fill_np(published_keys)
    state = {"module." + key: torch.from_numpy(array) for key, array in arrays.items()}
    content = {"epoch": 20, "state_dict": state, "optimizer": _optimizer_with_numpy_scalars()}
    torch.save(content, tmp_path / "checkpoint_e20.pth")
    model = build_model("resnet50")
    load_weights(model, tmp_path / "checkpoint_e20.pth")
    for key, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), arrays[key])


class _Trap:
    """An object whose unpickling writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("form", ["zip", "legacy", "plain pickle"])
def test_a_malicious_pickle_is_refused_and_not_executed(
    compact: SiamCAR, tmp_path: Path, form: str
) -> None:
    sprung = tmp_path / "sprung"
    content = {"state_dict": dict(compact.state_dict()), "optimizer": _Trap(sprung)}
    path = tmp_path / "checkpoint.pth"
    if form == "plain pickle":
        path.write_bytes(pickle.dumps({"optimizer": _Trap(sprung)}))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    before = {key: value.clone() for key, value in compact.state_dict().items()}
    with pytest.raises(WeightsError, match="could execute code"):
        load_weights(compact, path)
    assert not sprung.exists()
    _assert_equal(compact, before)


def test_every_misfit_is_named(compact: SiamCAR, tmp_path: Path) -> None:
    state = dict(compact.state_dict())
    first, second, third, *_ = [key for key in state if key.endswith("weight")]
    del state[first]
    state[second] = torch.zeros(3)
    state["surplus.one"] = torch.zeros(1)
    state["surplus.two"] = torch.zeros(2, 2)
    torch.save(state, tmp_path / "wrong.pth")
    before = {key: value.clone() for key, value in compact.state_dict().items()}
    with pytest.raises(WeightsError) as caught:
        load_weights(compact, tmp_path / "wrong.pth")
    message = str(caught.value)
    assert f"missing: {first}" in message
    assert f"misshaped: {second} is (3,)" in message
    assert "unexpected: surplus.one (1,)" in message
    assert "unexpected: surplus.two (2, 2)" in message
    assert third not in message
    _assert_equal(compact, before)


def test_another_networks_weights_are_refused(compact: SiamCAR, tmp_path: Path) -> None:
    save_weights(compact, tmp_path / "compact.safetensors")
    with pytest.raises(WeightsError, match="does not fit the network 'alexnet'"):
        load_weights(build_model("alexnet"), tmp_path / "compact.safetensors")


def test_safetensors_there_and_back(compact: SiamCAR, tmp_path: Path) -> None:
    path = tmp_path / "compact.safetensors"
    save_weights(compact, path, {"recipe": "none", "score": "0.5"})
    metadata = read_metadata(path)
    assert metadata["recipe"] == "none"
    assert metadata["score"] == "0.5"
    torch.manual_seed(9)
    other = build_model("compact")
    assert load_weights(other, path)["recipe"] == "none"
    _assert_equal(other, compact.state_dict())


def test_missing_batch_counters_are_no_fault(compact: SiamCAR, tmp_path: Path) -> None:
    """Checkpoints of old PyTorch versions lack them."""
    state = {k: v for k, v in compact.state_dict().items() if "num_batches_tracked" not in k}
    torch.save(state, tmp_path / "old.pth")
    load_weights(build_model("compact"), tmp_path / "old.pth")


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth"])
@pytest.mark.parametrize("content", [b"", b"not weights at all", b"\x80\x04."])
def test_a_file_that_is_no_weights_file(
    compact: SiamCAR, tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=name):
        load_weights(compact, tmp_path / name)


def test_a_truncated_checkpoint(compact: SiamCAR, tmp_path: Path) -> None:
    path = tmp_path / "whole.pth"
    torch.save(compact.state_dict(), path)
    assert zipfile.is_zipfile(path)
    for suffix in ("pth", "safetensors"):
        if suffix == "safetensors":
            path = tmp_path / "whole.safetensors"
            save_weights(compact, path)
        cut = tmp_path / f"cut.{suffix}"
        cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(WeightsError, match="cut"):
            load_weights(compact, cut)


def test_a_checkpoint_without_a_state_dict(compact: SiamCAR, tmp_path: Path) -> None:
    torch.save({"epoch": 3, "best": 0.5}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="no state dict"):
        load_weights(compact, tmp_path / "other.pth")


def test_a_missing_file(compact: SiamCAR, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth"):
        load_weights(compact, tmp_path / "nowhere.pth")
