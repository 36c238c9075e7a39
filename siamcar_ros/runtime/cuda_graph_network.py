"""CUDA graphs: the whole search branch as one launch, in half precision and channels last."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import torch
from torch import Tensor

from siamcar_ros.model import SiamCAR
from siamcar_ros.runtime.graphs import SearchGraph, TemplateGraph
from siamcar_ros.runtime.network import (
    Geometry,
    Maps,
    Network,
    Placement,
    Template,
    as_planes,
)
from siamcar_ros.runtime.torch_network import DTYPES, prepared

_CALLS_BEFORE_CAPTURE = 3
# CUDA lets a process record one graph at a time.
_recording = threading.Lock()


class CudaGraphNetwork(Network):
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

    def _template(self, z: Tensor) -> Template:
        z = as_planes(z).to(self.device, self._dtype, memory_format=torch.channels_last)
        levels: Template = self._template_graph(z)
        return levels

    def _maps(self, x: Tensor, template: Sequence[Tensor]) -> Maps:
        batch, x = x.shape[0], as_planes(x)
        with torch.cuda.device(self.device):
            if batch not in self._recordings:
                with _recording:
                    self._recordings[batch] = _Recording(
                        self._search_graph, x, template, self._dtype
                    )
            joined = self._recordings[batch].replay(x, template)
        return joined[:, :2], joined[:, 2:6], joined[:, 6:]


class _Recording:
    """A CUDA graph for one batch size, with the memory that it reads and writes."""

    def __init__(
        self, graph: SearchGraph, x: Tensor, template: Sequence[Tensor], dtype: torch.dtype
    ) -> None:
        batch = x.shape[0]
        self._x = torch.empty_like(x, dtype=dtype, memory_format=torch.channels_last)
        self._template = [level.expand(batch, -1, -1, -1).clone() for level in template]
        self._shown: tuple[Tensor, ...] = ()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._x.copy_(x)
            for _ in range(_CALLS_BEFORE_CAPTURE):
                torch.cat(graph(self._x, *self._template), 1)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        # The stream is this device's: torch's own for captures belongs to the device that was
        # current first. Other threads may use the device meanwhile, such as a second camera's
        # upload.
        with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
            self._joined = torch.cat(graph(self._x, *self._template), 1)

    def replay(self, x: Tensor, template: Sequence[Tensor]) -> Tensor:
        """(B, 7, S, S) float32: cls, reg and cen side by side."""
        self._x.copy_(x)
        given = tuple(template)
        # A track's template is the same tensors in every frame: copied when they change.
        if len(given) != len(self._shown) or any(
            new is not old for new, old in zip(given, self._shown, strict=True)
        ):
            for own, level in zip(self._template, given, strict=True):
                own.copy_(level)
            self._shown = given
        self._graph.replay()
        return self._joined.clone()
