"""What is chosen, why, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from siamcar_ros.model import SiamCAR, build_model, save_weights
from siamcar_ros.runtime import DeviceError, Placement, choose, load_network, place, select
from siamcar_ros.runtime.export import cached_onnx
from siamcar_ros.runtime.network import Geometry
from siamcar_ros.runtime.onnx_network import OnnxNetwork, providers_for
from siamcar_ros.runtime.select import installed_abilities

Present = Callable[..., None]


@pytest.fixture
def present(monkeypatch: pytest.MonkeyPatch) -> Present:
    """Says what the machine has: packages, processor features, GPUs."""

    def set_up(packages: tuple[str, ...] = (), flags: tuple[str, ...] = (), gpus: int = 0) -> None:
        monkeypatch.setattr(select, "_installed", lambda module: module in packages)
        monkeypatch.setattr(select, "cpu_flags", lambda: frozenset(flags))
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=0: "Test GPU")

    return set_up


ONNX = ("onnx", "onnxruntime", "onnxscript")
OPENVINO = ["openvino fp32", "openvino bf16", "openvino int8"]
TORCH_CUDA = ["torch fp32", "torch bf16", "torch fp16"]


@pytest.mark.parametrize(
    ("packages", "flags", "int8", "large", "backend", "precision"),
    [
        ((), (), False, False, "torch", "fp32"),
        ((), ("avx512_bf16",), False, False, "torch", "bf16"),
        (ONNX, ("avx512_bf16",), False, False, "onnxruntime", "fp32"),
        (ONNX, ("avx_vnni",), True, False, "onnxruntime", "int8"),
        (("onnxruntime",), (), False, False, "torch", "fp32"),
        (("openvino", *ONNX), ("avx2",), True, False, "openvino", "fp32"),
        (("openvino", *ONNX), ("amx_bf16",), False, False, "openvino", "bf16"),
        (("openvino", *ONNX), ("amx_bf16", "avx512_vnni"), True, False, "openvino", "int8"),
        (("openvino", *ONNX), ("avx2",), False, True, "onnxruntime", "fp32"),
        (("openvino", *ONNX), ("amx_bf16",), False, True, "openvino", "bf16"),
        (("openvino", *ONNX), ("avx512_vnni",), True, True, "openvino", "int8"),
        (ONNX, ("amx_bf16",), False, True, "onnxruntime", "fp32"),
        (("openvino",), (), False, True, "openvino", "fp32"),
    ],
)
def test_the_fastest_on_a_cpu(
    present: Present,
    packages: tuple[str, ...],
    flags: tuple[str, ...],
    int8: bool,
    large: bool,
    backend: str,
    precision: str,
) -> None:
    present(packages, flags)
    graph = Path("some.int8.onnx") if int8 else None
    placement = choose(large=large, int8_graph=graph)
    assert (placement.backend, placement.device, placement.precision) == (backend, "cpu", precision)
    assert "no CUDA device" in placement.reason
    assert precision in placement.reason


def test_a_gpu_where_there_is_one(present: Present) -> None:
    present(("openvino",), gpus=2)
    placement = choose()
    assert (placement.backend, placement.device) == ("cudagraph", "cuda:0")
    assert placement.precision == "fp16"
    assert "Test GPU" in placement.reason
    assert choose("cuda:1").device == "cuda:1"
    assert choose("cpu").backend == "openvino"
    assert "TF32" in choose(precision="fp32").reason


def test_int8_stays_on_the_cpu_beside_a_gpu(present: Present) -> None:
    present(("openvino",), ("avx512_vnni",), gpus=1)
    graph = Path("some.int8.onnx")
    placement = choose(precision="int8", int8_graph=graph)
    assert (placement.backend, placement.device) == ("openvino", "cpu")
    assert "Test GPU is left aside" in placement.reason
    with pytest.raises(DeviceError, match=r"cudagraph backend on cuda has .*, not int8"):
        choose(device="cuda", precision="int8", int8_graph=graph)
    with pytest.raises(DeviceError, match=r"torch backend on cuda has .*, not int8"):
        choose(backend="torch", precision="int8", int8_graph=graph)


@pytest.mark.parametrize(
    ("kind", "packages", "able"),
    [
        ("cpu", (), ["torch fp32", "torch bf16"]),
        ("cpu", ("openvino",), ["torch fp32", "torch bf16", *OPENVINO]),
        (
            "cuda",
            ("openvino",),
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
    files = cached_onnx(compact)
    monkeypatch.setattr(runtime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    with pytest.raises(DeviceError, match="could not start its CUDAExecutionProvider"):
        OnnxNetwork(Geometry.of(compact), placed("cuda:0", "fp32"), files.template, files.search)


def test_a_provider_whose_libraries_are_missing_is_named(
    compact: SiamCAR, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ONNX Runtime's TensorRT provider fails: it is listed, and refuses to start."""
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    files = cached_onnx(compact)

    def session(*_: Any, **__: Any) -> None:
        raise RuntimeError("Please install TensorRT libraries")

    monkeypatch.setattr(runtime, "InferenceSession", session)
    monkeypatch.setattr(runtime, "get_available_providers", lambda: ["TensorrtExecutionProvider"])
    with pytest.raises(DeviceError, match="TensorrtExecutionProvider: Please install TensorRT"):
        OnnxNetwork(Geometry.of(compact), placed("cuda:0", "fp16"), files.template, files.search)


