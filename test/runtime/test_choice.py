"""What is chosen, why, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from siamcar_ros.model import SiamCAR, build_model, save_weights
from siamcar_ros.networks import read_network_config
from siamcar_ros.resources import resource_path
from siamcar_ros.runtime import (
    BACKENDS,
    DeviceError,
    Placement,
    find_placement,
    find_source,
    load_network,
    network,
    register_backend,
    select,
    select_backend,
    source,
)
from siamcar_ros.runtime.onnx_network import OnnxNetwork, open_session, providers_for
from siamcar_ros.runtime.select import installed_abilities
from siamcar_ros.runtime.source import model_source

Present = Callable[..., None]


@pytest.fixture
def present(monkeypatch: pytest.MonkeyPatch) -> Present:
    """Says what the machine has: packages, processor features, GPUs."""

    def set_up(packages: tuple[str, ...] = (), flags: tuple[str, ...] = (), gpus: int = 0) -> None:
        for module in (network, select, source):
            monkeypatch.setattr(module, "is_installed", lambda name: name in packages)
        monkeypatch.setattr(select, "cpu_flags", lambda: frozenset(flags))
        monkeypatch.setattr(select, "gpu_names", lambda: ["Test GPU"] * gpus)

    return set_up


TORCH, ONNX, OPENVINO = ("torch",), ("onnxruntime",), ("openvino",)
EVERY = (*TORCH, *ONNX, *OPENVINO)
OPENVINO_CPU = ["openvino fp32", "openvino bf16", "openvino int8"]
TORCH_CUDA = ["torch fp32", "torch bf16", "torch fp16"]
INT8 = Path("some.search.int8.onnx")


@pytest.mark.parametrize(
    ("packages", "flags", "int8", "backend", "precision"),
    [
        ((), (), None, "opencv", "fp32"),
        ((), ("amx_bf16", "avx512_vnni"), INT8, "opencv", "fp32"),
        (TORCH, (), None, "torch", "fp32"),
        (TORCH, ("amx_bf16",), None, "torch", "bf16"),
        (EVERY, ("avx512_bf16",), None, "openvino", "fp32"),
        (ONNX, ("amx_bf16",), None, "onnxruntime", "fp32"),
        (ONNX, ("avx_vnni",), INT8, "onnxruntime", "int8"),
        (EVERY, ("avx2",), INT8, "openvino", "int8"),
        (EVERY, ("asimd",), INT8, "openvino", "fp32"),
        (EVERY, ("amx_bf16",), None, "openvino", "bf16"),
        (EVERY, ("amx_bf16", "avx512_vnni"), INT8, "openvino", "int8"),
    ],
)
def test_the_fastest_on_a_cpu(
    present: Present,
    packages: tuple[str, ...],
    flags: tuple[str, ...],
    int8: Path | None,
    backend: str,
    precision: str,
) -> None:
    present(packages, flags)
    placement = select_backend(int8=int8)
    assert (placement.backend, placement.device, placement.precision) == (backend, "cpu", precision)
    assert placement.reason.startswith(f"{backend} on cpu in {precision}, because no GPU is avail")


def test_without_graphs_pytorch_is_needed(present: Present) -> None:
    present((*OPENVINO, *TORCH))
    assert select_backend(graphs=False).backend == "torch"
    with pytest.raises(DeviceError, match="nothing installed runs fp16 on cpu: leave it at"):
        select_backend(graphs=False, precision="fp16")
    missing = r"making them needs .*onnxscript.*pip install 'siamcar_ros\[torch\]'.*siamcar export"
    with pytest.raises(DeviceError, match=missing):
        select_backend(graphs=False, precision="int8")
    present(OPENVINO)
    with pytest.raises(DeviceError, match="making them needs torch, onnx, onnxscript"):
        select_backend(graphs=False)


def test_pytorch_is_not_chosen_for_graphs_alone(present: Present) -> None:
    present(TORCH)
    assert select_backend(model=False).backend == "opencv"
    with pytest.raises(DeviceError, match="nothing installed runs bf16 on cpu"):
        select_backend(model=False, precision="bf16")
    present(TORCH, gpus=1)
    with pytest.raises(DeviceError, match="only in onnxruntime-gpu: install it, give the weights"):
        select_backend("cuda", model=False)


def test_backends_are_registered_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="'torch' is registered already"):
        register_backend("torch")
    with pytest.raises(ValueError, match="knows no precision fp8"):
        register_backend("mine", cpu=("fp8",))
    monkeypatch.setattr(network, "BACKENDS", BACKENDS.copy())
    register_backend("mine", cpu=("fp32",), speed=99)(OnnxNetwork)
    assert network.BACKENDS["mine"].precisions == {"cpu": ("fp32",)}
    assert network.BACKENDS["mine"].installed


def test_a_gpu_where_there_is_one(present: Present) -> None:
    present((*OPENVINO, *TORCH), gpus=2)
    placement = select_backend()
    assert (placement.backend, placement.device) == ("cudagraph", "cuda:0")
    assert placement.precision == "fp16"
    assert "Test GPU" in placement.reason
    assert select_backend("cuda:1").device == "cuda:1"
    assert select_backend("cpu").backend == "openvino"
    assert "TF32" in select_backend(precision="fp32").reason


def test_int8_stays_on_the_cpu_beside_a_gpu(present: Present) -> None:
    present((*OPENVINO, *TORCH), ("avx512_vnni",), gpus=1)
    placement = select_backend(precision="int8", int8=INT8)
    assert (placement.backend, placement.device) == ("openvino", "cpu")
    assert "int8 runs on CPUs only, not on the GPU Test GPU" in placement.reason
    with pytest.raises(DeviceError, match="nothing installed runs int8 on cuda"):
        select_backend(device="cuda", precision="int8", int8=INT8)
    with pytest.raises(DeviceError, match=r"torch backend on cuda has .*, not int8"):
        select_backend(backend="torch", precision="int8", int8=INT8)


@pytest.mark.parametrize(
    ("kind", "packages", "able"),
    [
        ("cpu", (), ["opencv fp32"]),
        ("cpu", TORCH, ["torch fp32", "torch bf16", "opencv fp32"]),
        ("cpu", OPENVINO, ["opencv fp32", *OPENVINO_CPU]),
        (
            "cuda",
            (*OPENVINO, *TORCH),
            [*TORCH_CUDA, "cudagraph fp32", "cudagraph bf16", "cudagraph fp16"],
        ),
    ],
)
def test_what_is_installed_could_run(
    present: Present, kind: str, packages: tuple[str, ...], able: list[str]
) -> None:
    present(packages)
    assert [" ".join(each) for each in installed_abilities(kind)] == able


def placed(device: str, precision: str) -> Placement:
    return Placement("onnxruntime", device, precision, "")


def test_onnx_runtimes_providers(tmp_path: Path) -> None:
    every = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")
    assert providers_for(every, placed("cpu", "fp32")) == ["CPUExecutionProvider"]
    cuda, cpu = providers_for(every, placed("cuda:1", "fp32"))
    assert cuda == ("CUDAExecutionProvider", {"device_id": "1"})
    assert cpu == "CPUExecutionProvider"
    (name, options), *others = providers_for(every, placed("cuda:1", "fp16"), tmp_path)
    assert name == "TensorrtExecutionProvider"
    assert others == [cuda, cpu]
    assert options["device_id"] == "1"
    # Others than "True" and "False" it refuses.
    assert {options[f"trt_{what}_enable"] for what in ("fp16", "timing_cache", "engine_cache")} == {
        "True"
    }
    assert options["trt_engine_cache_path"] == str(tmp_path)
    for precision in ("fp32", "fp16"):
        with pytest.raises(DeviceError, match="install onnxruntime-gpu"):
            providers_for(("CPUExecutionProvider",), placed("cuda:0", precision))
    with pytest.raises(DeviceError, match="no TensorrtExecutionProvider for fp16"):
        providers_for(every[1:], placed("cuda:0", "fp16"))


def test_a_provider_that_does_not_start_is_not_passed_over(
    compact: SiamCAR, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime itself would run on the CPU and say so in a log at most."""
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    if "CUDAExecutionProvider" in runtime.get_available_providers():
        pytest.skip("the installed ONNX Runtime has a CUDA provider")
    files = model_source(compact).graphs()
    monkeypatch.setattr(runtime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    with pytest.raises(DeviceError, match="could not start its CUDAExecutionProvider"):
        open_session(files.search, placed("cuda:0", "fp32"))


def test_a_provider_whose_libraries_are_missing_is_named(
    compact: SiamCAR, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ONNX Runtime's TensorRT provider fails: it is listed, and refuses to start."""
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    files = model_source(compact).graphs()

    def session(*_: Any, **__: Any) -> None:
        raise RuntimeError("Please install TensorRT libraries")

    monkeypatch.setattr(runtime, "InferenceSession", session)
    monkeypatch.setattr(runtime, "get_available_providers", lambda: ["TensorrtExecutionProvider"])
    with pytest.raises(DeviceError, match="TensorrtExecutionProvider: Please install TensorRT"):
        open_session(files.search, placed("cuda:0", "fp16"))


def test_an_onnx_runtime_for_cpus_stays_on_the_cpu(present: Present) -> None:
    runtime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" in runtime.get_available_providers():
        pytest.skip("the installed ONNX Runtime has a CUDA provider")
    present((*ONNX, *TORCH), gpus=1)
    placement = select_backend(backend="onnxruntime")
    assert placement.device == "cpu"
    assert "ONNX Runtime is for CPUs" in placement.reason


def test_cuda_is_refused_where_there_is_none(present: Present) -> None:
    present()
    with pytest.raises(DeviceError, match=r"cuda was asked for.*PyTorch.*is not installed"):
        select_backend("cuda")
    present(TORCH)
    with pytest.raises(DeviceError, match=r"cuda was asked for.*choose device 'auto' or 'cpu'"):
        select_backend("cuda")
    present(TORCH, gpus=1)
    with pytest.raises(DeviceError, match="cuda:3 was asked for"):
        select_backend("cuda:3")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"device": "gpu"}, "device is auto, cpu, cuda or cuda:N, not 'gpu'"),
        (
            {"backend": "tensorflow"},
            "backend is auto or one of onnxruntime, opencv",
        ),
        ({"precision": "fp8"}, "precision is auto or one of fp32"),
        ({"backend": "cudagraph", "device": "cpu"}, "cudagraph backend runs on cuda, not on cpu"),
        ({"backend": "torch", "precision": "int8"}, "has fp32, bf16, not int8"),
        ({"backend": "openvino", "precision": "fp16"}, "has fp32, bf16, int8, not fp16"),
        ({"backend": "openvino", "precision": "int8"}, "siamcar export"),
        ({"precision": "fp16"}, "nothing installed runs fp16 on cpu: leave it at 'auto'"),
        ({"precision": "bf16"}, r"runs bf16 on cpu: pip install 'siamcar_ros\[openvino\]'"),
    ],
)
def test_refusals_say_what_to_do(present: Present, asked: dict[str, Any], message: str) -> None:
    present(() if asked.keys() == {"precision"} else EVERY)
    with pytest.raises(DeviceError, match=message):
        select_backend(**asked)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    real = importlib.import_module

    def import_module(name: str, *args: Any) -> Any:
        if name == "openvino":
            raise ImportError("No module named 'openvino'")
        return real(name, *args)

    monkeypatch.setattr(importlib, "import_module", import_module)
    with pytest.raises(DeviceError, match=r"needs the Python package 'openvino'.*pip install"):
        load_network("compact", device="cpu", backend="openvino", precision="fp32")


