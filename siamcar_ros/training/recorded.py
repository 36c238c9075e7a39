"""A step's forward and backward pass as one CUDA graph."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)

_CALLS_BEFORE_RECORDING = 3  # in which cuDNN chooses its kernels


class RecordedPass:
    """A forward and backward pass that is recorded as a CUDA graph, and replayed from then on.

    A small network's pass consists of a thousand short kernels, and launching them takes the CPU
    longer than running them takes the GPU. The first calls run the pass as it is. If it cannot be
    recorded, all calls do, and a warning says why.

    Args:
        forward_backward: takes tensors whose shapes do not change from call to call, adds gradients
            to the parameters, and returns tensors, in containers of any kind. It must not wait for
            the GPU.
        parameters: those that it gives gradients to; a call discards the gradients of the last one.
        device: "cuda:N".
    """

    def __init__(
        self,
        forward_backward: Callable[..., Any],
        parameters: Sequence[nn.Parameter],
        device: torch.device,
    ) -> None:
        self._forward_backward, self._parameters = forward_backward, parameters
        self._stream = torch.cuda.Stream(device)
        self._refused = False
        self.forget()

    def forget(self) -> None:
        """Discard the recording, because other parameters are trained from now on."""
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: list[Tensor] = []
        self._outputs: Any = None
        self._calls = 0

    def __call__(self, *inputs: Tensor) -> Any:
        """Run the pass. What it returns is overwritten by the next call."""
        if self._graph is None and self._calls == _CALLS_BEFORE_RECORDING and not self._refused:
            self._record(inputs)
        if self._graph is None:
            self._calls += 1
            return self._run(inputs)
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given)
        self._graph.replay()
        return self._outputs

    def _run(self, inputs: Sequence[Tensor]) -> Any:
        """Run the pass on the stream on which it will be recorded, as PyTorch's manual demands."""
        self._clear()
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            outputs = self._forward_backward(*inputs)
        current.wait_stream(self._stream)
        return outputs

    def _record(self, inputs: Sequence[Tensor]) -> None:
        self._clear()
        graph, own = torch.cuda.CUDAGraph(), [tensor.clone() for tensor in inputs]
        try:
            # Other threads use the device meanwhile: one pins the loader's batches.
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                outputs = self._forward_backward(*own)
        except RuntimeError as error:  # an operation that waits for the GPU, or memory
            first = str(error).partition("\n")[0]
            logger.warning("training is slower without a CUDA graph, which failed: %s", first)
            self._refused = True
            return
        self._graph, self._inputs, self._outputs = graph, own, outputs

    def _clear(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None
