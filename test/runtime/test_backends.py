"""Every backend that is installed gives what the model gives."""

from __future__ import annotations

import copy
import subprocess
import sys
import threading
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch
from example_arrays import Array, arrays

from siamcar_ros.model import SiamCAR
from siamcar_ros.runtime import BACKENDS, DeviceError, Network, load_network
from siamcar_ros.runtime.export import difference
from siamcar_ros.runtime.graphs import SearchGraph, TemplateGraph, example_inputs
from siamcar_ros.runtime.torch_network import prepared

# Largest differences of logits, and of distances relative to their size.
TOLERANCE = {"fp32": 1e-3, "bf16": 0.25, "fp16": 0.03}
EXPORT = ("onnx", "onnxruntime", "onnxscript")
NEEDS = {
    "torch": (),
    "cudagraph": (),
    "opencv": EXPORT,
    "onnxruntime": EXPORT,
    "openvino": (*EXPORT, "openvino"),
}
CUDA = pytest.mark.gpu
PLACES = [
    ("cpu", "torch", "fp32"),
    ("cpu", "torch", "bf16"),
    ("cpu", "onnxruntime", "fp32"),
    ("cpu", "opencv", "fp32"),
    ("cpu", "openvino", "fp32"),
    ("cpu", "openvino", "bf16"),
    pytest.param(("cuda", "torch", "fp32"), marks=CUDA),
    pytest.param(("cuda", "torch", "fp16"), marks=CUDA),
    pytest.param(("cuda", "cudagraph", "fp32"), marks=CUDA),
    pytest.param(("cuda", "cudagraph", "bf16"), marks=CUDA),
    pytest.param(("cuda", "cudagraph", "fp16"), marks=CUDA),
    pytest.param(("cuda", "onnxruntime", "fp32"), marks=CUDA),
    pytest.param(("cuda", "onnxruntime", "fp16"), marks=CUDA),
]
gpus = torch.cuda.device_count()


def tolerance(network: Network) -> float:
    """On a GPU fp32 is TF32."""
    return max(TOLERANCE[network.precision], 0.03 if network.device != "cpu" else 0)


@pytest.fixture(scope="module", params=PLACES, ids=lambda place: " ".join(place))
def network(request: pytest.FixtureRequest, compact: SiamCAR) -> Network:
    device, backend, precision = request.param
    if device == "cuda" and not gpus:
        pytest.skip("needs a CUDA device")
    for module in NEEDS[backend]:
        if find_spec(module) is None:
            pytest.skip(f"the package {module} is not installed")
    if (device, backend) == ("cuda", "onnxruntime"):
        import onnxruntime

        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            pytest.skip("the installed ONNX Runtime has no CUDA provider")
        if precision == "fp16" and find_spec("tensorrt") is None:
            pytest.skip("TensorRT is not installed")
    return load_network(compact, device=device, backend=backend, precision=precision)


def maps_of(model: SiamCAR, z: Array, x: Array) -> tuple[Array, Array, Array]:
    with torch.inference_mode():
        cls, reg, cen = model(torch.from_numpy(x), model.template(torch.from_numpy(z)))
    return cls.numpy(), reg.numpy(), cen.numpy()


@pytest.fixture(scope="module")
def images(compact: SiamCAR) -> tuple[Array, Array]:
    return arrays(compact, 3, seed=2)


@pytest.fixture(scope="module")
def expected(compact: SiamCAR, images: tuple[Array, Array]) -> tuple[Array, ...]:
    return maps_of(compact, *images)


def test_it_gives_what_the_model_gives(
    network: Network,
    images: tuple[Array, Array],
    expected: tuple[Array, ...],
) -> None:
    z, x = images
    got = network(x, network.template(z))
    assert [part.shape for part in got] == [part.shape for part in expected]
    assert all(part.dtype == np.float32 for part in got)
    assert difference(expected, got) <= tolerance(network)


def test_it_gives_the_features_that_its_head_reads(
    network: Network, compact: SiamCAR, images: tuple[Array, Array]
) -> None:
    z, x = images
    template = network.template(z)
    maps, features = network.observe(x, template)
    assert difference(network(x, template), maps) <= TOLERANCE["fp32"]
    with torch.inference_mode():
        z_tensor, x_tensor = map(torch.from_numpy, images)
        expected = compact.response(x_tensor, compact.template(z_tensor)).numpy()
    assert features.dtype == np.float32
    assert abs(features - expected).max() <= tolerance(network) * max(abs(expected).max(), 1)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("name", ["compact", "mobile"])
