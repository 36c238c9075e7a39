"""ONNX Runtime: on any CPU, and on GPUs with its CUDA and TensorRT providers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from siamcar_ros.files import sha256
from siamcar_ros.runtime.cache import cache_folder
from siamcar_ros.runtime.network import (
    DeviceError,
    Images,
    Maps,
    Network,
    OneByOneNetwork,
    Placement,
    Template,
    as_planes,
    import_or_refuse,
    register_backend,
)
from siamcar_ros.runtime.source import Source

_OUTPUTS = (*Maps._fields, "features")


@register_backend(
    "onnxruntime",
    packages=("onnxruntime",),
    cpu=("fp32", "int8"),
    cuda=("fp32", "fp16"),
    speed=30,
)
def onnx_network(source: Source, placement: Placement, threads: int | None = None) -> Network:
    """ONNX Runtime's network for a placement.

    On "cuda:N", "fp16" uses the TensorRT provider, which cannot run convolutions whose kernel is an
    input, and "fp32" the CUDA provider; both run batches.
    """
    if placement.device == "cpu" and source.form != "banded":
        return OnnxNetwork(source, placement, threads)
    return BatchedOnnxNetwork(source, placement, threads)


class OnnxNetwork(OneByOneNetwork):
    """The graphs of form "grouped", each in a session of its own, on the CPU."""

    def __init__(self, source: Source, placement: Placement, threads: int | None = None) -> None:
        files = source.graphs(precision=placement.precision)
        super().__init__(source.geometry, placement)
        self._template_session, self._search_session = (
            open_session(path, placement, threads) for path in (files.template, files.search)
        )
        self._inputs = [entry.name for entry in self._search_session.get_inputs()]
        self.gives_features = _gives_features(self._search_session)

    def _template_of(self, z: Images) -> Template:
        return tuple(self._template_session.run(None, {"z": as_planes(z)}))

    def _maps_of(
        self, x: Images, template: Template, features: bool
    ) -> Sequence[NDArray[np.float32]]:
        feed = dict(zip(self._inputs, (as_planes(x), *template), strict=True))
        maps: list[NDArray[np.float32]] = self._search_session.run(_OUTPUTS[: 3 + features], feed)
        return maps


class BatchedOnnxNetwork(Network):
    """The graphs of form "banded", for any batch, as on GPUs."""

    def __init__(self, source: Source, placement: Placement, threads: int | None = None) -> None:
        files = source.graphs("banded")
        super().__init__(source.geometry, placement)
        on_gpu = placement.device != "cpu"
        engines = _engine_folder(files.template, files.search) if on_gpu else None
        self._template_session, self._search_session = (
            open_session(path, placement, threads, engines)
            for path in (files.template, files.search)
        )
        self._inputs = [entry.name for entry in self._search_session.get_inputs()]
        self.gives_features = _gives_features(self._search_session)
        kind, _, number = placement.device.partition(":")
        self._memory = kind, int(number or 0)
        self._shown: tuple[tuple[Any, ...], int] = (), 0
        self._values: list[Any] = []

    def _template(self, z: Images) -> Template:
        return tuple(self._template_session.run(None, {"z": as_planes(z)}))

    def _maps(
        self, x: Images, template: Sequence[Any], features: bool = False
    ) -> Sequence[NDArray[np.float32]]:
        given, binding = tuple(template), self._search_session.io_binding()
        shown, batch = self._shown
        if batch != len(x) or given is not shown:
            # The template is the same object in every frame, so its arrays stay on the device.
            from onnxruntime import OrtValue

            levels = (np.broadcast_to(level, (len(x), *level.shape[1:])) for level in given)
            self._values = [
                OrtValue.ortvalue_from_numpy(np.ascontiguousarray(level), *self._memory)
                for level in levels
            ]
            self._shown = given, len(x)
        binding.bind_cpu_input(self._inputs[0], as_planes(x))
        for name, value in zip(self._inputs[1:], self._values, strict=True):
            binding.bind_ortvalue_input(name, value)
        for name in _OUTPUTS[: 3 + features]:
            binding.bind_output(name)
        self._search_session.run_with_iobinding(binding)
        maps: list[NDArray[np.float32]] = binding.copy_outputs_to_cpu()
        return maps


def _gives_features(search: Any) -> bool:
    return any(entry.name == _OUTPUTS[-1] for entry in search.get_outputs())


def providers_for(
    available: Sequence[str], placement: Placement, engines: Path | None = None
) -> list[Any]:
    """ONNX Runtime's execution providers for a placement, the preferred one first.

    "fp16" needs TensorRT, as the CUDA provider does not have it. TensorRT's `engines` lie in a
    folder for these graphs alone: their names depend on the names in a graph, not on the weights.
    """
    if placement.device == "cpu":
        return ["CPUExecutionProvider"]
    name = "CUDAExecutionProvider"
    device = {"device_id": placement.device.partition(":")[2] or "0"}
    options = dict(device)
    others: list[Any] = ["CPUExecutionProvider"]
    if placement.precision == "fp16":
        name = "TensorrtExecutionProvider"
        # TensorRT only takes "True" and "False" here.
        options |= {"trt_fp16_enable": "True", "trt_timing_cache_enable": "True"}
        if engines is not None:
            options |= {"trt_engine_cache_enable": "True", "trt_engine_cache_path": str(engines)}
    if name not in available:
        raise DeviceError(
            f"the installed onnxruntime has no {name} for {placement.precision} on "
            f"{placement.device} (it has {', '.join(available)}): install onnxruntime-gpu, or "
            "choose backend 'cudagraph'"
        )
    if name != "CUDAExecutionProvider" and "CUDAExecutionProvider" in available:
        others.insert(0, ("CUDAExecutionProvider", device))
    return [(name, options), *others]


def open_session(
    graph: Path, placement: Placement, threads: int | None = None, engines: Path | None = None
) -> Any:
    """A session with the providers of a placement, of which the first must have started.

    By itself ONNX Runtime would silently use another one.
    """
    runtime = import_or_refuse("onnxruntime", "the onnxruntime backend", "onnxruntime")
    options = runtime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    # Between frames the cores are for the rest of the robot.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    providers = providers_for(runtime.get_available_providers(), placement, engines)
    wanted = providers[0] if isinstance(providers[0], str) else providers[0][0]
    advice = "install the libraries that it needs, or choose backend 'cudagraph' or device 'cpu'"
    try:
        session = runtime.InferenceSession(
            str(graph), options, providers=providers, enable_fallback=0
        )
    except Exception as error:  # its own exceptions have no common base
        if wanted == "CPUExecutionProvider":
            raise DeviceError(f"ONNX Runtime cannot read the graph {graph}: {error}") from error
        raise DeviceError(
            f"ONNX Runtime could not start its {wanted}: {error}; {advice}"
        ) from error
    started = session.get_providers()
    if wanted not in started:
        raise DeviceError(
            f"ONNX Runtime could not start its {wanted} (it has started {', '.join(started)}): "
            + advice
        )
    return session


def _engine_folder(*graphs: Path) -> Path:
    return cache_folder(f"tensorrt/{sha256(*graphs)[:16]}")
