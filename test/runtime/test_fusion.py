"""Convolutions joined with what follows them compute the same, on the CPU."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.contestants import random_model
from siamcar_ros.model import MODEL_NAMES, SiamCAR
from siamcar_ros.runtime import DeviceError, Placement, cuda_graph_network
from siamcar_ros.runtime.export import difference
from siamcar_ros.runtime.fusion import INPUT_CHANNELS, FusedConv, fuse_, fused
from siamcar_ros.runtime.graphs import SearchGraph, TemplateGraph, example_inputs
from siamcar_ros.runtime.torch_network import prepared


def widened(images: Tensor) -> Tensor:
    return F.pad(images, (0, 0, 0, 0, 0, INPUT_CHANNELS - 3))


@pytest.mark.parametrize("name", MODEL_NAMES)
@pytest.mark.slow
def test_a_fused_network_gives_the_models_maps(name: str) -> None:
    model = random_model(name)
    z, x = example_inputs(model, 1)
    ready = prepared(model, "cpu", "fp32")
    template, search = (graph(ready, banded=False) for graph in (TemplateGraph, SearchGraph))
    with torch.inference_mode():
        expected = model(x, model.template(z))
        fuse_(ready, "cudnn")
        got = search(widened(x), *template(widened(z)))[:3]
    assert difference(expected, got) <= 1e-3


def test_every_rectified_convolution_and_residual_of_resnet_is_joined() -> None:
    ready = prepared(random_model("resnet50"), "cpu", "fp32")
    joined = fused(ready.backbone, by_cudnn=True)
    convolutions = [part for part in joined.modules() if isinstance(part, FusedConv)]
    assert len(convolutions) == 53
    assert sum(part.by_cudnn for part in convolutions) == 49
    assert not [part for part in joined.modules() if isinstance(part, nn.ReLU)]
    assert isinstance(joined, torch.fx.GraphModule)
    assert " + " not in joined.code


class _Block(nn.Module):
    """What must be left as it is beside what is to be joined."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.six = nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        twice = self.first(x)  # read twice: its bare value is wanted, too
        linear = self.second(twice)
        return self.six(linear + twice) + twice


