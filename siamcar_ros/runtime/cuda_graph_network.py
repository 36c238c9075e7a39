"""CUDA graphs: the search branch as one launch, in half precision and channels last."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from siamcar_ros.model import SiamCAR
from siamcar_ros.runtime.fusion import INPUT_CHANNELS, KERNELS, correlation, fuse_
from siamcar_ros.runtime.graphs import SearchGraph, TemplateGraph, example_inputs
from siamcar_ros.runtime.network import DeviceError, Images, Placement, Template
from siamcar_ros.runtime.tensors import TensorNetwork, as_planes, as_tensor
from siamcar_ros.runtime.torch_network import DTYPES, prepared

_CALLS_BEFORE_CAPTURE = 3
_COMPARED_CALLS = 15
# The largest relative distance of maps that count as the same: bfloat16's rounding alone may reach
# half of it, unrelated maps 1.4.
_SAME = 0.5
_recording = threading.Lock()  # CUDA lets a process record one graph at a time


class CudaGraphNetwork(TensorNetwork):
    """The search branch, recorded once for each number of targets and replayed every frame.

    The model is copied. Without `kernels`, one of :data:`~siamcar_ros.runtime.fusion.KERNELS`, all
    that run here are timed and the fastest is taken.
    """

    gives_features = True

    def __init__(self, model: SiamCAR, placement: Placement, kernels: str | None = None) -> None:
        super().__init__(model, placement)
        if kernels is None:
            self._branches, note = _fastest(model, placement)
            self.reason += f"; {note}"
        else:
            self._branches = _started(model, placement, kernels)

    @property
    def kernels(self) -> str:
        """The kernels that it runs, one of :data:`~siamcar_ros.runtime.fusion.KERNELS`."""
        return self._branches.kernels

    @torch.inference_mode()
    def _template(self, z: Images) -> Template:
        return self._branches.template(as_tensor(z))

    @torch.inference_mode()
    def _maps(
        self, x: Images, template: Sequence[Tensor], features: bool = False
    ) -> list[NDArray[np.float32]]:
        joined, *rest = self._branches.maps(as_tensor(x), template, features)
        parts = joined[:, :2], joined[:, 2:6], joined[:, 6:], *rest
        return [part.numpy() for part in parts]


class _Branches:
    """Both branches with one kind of kernels, and the recordings of the search branch."""

    def __init__(self, model: SiamCAR, placement: Placement, kernels: str) -> None:
        self.kernels, self.device = kernels, torch.device(placement.device)
        self._dtype = DTYPES[placement.precision]
        ready = prepared(model, placement.device, placement.precision)
        plain = kernels == "plain"
        # The banded product runs on the tensor cores, a convolution with one group per channel
        # does not.
        self._template_graph = TemplateGraph(ready, banded=plain).eval()
        self._channels = 3 if plain else INPUT_CHANNELS
        with torch.cuda.device(self.device):
            if plain:
                self._search_graph = SearchGraph(ready, banded=True).eval()
            else:
                self._search_graph = _Forked(ready).eval()
                self._search_graph.correlate = correlation
                fuse_(ready, kernels)
            # With one stream and one pool the recordings share their memory; only one runs at a
            # time.
            self._stream, self._pool = torch.cuda.Stream(), torch.cuda.graph_pool_handle()
            self._done = torch.cuda.Event()
        self._recordings: dict[int, _Recording] = {}
        self._inputs: _Inputs | None = None

    def template(self, z: Tensor) -> Template:
        with torch.cuda.device(self.device):
            z = as_planes(z.to(self.device, non_blocking=True))
            planes = _blank(z.shape[0], self._channels, z.shape[-1], self._dtype, self.device)
            planes[:, :3].copy_(z)
            levels: Template = self._template_graph(planes)
            return levels

    def maps(
        self, x: Tensor, template: Sequence[Tensor], features: bool = False
    ) -> tuple[Tensor, ...]:
        """The maps cls, reg and cen as one tensor (B, 7, S, S), and the features if wanted.

        Features are what the head reads, (B, C, S, S). All are float32 on the CPU.
        """
        batch = x.shape[0]
        with torch.cuda.device(self.device):
            x = as_planes(x.to(self.device, non_blocking=True))
            if self._inputs is None or self._inputs.room < batch:
                self._inputs = _Inputs(batch, x, template, self._channels, self._dtype)
            recording = self._recordings.get(batch)
            if recording is None:
                with _recording:
                    recording = _Recording(
                        self._search_graph, self._inputs, batch, self._stream, self._pool
                    )
                self._recordings[batch] = recording
            recording.inputs.show(x, template)
            maps = recording.replay(features)
            self._done.record()
            self._done.synchronize()
        return tuple(part.clone() for part in maps)


class _Forked(SearchGraph):
    """The search branch with the head's towers on two streams, as neither fills a GPU."""

    def __init__(self, model: SiamCAR) -> None:
        super().__init__(model, banded=False)
        self._side = torch.cuda.Stream()

    def forward(self, x: Tensor, *template: Tensor) -> tuple[Tensor, ...]:
        reduced = self.reduced(x, *template)
        current = torch.cuda.current_stream()
        self._side.wait_stream(current)
        with torch.cuda.stream(self._side):
            distances = self.distances(reduced)
        scores = self.scores(reduced)
        current.wait_stream(self._side)
        return scores[:, :2], distances, scores[:, 2:], reduced


