"""The reference of the benchmarks gives the published code's boxes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from references import reference

from benchmarks.published import PublishedTracker


class GivenMaps:
    """Answers with maps set from outside."""

    score_size = 25

    def __init__(self) -> None:
        self.maps: tuple[torch.Tensor, ...] = ()
        self.inputs: list[torch.Tensor] = []

    def eval(self) -> GivenMaps:
        return self

    def parameters(self) -> Iterator[torch.Tensor]:
        yield torch.zeros(1)

    def template(self, z: torch.Tensor) -> tuple[torch.Tensor, ...]:
        self.inputs.append(z)
        return (z,)

    def __call__(self, x: torch.Tensor, template: Any) -> tuple[torch.Tensor, ...]:
        self.inputs.append(x)
        return self.maps


@pytest.mark.parametrize("name", ["stub_UAV123", "stub_yaml"])
def test_boxes_are_the_published_ones(name: str) -> None:
    with np.load(reference("golden/decode.npz")) as golden:
        lr, penalty_k, window = golden[f"{name}_hp_lr_penaltyk_windowlr"].tolist()
        network: Any = GivenMaps()
        tracker = PublishedTracker(network, penalty_k, window, lr)
        image = np.full((480, 640, 3), 100, np.uint8)
        x, y, w, h = golden[f"{name}_box"].tolist()
        tracker.init(image, (x, y, w, h))
        for i, expected in enumerate(golden[f"{name}_bbox"]):
            network.maps = tuple(
                torch.from_numpy(golden[f"{name}_{part}"][i : i + 1])
                for part in ("cls", "loc", "cen")
            )
            np.testing.assert_allclose(tracker.update(image), expected, atol=1e-3, err_msg=str(i))


def test_the_search_square_is_padded_with_the_mean() -> None:
    network: Any = GivenMaps()
    s = np.indices((25, 25)) - 12
    bump = torch.from_numpy(np.exp(-(s**2).sum(0) / 9.0).astype(np.float32))
    network.maps = (
        torch.stack((-bump, bump))[None],
        torch.full((1, 4, 25, 25), 30.0),
        bump[None, None],
    )
    image = np.zeros((120, 160, 3), np.uint8)
    image[:, :80] = (10, 20, 30)
    image[:, 80:] = (50, 60, 70)
    tracker = PublishedTracker(network)
    tracker.init(image, (-10.0, 40.0, 40.0, 40.0))
    tracker.update(image)
    template, search = network.inputs
    assert template.shape == (1, 3, 127, 127)
    assert search.shape == (1, 3, 255, 255)
    # The left of both lies beyond the frame; its mean is (30, 40, 50).
    for crop in (template, search):
        assert crop[0, :, 100, 0].tolist() == pytest.approx([30, 40, 50], abs=1)
    assert search[0, :, 127, 127].tolist() == [10, 20, 30]
