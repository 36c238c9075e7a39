"""The rate of a large matrix product, and the number of operations of a network."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from siamcar_ros.model import SiamCAR, fold_batchnorm
from siamcar_ros.runtime.graphs import example_inputs
from siamcar_ros.runtime.torch_network import DTYPES
from siamcar_ros.speed.measure import interleave

SIDE = {"cpu": 1024, "cuda": 8192}


def matrix_rate(precision: str, device: str) -> float:
    """Operations a second (twice the multiplications) of a large matrix product."""
    side = SIDE[device.partition(":")[0]]
    a, b = (torch.randn(side, side, device=device).to(DTYPES[precision]) for _ in range(2))

    def product() -> None:
        a @ b
        if device != "cpu":
            torch.cuda.synchronize(device)

    return 2.0 * side**3 / interleave({"": product}, 0.5)[""].median


def search_operations(model: SiamCAR) -> float:
    """The operations of the search branch for one frame: twice its multiplications."""
    folded = fold_batchnorm(model)
    z, x = example_inputs(folded, 1)
    with torch.no_grad():
        template = folded.template(z)
        with FlopCounterMode(display=False) as counter:
            folded(x, template)
    return float(counter.get_total_flops())