def test_features_leave_the_shipped_int8_maps_as_they_are(name: str, backend: str) -> None:
    """To the bit: what they are read from is in the graph anyway."""
    pytest.importorskip(backend)
    exact, quantized = (
        load_network(name, device="cpu", backend=backend, precision=precision)
        for precision in ("fp32", "int8")
    )
    z, x = (np.random.default_rng(0).integers(0, 256, (1, n, n, 3), np.uint8) for n in (127, 255))
    template = exact.template(z)
    maps, features = quantized.observe(x, template)
    assert all(map(np.array_equal, quantized(x, template), maps))
    expected = exact.observe(x, template)[1]
    assert np.corrcoef(features.ravel(), expected.ravel())[0, 1] > 0.95


def test_pixels_are_taken_as_planes_are(network: Network, images: tuple[Array, Array]) -> None:
    z, x = images
    pixels = [np.ascontiguousarray(v.transpose(0, 2, 3, 1), np.uint8) for v in (z, x)]
    planes = network(x, network.template(z))
    got = network(pixels[1], network.template(pixels[0]))
    assert difference(planes, got) <= tolerance(network)


def test_pixels_may_have_any_strides(network: Network, images: tuple[Array, Array]) -> None:
    """Such as RGB turned to BGR in place."""
    z, x = images
    rgb = [np.ascontiguousarray(v[:, ::-1].transpose(0, 2, 3, 1), np.uint8) for v in (z, x)]
    views = [v[..., ::-1] for v in rgb]
    copies = [v.copy() for v in views]
    expected = network(copies[1], network.template(copies[0]))
    got = network(views[1], network.template(views[0]))
    assert difference(expected, got) <= tolerance(network)


def test_templates_of_tracks_are_joined(
    network: Network,
    images: tuple[Array, Array],
    expected: tuple[Array, ...],
) -> None:
    z, x = images
    tracks = [network.template(z[i : i + 1]) for i in range(3)]
    assert difference(expected, network(x, network.join(tracks))) <= tolerance(network)


def test_one_template_for_all_regions(
    network: Network, compact: SiamCAR, images: tuple[Array, Array]
) -> None:
    z, x = images
    expected = maps_of(compact, z[:1], x)
    got = network(x, network.template(z[:1]))
    assert difference(expected, got) <= tolerance(network)


def test_a_wrong_number_of_templates_is_refused(
    network: Network, images: tuple[Array, Array]
) -> None:
    z, x = images
    template = network.template(z[:2])
    with pytest.raises(ValueError, match="2 templates cannot be matched with 3"):
        network(x, template)


def test_maps_and_templates_outlive_later_calls(
    network: Network, images: tuple[Array, Array]
) -> None:
    z, x = images
    first = network.template(z[:1])
    maps = network(x[:1], first)
    kept = [copy.deepcopy(part) for part in (*first, *maps)]
    second = network.template(z[1:2])
    network(x[1:2], second)
    for before, now in zip(kept, (*first, *maps), strict=True):
        assert bool((before == now).all())
    # The first template again, after another was shown.
    assert difference(maps, network(x[:1], first)) <= 1e-4


