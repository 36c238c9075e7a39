"""A network that answers with given maps, and frames to go with it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray


class GivenMaps:
    """A network whose maps are set from outside; it keeps what it was called with."""

    stride = 8

    def __init__(self, score_size: int = 25, offset: int = 32) -> None:
        self.score_size = score_size
        self.offset = offset
        self.maps: Any = None
        self.inputs: list[NDArray[np.float32]] = []
        self.templates: list[NDArray[np.float32]] = []

    def template(self, z: Any) -> tuple[NDArray[np.float32]]:
        self.templates.append(np.asarray(z).copy())
        return (self.templates[-1].mean((2, 3), keepdims=True),)

    def __call__(self, x: Any, template: Any) -> Any:
        self.inputs.append(np.asarray(x).copy())
        return self.maps

    def show(
        self,
        size: tuple[float, float],
        *,
        column: float | None = None,
        row: float | None = None,
        logit: float = 6.0,
    ) -> None:
        """Answer with one target of a width and height in search pixels, mid-map by default."""
        s = self.score_size
        y, x = np.indices((s, s))
        middle = (s - 1) / 2
        column, row = (middle if place is None else place for place in (column, row))
        squared = (y - row) ** 2 + (x - column) ** 2
        bump, point = np.exp(-squared / 6.0), np.exp(-squared / 1.5)
        cls = np.stack((np.zeros((s, s)), (logit + 6) * bump - 6))
        w, h = size
        reg = np.empty((4, s, s))
        # Where the box's sides lie as seen from each cell.
        reg[0], reg[2] = w / 2 + 8 * (x - column), w / 2 - 8 * (x - column)
        reg[1], reg[3] = h / 2 + 8 * (y - row), h / 2 - 8 * (y - row)
        self.maps = tuple(
            part[None].astype(np.float32) for part in (cls, reg.clip(0.1), 3 * point[None])
        )


@pytest.fixture(scope="session")
def given_maps() -> type[GivenMaps]:
    return GivenMaps


@pytest.fixture
def network() -> GivenMaps:
    return GivenMaps()


@pytest.fixture
def frame() -> NDArray[np.uint8]:
    """(480, 640, 3), every pixel another."""
    rng = np.random.default_rng(7)
    return rng.integers(0, 256, (480, 640, 3), np.uint8)
