"""ONNX Runtime: on any CPU, and on GPUs by its CUDA and TensorRT providers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from siamcar_ros.runtime.network import (
    DeviceError,
    Geometry,
    Maps,
    Network,
    Placement,
    Template,
    as_planes,
    import_or_refuse,
)


class OnnxNetwork(Network):
    """A template and a search graph, each in a session of its own.

    Args:
        geometry: of the network that was exported.
        placement: of backend "onnxruntime"; on "cuda:N" the TensorRT provider is used where the
            installed package has it, else the CUDA provider.
        template_graph, search_graph: ONNX files from :func:`siamcar_ros.runtime.export_onnx`.
        threads: at most so many on a CPU; None for one a core.

    Raises:
        DeviceError: a GPU is asked for, and the installed package has no provider for one that
            would run in this precision, or the provider does not start.
    """

    def __init__(
        self,
        geometry: Geometry,
        placement: Placement,
        template_graph: Path,
        search_graph: Path,
        threads: int | None = None,
    ) -> None:
        super().__init__(geometry, placement)
        runtime = import_or_refuse("onnxruntime", "onnxruntime", "onnx")
        options = runtime.SessionOptions()
        if threads is not None:
            options.intra_op_num_threads = threads
        # Between frames the cores belong to the rest of the robot.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        graphs = (template_graph, search_graph)
        folder = _engine_folder(*graphs) if placement.device != "cpu" else None
        providers = providers_for(runtime.get_available_providers(), placement, folder)
        self._template_session, self._search_session = (
            _session(runtime, path, options, providers) for path in graphs
        )
        self._inputs = [entry.name for entry in self._search_session.get_inputs()]
        self._outputs = [entry.name for entry in self._search_session.get_outputs()]
        # The grouped form, int8's, is for one target at a time.
        self._one_by_one = self._search_session.get_inputs()[0].shape[0] == 1
        kind, _, number = placement.device.partition(":")
        self._memory = kind, int(number or 0)
        self._value = runtime.OrtValue.ortvalue_from_numpy
        self._binding = self._search_session.io_binding()
        self._shown: tuple[tuple[Tensor, ...], int] = (), 0
        self._shown_values: list[list[Any]] = []

    def _template(self, z: Tensor) -> Template:
        z = as_planes(z)
        samples = z.split(1) if self._one_by_one else (z,)
        name = self._template_session.get_inputs()[0].name
        parts = [self._template_session.run(None, {name: _array(sample)}) for sample in samples]
        return tuple(torch.from_numpy(np.concatenate(level)) for level in zip(*parts, strict=True))

    def _maps(self, x: Tensor, template: Sequence[Tensor]) -> Maps:
        x = as_planes(x)
        samples = x.split(1) if self._one_by_one else (x,)
        values = self._template_values(template, x.shape[0])
        parts = [self._run(*each) for each in zip(samples, values, strict=True)]
        cls, reg, cen = parts[0] if len(parts) == 1 else map(torch.cat, zip(*parts, strict=True))
        return cls, reg, cen

    def _run(self, x: Tensor, template: Sequence[Any]) -> Maps:
        binding, (kind, number) = self._binding, self._memory
        if kind == "cpu":
            array = _array(x)  # read in place: it has to last as long as the run
            binding.bind_cpu_input(self._inputs[0], array)
        else:
            x = x.to(self.device).float().contiguous()
            # Its stream is not torch's.
            torch.cuda.current_stream(x.device).synchronize()
            name, shape = self._inputs[0], tuple(x.shape)
            binding.bind_input(name, kind, number, np.float32, shape, x.data_ptr())
        for name, value in zip(self._inputs[1:], template, strict=True):
            binding.bind_ortvalue_input(name, value)
        for name in self._outputs:  # anew: the shape is that of this batch
            binding.bind_output(name)
        self._search_session.run_with_iobinding(binding)
        cls, reg, cen = map(torch.from_numpy, binding.copy_outputs_to_cpu())
        return cls, reg, cen

    def _template_values(self, template: Sequence[Tensor], batch: int) -> list[list[Any]]:
        """A template on the device, by run and level; in every frame it is the same."""
        given = tuple(template)
        shown, shown_batch = self._shown
        if (
            batch != shown_batch
            or len(given) != len(shown)
            or any(new is not old for new, old in zip(given, shown, strict=True))
        ):
            levels = [level.expand(batch, -1, -1, -1) for level in given]
            count = 1 if self._one_by_one else batch
            runs = zip(*(level.split(count) for level in levels), strict=True)
            self._shown_values = [
                [self._value(_array(level), *self._memory) for level in run] for run in runs
            ]
            self._shown = given, batch
        return self._shown_values


def providers_for(
    available: Sequence[str], placement: Placement, engines: Path | None = None
) -> list[Any]:
    """ONNX Runtime's execution providers for a placement, the preferred one first.

    Args:
        available: those that the installed package was built with.
        placement: TensorRT is for "fp16", which the CUDA provider does not have.
        engines: where TensorRT keeps the engines of the graphs to be run, and of no others: its
            own key of an engine holds the graph's names and not its weights.

    Raises:
        DeviceError: none of them runs there in that precision.
    """
    if placement.device == "cpu":
        return ["CPUExecutionProvider"]
    name = "CUDAExecutionProvider"
    device = {"device_id": placement.device.partition(":")[2] or "0"}
    options = dict(device)
    others: list[Any] = ["CPUExecutionProvider"]
    if placement.precision == "fp16":
        name = "TensorrtExecutionProvider"
        # Of these it takes "True" and "False" only.
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


def _session(runtime: Any, graph: Path, options: Any, providers: Sequence[Any]) -> Any:
    """A session of the first provider, the others for what that one has no kernel for.

    Raises:
        DeviceError: ONNX Runtime could not start it, and would have run on another one unsaid.
    """
    wanted = providers[0] if isinstance(providers[0], str) else providers[0][0]
    advice = "install the libraries that it needs, or choose backend 'cudagraph' or device 'cpu'"
    try:
        session = runtime.InferenceSession(
            str(graph), options, providers=list(providers), enable_fallback=0
        )
    except Exception as error:  # its own exceptions have no common base
        if wanted == "CPUExecutionProvider":
            raise
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
    from siamcar_ros.runtime.cache import cache_folder

    digest = hashlib.sha256()
    for graph in graphs:
        digest.update(graph.read_bytes())
    return cache_folder(f"tensorrt/{digest.hexdigest()[:16]}")


def _array(value: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = value.cpu().float().contiguous().numpy()
    return array
