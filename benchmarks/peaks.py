"""The peak arithmetic rate of a machine, and the number of operations of a network."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from siamcar_ros.model import SiamCAR, fold_batchnorm
from siamcar_ros.runtime.graphs import example_inputs
from siamcar_ros.runtime.torch_network import DTYPES
from siamcar_ros.speed.measure import interleave

SIDE = {"cpu": 1024, "cuda": 8192}


def matrix_multiply(precision: str, device: str) -> tuple[Callable[[], Any], float]:
    """The fastest large matrix product, and its operations (twice its multiplications).

    Tries PyTorch's product (int8: 8 x 8 bits to 32) and, except for int8, the equivalent 1x1
    convolution, which uses another library on many CPUs.
    """
    side = SIDE[device.partition(":")[0]]
    if precision == "int8":
        factors = [torch.randint(-64, 64, (side, side), dtype=torch.int8) for _ in range(2)]
        a, b = (factor.to(device) for factor in factors)
        calls = {"product": _waited_for(lambda: torch._int_mm(a, b), device)}
    else:
        a, b = (torch.randn(side, side, device=device).to(DTYPES[precision]) for _ in range(2))
        image, kernel = (
            part.contiguous(memory_format=torch.channels_last)
            for part in (a.T.reshape(1, side, side // 32, 32), b.T.reshape(side, side, 1, 1))
        )
        convolution = partial(torch.nn.functional.conv2d, image, kernel)
        calls = {
            "product": _waited_for(lambda: a @ b, device),
            "convolution": _waited_for(convolution, device),
        }
    timings = interleave(calls, 0.5)
    best = min(calls, key=lambda name: timings[name].median)
    return calls[best], 2.0 * side**3


def _waited_for(call: Callable[[], Any], device: str) -> Callable[[], Any]:
    """Make a call wait until the device has finished."""
    if device == "cpu":
        return call

    def call_and_wait() -> None:
        call()
        torch.cuda.synchronize(device)

    return call_and_wait


def search_operations(model: SiamCAR) -> float:
    """The operations of the search branch for one frame: twice its multiplications."""
    folded = fold_batchnorm(model)
    z, x = example_inputs(folded, 1)
    with torch.no_grad():
        template = folded.template(z)
        with FlopCounterMode(display=False) as counter:
            folded(x, template)
    return float(counter.get_total_flops())
