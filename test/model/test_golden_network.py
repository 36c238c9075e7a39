"""The network against outputs of the published code with the same weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from siamcar_ros.model import SiamCAR, build_model, fold_batchnorm

ATOL = {"cls": 1e-4, "loc": 5e-4, "cen": 1e-4}


def _assert_equal_maps(
    maps: tuple[torch.Tensor, ...], arrays: dict[str, np.ndarray], prefix: str
) -> None:
    for got, name in zip(maps, ("cls", "loc", "cen"), strict=True):
        expected = arrays[prefix + name]
        assert got.shape == expected.shape
        np.testing.assert_allclose(got.numpy(), expected, rtol=0, atol=ATOL[name], err_msg=name)


@pytest.mark.parametrize(
    ("inputs", "outputs"), [("", ""), ("blocks_", "blocks_"), ("loss_", "eval_out_")]
)
@pytest.mark.slow
def test_outputs_equal_the_published_codes(
    golden_model: SiamCAR, network_arrays: dict[str, np.ndarray], inputs: str, outputs: str
) -> None:
    z = torch.from_numpy(network_arrays[inputs + "template"])
    x = torch.from_numpy(network_arrays[inputs + "search"])
    with torch.inference_mode():
        maps = golden_model(x, golden_model.template(z))
    _assert_equal_maps(maps, network_arrays, outputs)


@pytest.mark.slow
def test_folded_outputs_equal_the_published_codes(
    golden_model: SiamCAR, network_arrays: dict[str, np.ndarray]
) -> None:
    folded = fold_batchnorm(golden_model)
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in folded.modules())
    with torch.inference_mode():
        template = folded.template(torch.from_numpy(network_arrays["blocks_template"]))
        maps = folded(torch.from_numpy(network_arrays["blocks_search"]), template)
    _assert_equal_maps(maps, network_arrays, "blocks_")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("precision", "bound"), [("fp32", 0.02), ("fp16", 0.02), ("bf16", 0.1)])
def test_a_gpus_outputs_are_near_the_published_codes(
    golden_model: SiamCAR, network_arrays: dict[str, np.ndarray], precision: str, bound: float
) -> None:
    """By the relative distance of each map, the distances' by their logarithms."""
    from siamcar_ros.runtime import load_network

    network = load_network(golden_model, device="cuda", precision=precision)
    for prefix in ("", "blocks_"):
        z, x = network_arrays[prefix + "template"], network_arrays[prefix + "search"]
        for got, name in zip(network(x, network.template(z)), ("cls", "loc", "cen"), strict=True):
            expected, found = network_arrays[prefix + name], got
            if name == "loc":
                expected, found = np.log(expected), np.log(found)
            spread = np.linalg.norm(expected - expected.mean())
            assert np.linalg.norm(found - expected) <= bound * spread, (prefix, name)


def test_response_after_the_reduction(
    golden_model: SiamCAR, network_arrays: dict[str, np.ndarray]
) -> None:
    seen: list[torch.Tensor] = []
    hook = golden_model.down.register_forward_hook(lambda module, inputs, out: seen.append(out))
    try:
        with torch.inference_mode():
            template = golden_model.template(torch.from_numpy(network_arrays["template"]))
            golden_model(torch.from_numpy(network_arrays["search"]), template)
    finally:
        hook.remove()
    # Values of some thousands, sums of products of both signs.
    expected = network_arrays["response"]
    np.testing.assert_allclose(
        seen[0].numpy(), expected, rtol=0, atol=1e-5 * np.abs(expected).max()
    )


def test_locations(golden_model: SiamCAR, network_arrays: dict[str, np.ndarray]) -> None:
    np.testing.assert_array_equal(golden_model.locations.numpy(), network_arrays["locations"])


def test_the_376_published_keys(published_keys: dict[str, tuple[int, ...]]) -> None:
    assert len(published_keys) == 376
    state = build_model("resnet50").state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == published_keys


@pytest.mark.parametrize("name", ["resnet50", "resnet34", "alexnet"])
def test_backbone_keys_and_feature_sizes(name: str, backbone_keys: dict[str, Any]) -> None:
    reference = backbone_keys[name]
    backbone = build_model(name).eval().backbone
    state = {key: list(value.shape) for key, value in backbone.state_dict().items()}
    expected = dict(reference["keys"])
    assert state == expected
    for size, shapes in reference["feature_sizes"].items():
        with torch.inference_mode():
            features = backbone(torch.zeros(1, 3, int(size), int(size)))
        assert [list(feature.shape) for feature in features] == shapes
