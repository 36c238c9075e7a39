"""What a GPU computes, held to the CPU's float32: every network, precision and kind of kernels."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.contestants import Film, random_model
from siamcar_ros.model import MODEL_NAMES, SiamCAR
from siamcar_ros.runtime import DeviceError, load_network, select_backend
from siamcar_ros.runtime.cuda_graph_network import CudaGraphNetwork
from siamcar_ros.runtime.fusion import KERNELS
from siamcar_ros.runtime.graphs import example_inputs
from siamcar_ros.tracking import MultiTracker, SiamCarTracker

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

# Relative distance of maps, logarithms for distances, spread about their mean: some twice of what
# the CPU's own half precision gives for the worst network with random weights. Maps that have
# nothing to do with each other come to 1.4. fp32 convolves in TF32.
BOUNDS = {"fp32": 0.08, "fp16": 0.08, "bf16": 0.5}
PRECISIONS = tuple(BOUNDS)
BATCHES = range(1, 9)


@cache
def reference(name: str) -> tuple[SiamCAR, Any, Any, tuple[Tensor, ...]]:
    """A network on the CPU, eight pairs, and its maps of them."""
    model = random_model(name)
    z, x = example_inputs(model, max(BATCHES), seed=2)
    with torch.inference_mode():
        maps = model(x, model.template(z))
    return model, z, x, maps


def distance(expected: Sequence[Any], got: Sequence[Any]) -> float:
    """The largest relative distance of the three maps; NaN where one is not finite."""
    found = []
    for index, (one, other) in enumerate(zip(expected, got, strict=True)):
        one, other = (torch.as_tensor(part).cpu().double() for part in (one, other))
        if index == 1:
            one, other = one.log(), other.log()
        found.append(float((one - other).norm() / (one - one.mean()).norm()))
    return float(np.max(found))


def alike(one: Any, other: Any) -> bool:
    return np.allclose(one, other, rtol=1e-2, atol=1e-2)


def started(model: SiamCAR, kernels: str | None, precision: str) -> CudaGraphNetwork:
    try:
        return CudaGraphNetwork(model, select_backend("cuda", "cudagraph", precision), kernels)
    except DeviceError as error:
        if kernels == "triton" and "triton" in str(error):
            pytest.skip(str(error))
        raise


@pytest.fixture(scope="module", params=[(n, p) for n in MODEL_NAMES for p in PRECISIONS])
def chosen(request: pytest.FixtureRequest) -> Iterator[tuple[str, CudaGraphNetwork]]:
    """fp16, which is what is chosen, with the kernels that are; the others with the most fused."""
    name, precision = request.param
    yield name, started(reference(name)[0], None if precision == "fp16" else "cudnn", precision)
    torch.cuda.empty_cache()


def test_graphs_of_every_batch_give_the_cpus_maps(chosen: tuple[str, CudaGraphNetwork]) -> None:
    name, network = chosen
    _, z, x, maps = reference(name)
    for batch in BATCHES if network.precision == "fp16" else (1, 8):
        got = network(x[:batch], network.template(z[:batch]))
        expected = tuple(part[:batch] for part in maps)
        assert [part.shape for part in got] == [part.shape for part in expected]
        assert distance(expected, got) <= BOUNDS[network.precision], (batch, network.reason)


def test_templates_may_change_between_frames(chosen: tuple[str, CudaGraphNetwork]) -> None:
    name, network = chosen
    _, z, x, maps = reference(name)
    templates = [network.template(z[i : i + 1]) for i in range(3)]
    kept = [tuple(level.clone() for level in template) for template in templates]
    for i in (0, 1, 0, 2, 2, 1):
        got = network(x[i : i + 1], templates[i])
        expected = tuple(part[i : i + 1] for part in maps)
        assert distance(expected, got) <= BOUNDS[network.precision], i
    for before, now in zip(kept, templates, strict=True):
        assert all(map(torch.equal, before, now))


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("name", MODEL_NAMES)
def test_all_kernels_give_the_cpus_maps(name: str, kernels: str) -> None:
    model, z, x, maps = reference(name)
    network = started(model, kernels, "fp16")
    for batch in (1, 3):
        got = network(x[:batch], network.template(z[:batch]))
        expected = tuple(part[:batch] for part in maps)
        assert distance(expected, got) <= BOUNDS["fp16"], batch


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_pixels_on_the_cpu_pinned_or_not_give_what_planes_on_the_gpu_give(name: str) -> None:
    _, z, x, _ = reference(name)
    network = started(reference(name)[0], "plain", "fp16")
    pixels = [v[:2].to(torch.uint8).permute(0, 2, 3, 1).contiguous() for v in (z, x)]
    planes = network(x[:2].cuda(), network.template(z[:2].cuda()))
    for crops in (pixels, [v.pin_memory() for v in pixels], [v.cuda() for v in pixels]):
        got = network(crops[1], network.template(crops[0]))
        assert distance(planes, got) <= 1e-3


@pytest.mark.parametrize("name", ["compact", "resnet50"])
def test_features_are_the_cpus(name: str) -> None:
    """What the model learned online reads, and the maps with it."""
    model, z, x, maps = reference(name)
    network = started(model, None, "fp16")
    with torch.inference_mode():
        expected = model.response(x[:3], model.template(z[:3]))
    for batch in (1, 3):
        got, features = network.observe(x[:batch], network.template(z[:batch]))
        assert distance(tuple(part[:batch] for part in maps), got) <= BOUNDS["fp16"]
        assert features.dtype == np.float32
        wrong = np.linalg.norm(features - expected[:batch].numpy())
        assert wrong <= BOUNDS["fp16"] * np.linalg.norm(expected[:batch])


def test_eager_pytorch_gives_the_cpus_maps() -> None:
    model, z, x, maps = reference("resnet50")
    for precision in PRECISIONS:
        network = load_network(model, device="cuda", backend="torch", precision=precision)
        expected = tuple(part[:2] for part in maps)
        got = network(x[:2], network.template(z[:2]))
        assert distance(expected, got) <= BOUNDS[precision], precision


def test_two_threads_share_a_network() -> None:
    model, z, x, _ = reference("compact")
    network = started(model, None, "fp16")
    alone = [network(x[i : i + 1], network.template(z[i : i + 1])) for i in range(2)]
    wrong: list[int] = []

    def camera(i: int) -> None:
        template = network.template(z[i : i + 1])
        for _ in range(200):
            got = network(x[i : i + 1], template)
            if not all(map(alike, alone[i], got)):
                wrong.append(i)

    threads = [threading.Thread(target=camera, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_tracker_follows_as_on_the_cpu() -> None:
    film, boxes = Film(8), []
    trackers = [
        SiamCarTracker.from_config("compact", device="cpu", backend="torch", precision="fp32"),
        SiamCarTracker.from_config("compact", device="cuda"),
    ]
    for tracker in trackers:
        tracker.init(film.images[0], film.boxes[0])
        boxes.append(np.array([tracker.update(image).box for image in film.images[1:]]))
    np.testing.assert_allclose(boxes[0], boxes[1], atol=4)


def test_targets_in_one_call_are_followed_as_alone() -> None:
    film, network = Film(2), load_network("compact", device="cuda", precision="fp32")
    several = MultiTracker(network, max_targets=8)
    alone = {}
    for i in range(8):
        x, y, w, h = film.boxes[0]
        box = (x + 4 * i, y, w, h)
        several.add(film.images[0], box, str(i))
        alone[str(i)] = SiamCarTracker(network)
        alone[str(i)].init(film.images[0], box)
    together = several.update(film.images[1])
    for id, tracker in alone.items():
        np.testing.assert_allclose(together[id].box, tracker.update(film.images[1]).box, atol=2)


def test_a_gpu_that_is_not_there_is_refused_in_a_sentence() -> None:
    count = torch.cuda.device_count()
    with pytest.raises(DeviceError, match=f"cuda:{count} was asked for, but .* finds {count}"):
        load_network(reference("compact")[0], device=f"cuda:{count}")


def test_a_full_gpu_is_told_in_a_sentence() -> None:
    """In a process of its own, which takes nearly all that it may."""
    script = """
import torch
from siamcar_ros.model import build_model
from siamcar_ros.runtime import DeviceError, load_network
torch.cuda.set_per_process_memory_fraction(100 * 2**20 / torch.cuda.mem_get_info()[1])
try:
    load_network(build_model("resnet50").eval(), device="cuda")
except DeviceError as error:
    print(error)
"""
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "has too little free memory for resnet50" in told.stdout, told.stderr[-2000:]


def test_half_precision_is_steady() -> None:
    """The same input gives the same maps: no kernel reads what nothing has written."""
    model, z, x, _ = reference("resnet50")
    network = started(model, None, "fp16")
    template = network.template(z[:1])
    first = network(x[:1], template)
    garbage = torch.full((1 << 26,), float("nan"), device="cuda", dtype=torch.float16)
    del garbage
    for _ in range(20):
        for one, other in zip(first, network(x[:1], template), strict=True):
            assert alike(one, other)