class _Forking(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_values_that_are_read_twice_are_kept() -> None:
    torch.manual_seed(0)
    block = _Block().eval()
    x = 3 * torch.randn(2, 8, 9, 9)
    with torch.inference_mode():
        assert torch.allclose(fused(block)(x), block(x), atol=1e-5)


def test_what_depends_on_values_is_left_alone() -> None:
    module = _Forking()
    assert fused(module) is module


def test_unknown_kernels_are_refused(compact: SiamCAR) -> None:
    with pytest.raises(DeviceError, match="plain, triton, cudnn, not 'fast'"):
        cuda_graph_network.CudaGraphNetwork(
            compact, Placement("cudagraph", "cpu", "fp32", ""), "fast"
        )


@pytest.mark.parametrize("kernels", ["plain", "cudnn", None])
def test_recordings_read_what_is_shown_to_them(
    compact: SiamCAR, monkeypatch: pytest.MonkeyPatch, kernels: str | None
) -> None:
    """The bookkeeping of CUDA graphs, on a CPU: a recording is played by running its graph."""

    class Recording:
        def __init__(self, graph: Any, inputs: Any, batch: int, *_: Any) -> None:
            self.inputs, self.graph, self.batch = inputs, graph, batch

        def replay(self, features: bool) -> list[Tensor]:
            levels = (level[: self.batch] for level in self.inputs.template)
            *maps, reduced = self.graph(self.inputs.x[: self.batch], *levels)
            return [torch.cat(maps, 1), reduced][: 1 + features]

    monkeypatch.setattr(cuda_graph_network, "_Recording", Recording)
    for name in ("Stream", "Event", "graph_pool_handle", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, MagicMock())
    for name in ("device", "stream"):
        monkeypatch.setattr(torch.cuda, name, lambda _: contextlib.nullcontext())
    place_of = Placement("cudagraph", "cpu", "fp32", "as asked")
    network: Any = cuda_graph_network.CudaGraphNetwork(compact, place_of, kernels)
    if kernels is None:
        assert "kernels, of plain" in network.reason
    z, x = example_inputs(compact, 5, seed=4)
    tracks = [network.template(z[i : i + 1]) for i in range(5)]
    with torch.inference_mode():
        expected = compact(x, compact.template(z))
    for shown in ([0], [1], [0, 1, 2], [3, 4], [0], [0, 1, 2, 3, 4], [4, 3], [2, 1, 0], [2]):
        template = tuple(
            torch.cat(level) for level in zip(*(tracks[i] for i in shown), strict=True)
        )
        for _ in range(2):
            got = network(x[shown], template)
            assert difference(tuple(part[shown] for part in expected), got) <= 1e-3
    first = network(x[[0, 0]], tracks[0])
    assert difference(tuple(part[[0, 0]] for part in expected), first) <= 1e-3
    maps, features = network.observe(x[:1], tracks[0])
    with torch.inference_mode():
        response = compact.response(x[:1], compact.template(z[:1]))
    assert difference(tuple(part[:1] for part in expected), maps) <= 1e-3
    np.testing.assert_allclose(features, response, atol=1e-3 * float(response.abs().max()))


triton_only = pytest.mark.skipif(
    find_spec("triton") is None, reason="the package triton is not installed"
)


@triton_only
@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp32"])
@pytest.mark.parametrize("capability", [75, 87, 90])
def test_triton_kernels_compile_for_gpus_that_are_not_here(
    precision: str, capability: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if (precision, capability) == ("bf16", 75):
        pytest.skip("these GPUs have no bfloat16")
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from siamcar_ros.runtime import triton_kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    for kernel, constants in (
        (triton_kernels._epilogue, {"has_residual": True, "activation": 2, "block": 1024}),
        (triton_kernels._group_norm_relu, {"width": 8, "block": 1024}),
        (
            triton_kernels._correlation,
            {"height": 7, "width": 7, "block_columns": 32, "block_channels": 64},
        ),
    ):
        pointers = {"maps", "bias", "residual", "scale", "shift", "out", "kernels"}
        names = [parameter.name for parameter in kernel.params]
        types = {name: f"*{precision}" if name in pointers else "i32" for name in names}
        types |= {name: "fp32" for name in names if name == "epsilon"}
        types |= dict.fromkeys(constants, "constexpr")
        values = {(names.index(name),): value for name, value in constants.items()}
        source = ASTSource(kernel, types, constexprs=values)
        built = triton.compile(source, target=GPUTarget("cuda", capability, 32))
        assert built.asm["cubin"]


@triton_only
def test_triton_kernels_in_its_interpreter() -> None:
    """Their arithmetic and their indices, without a GPU; half precision as floats."""
    script = """
import torch
import torch.nn.functional as F
from siamcar_ros.model import depthwise_correlation
from siamcar_ros.runtime.triton_kernels import add_bias, correlation, group_norm_relu

torch.manual_seed(0)
x = torch.randn(2, 96, 11, 9).to(memory_format=torch.channels_last)
z, bias = torch.randn(2, 96, 4, 3), torch.randn(96)
expected = depthwise_correlation(x, z)
assert torch.allclose(correlation(x, z), expected, atol=1e-4)
other = torch.randn(2, 96, 11, 9)
for activation, rectify in (("none", lambda v: v), ("relu", F.relu), ("relu6", F.relu6)):
    for residual in (None, other):
        expected = 4 * x + bias[:, None, None] + (0 if residual is None else residual)
        got = add_bias(4 * x, bias, residual, activation)
        assert torch.allclose(got, rectify(expected), atol=1e-5), activation
norm = torch.nn.GroupNorm(12, 96)
torch.nn.init.normal_(norm.weight)
torch.nn.init.normal_(norm.bias)
expected = F.relu(norm(x + bias[:, None, None]))
assert torch.allclose(group_norm_relu(x, bias, norm), expected, atol=1e-5)
"""
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
