"""ONNX Runtime: on any CPU, and on GPUs by its CUDA and TensorRT providers."""

from __future__ import annotations

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
        DeviceError: a GPU is asked for and the installed package has no provider for one.
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
        providers = providers_for(runtime.get_available_providers(), placement)
        self._template_session, self._search_session = (
            runtime.InferenceSession(str(path), options, providers=providers)
            for path in (template_graph, search_graph)
        )
        self._inputs = [entry.name for entry in self._search_session.get_inputs()]
        # The grouped form, int8's, is for one target at a time.
        self._one_by_one = self._search_session.get_inputs()[0].shape[0] == 1

    def _template(self, z: Tensor) -> Template:
        z = as_planes(z)
        samples = z.split(1) if self._one_by_one else (z,)
        name = self._template_session.get_inputs()[0].name
        parts = [self._template_session.run(None, {name: _array(sample)}) for sample in samples]
        return tuple(
            torch.from_numpy(np.concatenate(level)).to(self.device)
            for level in zip(*parts, strict=True)
        )

    def _maps(self, x: Tensor, template: Sequence[Tensor]) -> Maps:
        x = as_planes(x)
        if not self._one_by_one:
            return self._run(x, [level.expand(x.shape[0], -1, -1, -1) for level in template])
        parts = [
            self._run(sample, [level[i : i + 1] if len(level) > 1 else level for level in template])
            for i, sample in enumerate(x.split(1))
        ]
        cls, reg, cen = (torch.cat(maps) for maps in zip(*parts, strict=True))
        return cls, reg, cen

    def _run(self, x: Tensor, template: Sequence[Tensor]) -> Maps:
        feed = dict(zip(self._inputs, map(_array, (x, *template)), strict=True))
        outputs = self._search_session.run(None, feed)
        cls, reg, cen = (torch.from_numpy(output).to(self.device) for output in outputs)
        return cls, reg, cen


def providers_for(available: Sequence[str], placement: Placement) -> list[Any]:
    """ONNX Runtime's execution providers for a placement, the preferred one first.

    Raises:
        DeviceError: none of them runs there.
    """
    if placement.device == "cpu":
        return ["CPUExecutionProvider"]
    number = placement.device.partition(":")[2] or "0"
    fp16 = placement.precision == "fp16"
    options: dict[str, dict[str, object]] = {
        "TensorrtExecutionProvider": {
            "device_id": number,
            "trt_fp16_enable": fp16,
            "trt_engine_cache_enable": True,
            "trt_engine_cache_path": str(_engine_folder()),
        },
        "CUDAExecutionProvider": {"device_id": number},
    }
    chosen = [(name, options[name]) for name in options if name in available]
    if not chosen:
        raise DeviceError(
            f"the installed onnxruntime has no provider for {placement.device} (it has "
            f"{', '.join(available)}): install onnxruntime-gpu, or choose backend 'cudagraph'"
        )
    return [*chosen, "CPUExecutionProvider"]


def _engine_folder() -> Path:
    from siamcar_ros.runtime.cache import cache_folder

    return cache_folder("tensorrt")


def _array(value: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = value.cpu().float().contiguous().numpy()
    return array