def test_threads_may_share_it(network: Network, images: tuple[Array, Array]) -> None:
    z, x = images
    templates = [network.template(z[i : i + 1]) for i in range(3)]
    alone = [network(x[i : i + 1], templates[i]) for i in range(3)]
    wrong: list[int] = []

    def camera(i: int) -> None:
        for _ in range(5):
            if not difference(alone[i], network(x[i : i + 1], templates[i])) <= 1e-4:
                wrong.append(i)

    threads = [threading.Thread(target=camera, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


INTERRUPTED = """
import os, signal, threading, time
from siamcar_ros.runtime import load_network

networks = [load_network("compact", device="cpu", backend="openvino") for _ in range(2)]
if {in_thread}:
    release = threading.Thread(target=networks.clear)
    release.start()
    release.join()
else:
    networks.pop(0)
    networks.pop()
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("in_thread", [False, True])
def test_ctrl_c_is_safe_after_networks_were_released(in_thread: bool) -> None:
    pytest.importorskip("openvino")
    program = INTERRUPTED.format(in_thread=in_thread)
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, "interrupted\n"), ran.stderr


def test_it_says_what_it_is(network: Network, compact: SiamCAR) -> None:
    assert network.name == "compact"
    assert (network.score_size, network.offset) == (compact.score_size, compact.offset)
    assert network.device in ("cpu", "cuda:0")
    assert f"{network.backend} was asked for" in network.reason
    assert BACKENDS[network.backend].installed
    assert network.backend in repr(network)
    assert network.precision in repr(network)


def test_warming_up_runs_what_trackers_run(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[int] = []
    observe = network.observe

    def watched(x: Any, template: Any) -> Any:
        shown.append(len(x))
        return observe(x, template)

    monkeypatch.setattr(network, "observe", watched)
    network.warm_up(batch=2, calls=1)
    assert shown == ([1, 2] if network.gives_features else [])


@pytest.mark.parametrize("backend", ["torch", "onnxruntime", "openvino", "opencv"])
def test_a_network_of_another_geometry(alexnet: SiamCAR, backend: str) -> None:
    for module in NEEDS[backend]:
        pytest.importorskip(module)
    network = load_network(alexnet, device="cpu", backend=backend, precision="fp32")
    z, x = arrays(alexnet, 2)
    expected = maps_of(alexnet, z, x)
    assert network.score_size == 17
    assert difference(expected, network(x, network.template(z))) <= TOLERANCE["fp32"]


@pytest.mark.parametrize("banded", [True, False])
def test_both_forms_of_the_correlation(compact: SiamCAR, banded: bool) -> None:
    batch = 2 if banded else 1
    z, x = example_inputs(compact, batch)
    model = copy.deepcopy(compact)
    head = model.car_head
    for last in (head.cls_logits, head.bbox_pred, head.centerness):
        assert last.bias is not None
        torch.nn.init.normal_(last.bias)  # no two alike: their order shows
    with torch.inference_mode():
        template = TemplateGraph(model, banded)(z)
        got = SearchGraph(model, banded)(x, *template)[:3]
        expected = model(x, model.template(z))
    assert difference(expected, got) <= 1e-4
    if banded:
        assert template[0].shape == (2, 64, 7 * 31, 25)


def test_bfloat16_keeps_the_digits_of_a_distance(compact: SiamCAR) -> None:
    graph = SearchGraph(compact, banded=False)
    predict = copy.deepcopy(compact.car_head.bbox_pred)
    size = (1, predict.in_channels, 25, 25)
    tower = torch.randn(size, generator=torch.Generator().manual_seed(0)) * 0.3
    tower = tower.bfloat16().float()
    for layer in (predict, graph.log_distances):
        layer.weight.data = layer.weight.data.bfloat16().float()
    with torch.inference_mode():
        expected = predict(tower).exp()
        plain = predict.bfloat16()(tower.bfloat16()).float().exp()
        kept = graph.log_distances.bfloat16()(tower.bfloat16()).float().exp() * graph.unit
    worst = [float((got / expected - 1).abs().max()) for got in (plain, kept)]
    assert worst[0] > 0.008
    assert worst[1] < 0.005


def test_half_precision_reaches_all_but_the_last_layers(compact: SiamCAR) -> None:
    """What a GPU replays, on a CPU: bfloat16 within, float32 coordinates and scores out."""
    ready = prepared(compact, "cpu", "bf16")
    z, x = example_inputs(compact, 2)
    with torch.inference_mode():
        template = TemplateGraph(ready, banded=True)(z.bfloat16())
        got = SearchGraph(ready, banded=True)(x.bfloat16(), *template)[:3]
        expected = compact(x, compact.template(z))
    assert all(level.dtype == torch.bfloat16 for level in template)
    assert all(part.dtype == torch.float32 for part in got)
    assert difference(expected, got) <= TOLERANCE["bf16"]


@pytest.mark.gpu
@pytest.mark.skipif(not gpus, reason="needs a CUDA device")
def test_networks_of_several_nodes_record_side_by_side(
    compact: SiamCAR, alexnet: SiamCAR, images: tuple[Array, Array]
) -> None:
    """Each on its own GPU where there are two."""
    wrong: list[str] = []

    def node(model: SiamCAR, device: str) -> None:
        network = load_network(model, device=device, backend="cudagraph", precision="fp32")
        for count in (1, 2, 3):
            z, x = (value[:count] for value in images)
            got, expected = network(x, network.template(z)), maps_of(model, z, x)
            if not difference(expected, got) <= 0.03:
                wrong.append(f"{network}, {count} targets")

    models = (compact, alexnet)
    threads = [
        threading.Thread(target=node, args=(model, f"cuda:{i % gpus}"))
        for i, model in enumerate(models)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_graph_that_openvino_cannot_compile_is_refused_with_what_to_do(
    compact: SiamCAR, images: tuple[Array, Array], monkeypatch: pytest.MonkeyPatch
) -> None:
    openvino = pytest.importorskip("openvino")
    pytest.importorskip("onnxscript")
    network = load_network(compact, device="cpu", backend="openvino", precision="fp32")
    z, x = images
    template = network.template(z[:1])

    def fail(*_: object) -> None:
        raise RuntimeError("Exception from plugin.cpp:54:\nobject is not initialized\n")

    monkeypatch.setattr(openvino.Core, "compile_model", fail)
    with pytest.raises(DeviceError, match=r"in fp32 for this CPU: choose another .*initialized"):
        network(x[:1], template)