def test_load_network(weights: Path) -> None:
    network = load_network("compact", weights, backend="torch", precision="fp32")
    assert (network.backend, network.name, network.score_size) == ("torch", "compact", 25)


def test_weights_of_another_network_are_refused(weights: Path) -> None:
    with pytest.raises(ValueError, match="does not fit the network 'alexnet'"):
        load_network("alexnet", weights, backend="torch")


def test_networks_that_ship_without_weights_say_so() -> None:
    with pytest.raises(ValueError, match="no weights ship for resnet34"):
        load_network("resnet34")


def test_weights_are_read_before_anything_else(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent"):
        load_network("compact", tmp_path / "absent.safetensors")


@pytest.mark.parametrize("name", ["compact", "mobile"])
def test_the_shipped_graphs_are_of_the_shipped_weights(name: str) -> None:
    pytest.importorskip("openvino")
    graphs = find_source(read_network_config(name)).graphs()
    assert {graphs.search.parent, graphs.template.parent} == {resource_path("models")}
    network = load_network(name, device="cpu", backend="openvino", precision="int8")
    assert network.precision == "int8"


@pytest.mark.parametrize("name", ["compact", "mobile"])
def test_the_shipped_int8_graph_gives_the_same_without_vnni(name: str, tmp_path: Path) -> None:
    """Weights of 8 bits would change logits by 0.4 where oneDNN is held to AVX2."""
    pytest.importorskip("openvino")
    program = """
import sys, numpy as np
from siamcar_ros.runtime import load_network
random = np.random.default_rng(0)
cells = random.integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
z, x = cells.repeat(8, 1).repeat(8, 2)[:, None]
network = load_network(sys.argv[1], backend="openvino", precision="int8")
maps = network(x[:, :255, :255], network.template(z[:, :127, :127]))
np.save(sys.argv[2], np.concatenate(maps, 1))
"""
    maps = []
    for isa, variables in (("all", {}), ("avx2", {"ONEDNN_MAX_CPU_ISA": "AVX2"})):
        file = str(tmp_path / f"{isa}.npy")
        subprocess.run(
            [sys.executable, "-c", program, name, file],
            env={**os.environ, **variables},
            check=True,
        )
        maps.append(np.load(file))
    np.testing.assert_allclose(maps[0], maps[1], rtol=0.01, atol=0.02)


@pytest.mark.slow
def test_graphs_of_other_weights_are_not_used(
    tmp_path: Path, compact: SiamCAR, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("onnxscript")
    from siamcar_ros.runtime.export import export_onnx

    torch.manual_seed(11)
    other = tmp_path / "other.safetensors"
    save_weights(build_model("compact"), other, {})
    files = export_onnx(compact, other)
    files.search.with_name("other.search.int8.onnx").write_bytes(files.search.read_bytes())
    with pytest.raises(DeviceError, match="quantized from other weights"):
        load_network("compact", other, device="cpu", precision="int8")
    network = load_network("compact", other, device="cpu")
    assert network.precision != "int8"
    assert "other.search.int8.onnx is ignored" in network.reason
    assert f"{files.search} and its template graph were not made from the weights" in caplog.text
    (tmp_path / "other.search.int8.onnx").write_bytes(b"of an earlier version")
    assert "is ignored" in find_placement("compact", other, device="cpu")[0].reason


def test_models_of_another_architecture_have_another_fingerprint(compact: SiamCAR) -> None:
    other = build_model("compact").eval()
    other.load_state_dict(compact.state_dict())
    assert model_source(other).fingerprint == model_source(compact).fingerprint
    other.architecture = replace(other.architecture, location_shift=0)
    assert model_source(other).fingerprint != model_source(compact).fingerprint