def test_an_onnx_runtime_for_cpus_stays_on_the_cpu(present: Present) -> None:
    runtime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" in runtime.get_available_providers():
        pytest.skip("the installed ONNX Runtime has a CUDA provider")
    present(ONNX, gpus=1)
    placement = choose(backend="onnxruntime")
    assert placement.device == "cpu"
    assert "ONNX Runtime is for CPUs" in placement.reason


def test_cuda_is_refused_where_there_is_none(present: Present) -> None:
    present()
    with pytest.raises(DeviceError, match=r"cuda was asked for.*choose device 'auto' or 'cpu'"):
        choose("cuda")
    present(gpus=1)
    with pytest.raises(DeviceError, match="cuda:3 was asked for"):
        choose("cuda:3")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"device": "gpu"}, "device is auto, cpu, cuda or cuda:N, not 'gpu'"),
        ({"backend": "tensorflow"}, "backend is auto or one of torch"),
        ({"precision": "fp8"}, "precision is auto or one of fp32"),
        ({"backend": "cudagraph", "device": "cpu"}, "cudagraph backend runs on cuda, not on cpu"),
        ({"backend": "torch", "precision": "int8"}, "has fp32, bf16, not int8"),
        ({"backend": "openvino", "precision": "fp16"}, "has fp32, bf16, int8, not fp16"),
        ({"backend": "openvino", "precision": "int8"}, "siamcar export"),
        ({"precision": "fp16"}, "nothing installed runs fp16 on the CPU: leave it at 'auto'"),
    ],
)
def test_refusals_say_what_to_do(present: Present, asked: dict[str, Any], message: str) -> None:
    present()
    with pytest.raises(DeviceError, match=message):
        choose(**asked)


def test_a_missing_package_is_named(compact: SiamCAR, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    real = importlib.import_module

    def import_module(name: str, *args: Any) -> Any:
        if name == "openvino":
            raise ImportError("No module named 'openvino'")
        return real(name, *args)

    monkeypatch.setattr(importlib, "import_module", import_module)
    with pytest.raises(DeviceError, match=r"needs the Python package 'openvino'.*pip install"):
        place(compact, device="cpu", backend="openvino", precision="fp32")


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


def test_the_shipped_int8_graph_is_of_the_shipped_weights() -> None:
    pytest.importorskip("openvino")
    network = load_network("compact", device="cpu", backend="openvino", precision="int8")
    assert network.precision == "int8"


def test_an_int8_graph_of_other_weights_is_not_used(tmp_path: Path, compact: SiamCAR) -> None:
    pytest.importorskip("onnxscript")
    from siamcar_ros.runtime.export import export_onnx

    files = export_onnx(compact, tmp_path, "grouped")
    torch.manual_seed(11)
    other = tmp_path / "other.safetensors"
    save_weights(build_model("compact"), other, {})
    files.search.rename(tmp_path / "other.int8.onnx")
    with pytest.raises(DeviceError, match="quantised from other weights"):
        load_network("compact", other, device="cpu", precision="int8")
    network = load_network("compact", other, device="cpu")
    assert network.precision != "int8"
    assert "other.int8.onnx left aside" in network.reason
