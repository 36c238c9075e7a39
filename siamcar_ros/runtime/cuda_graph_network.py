"""CUDA graphs: the whole search branch as one launch, in half precision and channels last."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from siamcar_ros.model import SiamCAR
from siamcar_ros.runtime.graphs import SearchGraph, TemplateGraph
from siamcar_ros.runtime.network import Geometry, Placement, Template
from siamcar_ros.runtime.tensors import TensorMaps, TensorNetwork, as_planes
from siamcar_ros.runtime.torch_network import DTYPES, prepared

_CALLS_BEFORE_CAPTURE = 3
# CUDA lets a process record one graph at a time.
_recording = threading.Lock()


class CudaGraphNetwork(TensorNetwork):
    """The search branch, recorded once for each number of targets and replayed every frame.

    The correlation is the banded matrix product of :mod:`siamcar_ros.runtime.graphs`, which runs
    on the tensor cores; a convolution with one group a channel does not.

    Args:
        model: with its weights; it is copied.
        placement: of backend "cudagraph" on "cuda:N"; precision "fp16", "bf16" or "fp32".
    """

    def __init__(self, model: SiamCAR, placement: Placement) -> None:
        super().__init__(Geometry.of(model), placement)
        self._dtype = DTYPES[placement.precision]
        ready = prepared(model, placement.device, placement.precision)
        self._template_graph = TemplateGraph(ready, "banded").eval()
        self._search_graph = SearchGraph(ready, "banded").eval()
        self._recordings: dict[int, _Recording] = {}
        self._inputs: _Inputs | None = None
        with torch.cuda.device(self.device):
            # One stream and one pool, so that recordings lie in the same memory: no two of them
            # are ever under way at once.
            self._stream, self._pool = torch.cuda.Stream(), torch.cuda.graph_pool_handle()
            self._done = torch.cuda.Event()

    def _template(self, z: Tensor) -> Template:
        z = as_planes(z.to(self.device))
        z = z.to(self._dtype, memory_format=torch.channels_last)
        levels: Template = self._template_graph(z)
        return levels

    def _maps(self, x: Tensor, template: Sequence[Tensor]) -> TensorMaps:
        batch, x = x.shape[0], as_planes(x.to(self.device, non_blocking=True))
        with torch.cuda.device(self.device):
            # Callers' work is only queued when the lock is given back, each on its own stream.
            current = torch.cuda.current_stream()
            current.wait_event(self._done)
            if self._inputs is None or self._inputs.room < batch:
                self._inputs = _Inputs(batch, x, template, self._dtype)
            recording = self._recordings.get(batch)
            if recording is None:
                with _recording:
                    recording = _Recording(
                        self._search_graph, self._inputs, batch, self._stream, self._pool
                    )
                self._recordings[batch] = recording
            recording.inputs.show(x, template)
            joined = recording.replay()
            self._done.record(current)
        return joined[:, :2], joined[:, 2:6], joined[:, 6:]


class _Inputs:
    """What recordings read: search regions and templates of so many targets or fewer.

    The room is a power of two, so that all that were ever made take twice the largest at most.
    """

    def __init__(
        self, batch: int, x: Tensor, template: Sequence[Tensor], dtype: torch.dtype
    ) -> None:
        self.room = 1 << (batch - 1).bit_length()
        self.x = torch.empty(
            (self.room, *x.shape[1:]),
            dtype=dtype,
            device=x.device,
            memory_format=torch.channels_last,
        )
        self.template = [level.new_empty((self.room, *level.shape[1:])) for level in template]
        self._shown: tuple[Tensor, ...] = ()
        self._shown_batch = 0

    def show(self, x: Tensor, template: Sequence[Tensor]) -> None:
        """Put in what is to be read next."""
        batch, given = x.shape[0], tuple(template)
        self.x[:batch].copy_(x)
        # A track's template is the same tensors in every frame: copied when they change.
        if (
            batch != self._shown_batch
            or len(given) != len(self._shown)
            or any(new is not old for new, old in zip(given, self._shown, strict=True))
        ):
            for own, level in zip(self.template, given, strict=True):
                own[:batch].copy_(level)
            self._shown, self._shown_batch = given, batch


class _Recording:
    """A CUDA graph for one batch size, on the inputs that were there when it was made."""

    def __init__(
        self,
        graph: SearchGraph,
        inputs: _Inputs,
        batch: int,
        stream: torch.cuda.Stream,
        pool: Any,
    ) -> None:
        self.inputs = inputs
        x, template = inputs.x[:batch], [level[:batch] for level in inputs.template]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_CALLS_BEFORE_CAPTURE):
                torch.cat(graph(x, *template), 1)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        # The stream is this device's: torch's own for captures belongs to the device that was
        # current first. Other threads may use the device meanwhile, such as a second camera's
        # upload.
        with torch.cuda.graph(
            self._graph, pool=pool, stream=stream, capture_error_mode="thread_local"
        ):
            self._joined = torch.cat(graph(x, *template), 1)

    def replay(self) -> Tensor:
        """(B, 7, S, S) float32: cls, reg and cen side by side."""
        self._graph.replay()
        return self._joined.clone()
