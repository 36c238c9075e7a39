"""Inputs of a network as the backends take them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from siamcar_ros.model import SiamCAR
from siamcar_ros.runtime.graphs import example_inputs

Array = NDArray[np.float32]


def arrays(model: SiamCAR, batch: int, seed: int = 0) -> tuple[Array, Array]:
    """Templates and search regions."""
    z, x = example_inputs(model, batch, seed)
    return z.numpy(), x.numpy()
