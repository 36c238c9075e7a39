"""OpenVINO: the fastest on CPUs, in bfloat16 where they multiply it natively, and in int8."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from siamcar_ros.model import SiamCAR, fold_batchnorm
from siamcar_ros.runtime.graphs import SearchGraph, TemplateGraph
from siamcar_ros.runtime.network import (
    Geometry,
    Maps,
    Network,
    Placement,
    Template,
    import_or_refuse,
)


class OpenVinoNetwork(Network):
    """Both graphs compiled for the CPU, for one target at a time; several are run one by one.

    On a CPU a batch is no faster than its parts, and a fixed shape is faster than any.

    Args:
        model: with its weights; not needed after construction.
        placement: of backend "openvino"; precision "fp32", "bf16" or "int8".
        int8_search: the quantised search graph (ONNX, form "grouped") for "int8".
        threads: at most so many; None for one a core.
    """

    def __init__(
        self,
        model: SiamCAR,
        placement: Placement,
        int8_search: Path | None = None,
        threads: int | None = None,
    ) -> None:
        super().__init__(Geometry.of(model), placement)
        openvino = import_or_refuse("openvino", "openvino", "openvino")
        core = openvino.Core()
        folded = fold_batchnorm(model)
        z = torch.zeros(1, 3, self.template_size, self.template_size)
        x = torch.zeros(1, 3, self.search_size, self.search_size)
        template_graph = TemplateGraph(folded, "grouped").eval()
        with torch.no_grad():
            template = template_graph(z)
        graph = _converted(openvino, template_graph, (z,))
        # The template is computed once and used in every frame: in full precision.
        self._template_request = _compiled(core, graph, "fp32", threads)
        if int8_search is None:
            search = _converted(openvino, SearchGraph(folded, "grouped").eval(), (x, *template))
        else:
            search = core.read_model(int8_search)
        self._search_request = _compiled(core, search, placement.precision, threads)

    def _template(self, z: Tensor) -> Template:
        parts = [_infer(self._template_request, (sample,)) for sample in z.split(1)]
        return tuple(torch.cat(level) for level in zip(*parts, strict=True))

    def _maps(self, x: Tensor, template: Sequence[Tensor]) -> Maps:
        parts = []
        for i, sample in enumerate(x.split(1)):
            own = [level[i : i + 1] if len(level) > 1 else level for level in template]
            parts.append(_infer(self._search_request, (sample, *own)))
        if len(parts) == 1:
            cls, reg, cen = parts[0]
        else:
            cls, reg, cen = (torch.cat(maps) for maps in zip(*parts, strict=True))
        return cls, reg, cen


def _converted(openvino: Any, graph: torch.nn.Module, inputs: tuple[Tensor, ...]) -> Any:
    """A graph with the shapes of the given inputs."""
    model = openvino.convert_model(graph, example_input=inputs)
    for port, value in zip(model.inputs, inputs, strict=True):
        port.get_node().set_partial_shape(openvino.PartialShape(list(value.shape)))
    model.validate_nodes_and_infer_types()
    return model


def _compiled(core: Any, model: Any, precision: str, threads: int | None) -> Any:
    """A request of a model compiled for the fewest milliseconds a frame."""
    config: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        # int8 is in the graph itself; what it leaves in floating point runs in bfloat16 where that
        # is native, and in float32 elsewhere.
        "INFERENCE_PRECISION_HINT": "f32" if precision == "fp32" else "bf16",
    }
    if precision == "int8" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        config["INFERENCE_PRECISION_HINT"] = "f32"
    if threads is not None:
        config["INFERENCE_NUM_THREADS"] = threads
    return core.compile_model(model, "CPU", config).create_infer_request()


def _infer(request: Any, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The outputs, copied out of the request's own memory."""
    request.infer([value.contiguous().numpy() for value in inputs], share_inputs=True)
    return tuple(torch.from_numpy(tensor.data.copy()) for tensor in request.output_tensors)
