"""OpenVINO: the fastest on CPUs, in bfloat16 where they multiply it natively, and in int8."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from siamcar_ros.model import SiamCAR, fold_batchnorm
from siamcar_ros.runtime.cache import cache_folder, fingerprint, new_folder
from siamcar_ros.runtime.graphs import (
    GRAPH_VERSION,
    SearchGraph,
    TemplateGraph,
    example_inputs,
)
from siamcar_ros.runtime.network import (
    Geometry,
    Maps,
    Network,
    Placement,
    Template,
    as_planes,
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
        template, search = _converted(openvino, model)
        # The template is computed once and used in every frame: in full precision.
        self._template_request = _compiled(core, template, "fp32", threads)
        # One for each form that images may have, compiled when it is first given.
        self._search_requests: dict[torch.dtype, Any] = {}
        self._compile_search = partial(
            _compiled, core, int8_search or search, placement.precision, threads
        )
        self._shown: tuple[Tensor, ...] = ()
        self._shown_memory: tuple[Tensor, ...] = ()
        self._shown_inputs: list[list[Any]] = []
        self._tensor = openvino.Tensor

    def _template(self, z: Tensor) -> Template:
        parts = []
        for sample in as_planes(z).float().contiguous().split(1):
            self._template_request.set_input_tensor(self._tensor(sample.numpy(), True))
            parts.append(_infer(self._template_request))
        return tuple(torch.cat(level) for level in zip(*parts, strict=True))

    def _maps(self, x: Tensor, template: Sequence[Tensor]) -> Maps:
        if x.dtype not in self._search_requests:
            self._search_requests[x.dtype] = self._compile_search(pixels=x.dtype == torch.uint8)
        request, x = self._search_requests[x.dtype], x.contiguous()
        batch = x.shape[0]
        parts = []
        for i in range(batch):
            request.set_input_tensor(0, self._tensor(x[i : i + 1].numpy(), True))
            for port, level in enumerate(self._template_inputs(template), 1):
                request.set_input_tensor(port, level[i if len(level) > 1 else 0])
            parts.append(_infer(request))
        if batch == 1:
            cls, reg, cen = parts[0]
        else:
            cls, reg, cen = (torch.cat(maps) for maps in zip(*parts, strict=True))
        return cls, reg, cen

    def _template_inputs(self, template: Sequence[Tensor]) -> list[list[Any]]:
        """A template as OpenVINO sees it, by level and target; in every frame it is the same."""
        given = tuple(template)
        if len(given) != len(self._shown) or any(
            new is not old for new, old in zip(given, self._shown, strict=True)
        ):
            self._shown = given
            # OpenVINO reads the tensors in place: they live as long as its views of them.
            self._shown_memory = tuple(level.contiguous() for level in given)
            self._shown_inputs = [
                [self._tensor(sample.numpy(), True) for sample in level.split(1)]
                for level in self._shown_memory
            ]
        return self._shown_inputs


def _converted(openvino: Any, model: SiamCAR) -> tuple[Path, Path]:
    """The template and search graphs in OpenVINO's format, from the user's cache on later calls."""
    version = openvino.__version__.partition("-")[0]
    folder = cache_folder("openvino") / f"{fingerprint(model)}-{version}-{GRAPH_VERSION}"
    template_file, search_file = folder / "template.xml", folder / "search.xml"
    if not (template_file.is_file() and search_file.is_file()):
        folded = fold_batchnorm(model).requires_grad_(False)
        z, x = example_inputs(model, 1)
        template_graph = TemplateGraph(folded, "grouped").eval()
        with torch.no_grad():
            template = template_graph(z)
        _convert(openvino, template_graph, (z,), template_file)
        search_graph = SearchGraph(folded, "grouped").eval()
        _convert(openvino, search_graph, (x, *template), search_file)
    return template_file, search_file


def _convert(openvino: Any, graph: torch.nn.Module, inputs: tuple[Tensor, ...], path: Path) -> None:
    """Write a graph for inputs of the given shapes; a reader never sees a part of it."""
    # Traced here: OpenVINO would trace it three times over, to check that it comes out equal.
    with warnings.catch_warnings():
        # Of shapes that become constants, as they shall, and of tracing's coming end.
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(graph, inputs, check_trace=False)
    model = openvino.convert_model(traced, example_input=inputs)
    for port, value in zip(model.inputs, inputs, strict=True):
        port.get_node().set_partial_shape(openvino.PartialShape(list(value.shape)))
    model.validate_nodes_and_infer_types()
    with new_folder(path.parent) as scratch:
        openvino.save_model(model, scratch / path.name, compress_to_fp16=False)
        for file in (path.with_suffix(".bin"), path):
            (scratch / file.name).replace(file)


def _compiled(
    core: Any, path: Path, precision: str, threads: int | None, pixels: bool = False
) -> Any:
    """A request of a model compiled for the fewest milliseconds a frame.

    With `pixels` its first input is (1, n, n, 3) uint8.
    """
    config: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        # Cores are shared with the rest of the robot: a pinned thread would wait for its own.
        "ENABLE_CPU_PINNING": False,
        # int8 is in the graph itself; what it leaves in floating point runs in bfloat16 where that
        # is native, and in float32 elsewhere.
        "INFERENCE_PRECISION_HINT": "f32" if precision == "fp32" else "bf16",
    }
    if precision == "int8" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        config["INFERENCE_PRECISION_HINT"] = "f32"
    if threads is not None:
        config["INFERENCE_NUM_THREADS"] = threads
    model = core.read_model(path)
    if pixels:
        from openvino import Layout, Type
        from openvino.preprocess import PrePostProcessor

        steps = PrePostProcessor(model)
        steps.input(0).tensor().set_element_type(Type.u8).set_layout(Layout("NHWC"))
        steps.input(0).model().set_layout(Layout("NCHW"))
        model = steps.build()
    return core.compile_model(model, "CPU", config).create_infer_request()


def _infer(request: Any) -> tuple[Tensor, ...]:
    """Run on the tensors that are set; the outputs, copied out of the request's own memory."""
    request.infer()
    return tuple(torch.from_numpy(tensor.data.copy()) for tensor in request.output_tensors)
