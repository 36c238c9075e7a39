"""A recorded pass computes what the pass itself does."""

from __future__ import annotations

import contextlib
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from torch import Tensor, nn

from siamcar_ros.training import recorded
from siamcar_ros.training.recorded import RecordedPass


class Pass:
    """The gradient of a sum of products; counts its runs."""

    def __init__(self) -> None:
        self.weight = nn.Parameter(torch.tensor([1.0, 2.0]))
        self.runs = 0

    def __call__(self, x: Tensor) -> dict[str, Tensor]:
        self.runs += 1
        loss = (self.weight * x).sum()
        loss.backward()
        return {"loss": loss.detach()}

    def gradient_is(self, expected: Tensor) -> bool:
        return self.weight.grad is not None and torch.equal(self.weight.grad, expected)


class Graph:
    """A CUDA graph of the last :class:`Pass`, on a CPU."""

    of: RecordedPass
    replayed = 0

    def replay(self) -> None:
        Graph.replayed += 1
        owner: Any = Graph.of
        (weight,) = owner._parameters
        weight.grad.copy_(owner._inputs[0])
        owner._outputs["loss"].copy_((weight.detach() * owner._inputs[0]).sum())


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch) -> tuple[Pass, RecordedPass]:
    for name in ("Stream", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, MagicMock())
    monkeypatch.setattr(torch.cuda, "stream", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "graph", lambda *_, **__: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(Graph, "replayed", 0)
    whole = Pass()
    Graph.of = RecordedPass(whole, [whole.weight], torch.device("cpu"))
    return whole, Graph.of


def test_each_call_has_its_own_inputs_and_gradients(step: tuple[Pass, RecordedPass]) -> None:
    whole, recording = step
    for call in range(8):
        x = torch.tensor([float(call), 1.0])
        assert recording(x)["loss"] == call + 2
        assert whole.gradient_is(x)
    eager = recorded._CALLS_BEFORE_RECORDING
    assert (whole.runs, Graph.replayed) == (eager + 1, 8 - eager)


def test_it_is_recorded_anew_when_other_parameters_are_trained(
    step: tuple[Pass, RecordedPass],
) -> None:
    whole, recording = step
    for _ in range(5):
        recording(torch.ones(2))
    runs = whole.runs
    recording.forget()
    recording(torch.ones(2))
    assert whole.runs == runs + 1


def test_a_pass_that_cannot_be_recorded_goes_on_without(
    step: tuple[Pass, RecordedPass],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    whole, recording = step

    def refuse(*_: Any, **__: Any) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(torch.cuda, "graph", refuse)
    for call in range(6):
        x = torch.tensor([float(call), 1.0])
        assert recording(x)["loss"] == call + 2
        assert whole.gradient_is(x)
    assert whole.runs == 6
    assert [r.message for r in caplog.records] == [
        "training is slower without a CUDA graph, which failed: operation not permitted when "
        "stream is capturing"
    ]