class _Inputs:
    """The inputs of recordings: search regions and templates, for up to `room` targets.

    The room is a power of two, so that all that were ever made take at most twice the memory of the
    largest.
    """

    def __init__(
        self, batch: int, x: Tensor, template: Sequence[Tensor], channels: int, dtype: torch.dtype
    ) -> None:
        self.room = 1 << (batch - 1).bit_length()
        self.x = _blank(self.room, channels, x.shape[-1], dtype, x.device)
        self.template = []
        for level in template:
            wide = level.shape[2] != level.shape[3]  # a stack of banded matrices
            layout = torch.contiguous_format if wide else torch.channels_last
            shape = (self.room, *level.shape[1:])
            self.template.append(
                torch.empty(shape, dtype=dtype, device=x.device, memory_format=layout)
            )
        self._shown: tuple[Tensor, ...] = ()
        self._shown_batch = 0

    def show(self, x: Tensor, template: Sequence[Tensor]) -> None:
        """Copy in the next search regions and, if they have changed, the templates."""
        batch, given = x.shape[0], tuple(template)
        self.x[:batch, :3].copy_(x)
        # While a track lasts its template is the same object.
        if batch != self._shown_batch or given is not self._shown:
            for own, level in zip(self.template, given, strict=True):
                own[:batch].copy_(level)
            self._shown, self._shown_batch = given, batch


class _Recording:
    """A CUDA graph for one batch size, on the inputs that it was made with."""

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
                torch.cat(graph(x, *template)[:3], 1)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        # Torch's own stream for captures belongs to the device that was current first. Other
        # threads may use the device meanwhile, as a second camera's upload does.
        with torch.cuda.graph(
            self._graph, pool=pool, stream=stream, capture_error_mode="thread_local"
        ):
            *maps, reduced = graph(x, *template)
            self._outputs = torch.cat(maps, 1), reduced
        self._host = [torch.empty(part.shape, pin_memory=True) for part in self._outputs]

    def replay(self, features: bool) -> list[Tensor]:
        """As :meth:`_Branches.maps`; valid once the stream has reached this point."""
        self._graph.replay()
        wanted = zip(self._host[: 1 + features], self._outputs, strict=False)
        return [host.copy_(part, non_blocking=True) for host, part in wanted]


def _started(model: SiamCAR, placement: Placement, kernels: str) -> _Branches:
    """Both branches, after a first run; DeviceError if they do not run here."""
    if kernels not in KERNELS:
        raise DeviceError(f"kernels are one of {', '.join(KERNELS)}, not {kernels!r}")
    try:
        branches = _Branches(model, placement, kernels)
        with torch.inference_mode():
            z, x = example_inputs(model, 1)
            branches.maps(x, branches.template(z))
    except torch.cuda.OutOfMemoryError as error:
        raise DeviceError(
            f"{placement.device} has too little free memory for {model.name}: end other programs "
            "on it, or choose another device"
        ) from error
    except Exception as error:  # of the compiler, Triton or cuDNN, which have no common base
        if kernels == "plain":
            raise
        first = str(error).strip().partition("\n")[0] or type(error).__name__
        why = f"the {kernels} kernels do not run on {placement.device}: {first}"
        raise DeviceError(why) from error
    return branches


def _fastest(model: SiamCAR, placement: Placement) -> tuple[_Branches, str]:
    """The fastest kernels that run here and give the plain kernels' maps, and the reason."""
    chosen: _Branches | None = None
    best, seconds = 0.0, dict[str, float]()
    notes: list[str] = []
    reference = torch.empty(0)
    z, x = example_inputs(model, 1)
    for kernels in KERNELS:
        try:
            branches = _started(model, placement, kernels)
        except DeviceError as error:
            if kernels == "plain":
                raise
            notes.append(str(error))
            continue
        with torch.inference_mode():
            template = branches.template(z)
            maps = branches.maps(x, template)[0]
            if chosen is None:
                reference = maps
            elif not _same(reference, maps):
                notes.append(f"the {kernels} kernels give other maps")
                continue
            seconds[kernels] = _seconds(branches, x, template)
        if chosen is None or seconds[kernels] < best:
            chosen, best = branches, seconds[kernels]
    assert chosen is not None
    told = ", ".join(f"{name} {1e3 * value:.2f} ms" for name, value in seconds.items())
    return chosen, "; ".join([f"{chosen.kernels} kernels, of {told}", *notes])


def _seconds(branches: _Branches, x: Tensor, template: Sequence[Tensor]) -> float:
    durations = []
    for _ in range(_COMPARED_CALLS):
        begin = perf_counter()
        branches.maps(x, template)
        durations.append(perf_counter() - begin)
    return median(durations)


def _same(expected: Tensor, got: Tensor) -> bool:
    """Whether (B, 7, S, S) maps are the same but for rounding; True if the expected ones overflow.

    Distances are compared by their logarithms.
    """
    if not expected.isfinite().all():
        return True
    for low, high in ((0, 2), (2, 6), (6, 7)):
        one, other = expected[:, low:high], got[:, low:high]
        if low == 2:
            one, other = one.clamp_min(1e-6).log(), other.clamp_min(1e-6).log()
        spread = float((one - one.mean()).norm())
        rounding = 0.01 * one.numel() ** 0.5  # matters if a map is nearly constant
        if not float((one - other).norm()) <= _SAME * spread + rounding:
            return False
    return True


def _blank(
    batch: int, channels: int, size: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """(B, channels, size, size) zeros, channels last."""
    images = torch.empty(
        (batch, channels, size, size),
        dtype=dtype,
        device=device,
        memory_format=torch.channels_last,
    )
    return images.zero_()
