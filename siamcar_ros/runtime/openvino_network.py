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
from siamcar_ros.runtime.cache import cache_folder, fingerprint, is_whole, new_folder, put_in_place
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
        template, search = _converted(openvino, model)
        # The template is computed once and used in every frame: in full precision.
        self._template_request = _compiled(openvino, template, "fp32", threads)
        # One for each form that images may have, compiled when it is first given.
        self._search_requests: dict[torch.dtype, _Request] = {}
        self._compile_search = partial(
            _compiled, openvino, int8_search or search, placement.precision, threads
        )
        self._shown: tuple[Tensor, ...] = ()
        self._shown_targets: list[tuple[Tensor, ...]] = []

    def _template(self, z: Tensor) -> Template:
        samples = as_planes(z).float().split(1)
        parts = [self._template_request(sample) for sample in samples]
        return tuple(torch.cat(level) for level in zip(*parts, strict=True))

    def _maps(self, x: Tensor, template: Sequence[Tensor]) -> Maps:
        if x.dtype not in self._search_requests:
            self._search_requests[x.dtype] = self._compile_search(pixels=x.dtype == torch.uint8)
        request, targets = self._search_requests[x.dtype], self._targets(template)
        if len(x) == 1:
            cls, reg, cen = request(x, targets[0])
            return cls, reg, cen
        parts = [
            request(sample, targets[i if len(targets) > 1 else 0])
            for i, sample in enumerate(x.split(1))
        ]
        cls, reg, cen = (torch.cat(maps) for maps in zip(*parts, strict=True))
        return cls, reg, cen

    def _targets(self, template: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
        """A template by target; in every frame it is the same, and so then are the tensors."""
        given = tuple(template)
        if len(given) != len(self._shown) or any(
            new is not old for new, old in zip(given, self._shown, strict=True)
        ):
            self._shown = given
            self._shown_targets = list(zip(*(level.split(1) for level in given), strict=True))
        return self._shown_targets


class _Request:
    """A compiled graph of fixed shapes: tensors in, new tensors out.

    The graph reads its inputs in place: they are kept until others take their place.
    """

    def __init__(self, openvino: Any, compiled: Any) -> None:
        self._tensor = openvino.Tensor
        self._request = compiled.create_infer_request()
        self._outputs = [self._request.get_output_tensor(i) for i in range(len(compiled.outputs))]
        self._given: tuple[Tensor, ...] = ()
        self._kept: dict[int, Tensor] = {}

    def __call__(self, image: Tensor, template: tuple[Tensor, ...] = ()) -> tuple[Tensor, ...]:
        self._set(0, image)
        if template is not self._given:
            for port, level in enumerate(template, 1):
                self._set(port, level)
            self._given = template
        self._request.infer()
        return tuple(torch.from_numpy(output.data.copy()) for output in self._outputs)

    def _set(self, port: int, value: Tensor) -> None:
        kept = self._kept.get(port)
        if kept is not None and kept.data_ptr() == value.data_ptr() and value.is_contiguous():
            return  # the same memory: that which is kept cannot have become another's
        self._kept[port] = value = value.contiguous()
        self._request.set_input_tensor(port, self._tensor(value.numpy(), True))


def _converted(openvino: Any, model: SiamCAR) -> tuple[Path, Path]:
    """The template and search graphs in OpenVINO's format, from the user's cache on later calls."""
    version = openvino.__version__.partition("-")[0]
    folder = cache_folder("openvino") / f"{fingerprint(model)}-{version}-{GRAPH_VERSION}"
    template_file, search_file = folder / "template.xml", folder / "search.xml"
    files = (template_file, search_file)
    if not is_whole(*files, *(file.with_suffix(".bin") for file in files)):
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
            put_in_place(scratch / file.name, file)


def _compiled(
    openvino: Any, path: Path, precision: str, threads: int | None, pixels: bool = False
) -> _Request:
    """A graph compiled for the fewest milliseconds a frame.

    With `pixels` its first input is (1, n, n, 3) uint8.
    """
    core = openvino.Core()
    config: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        # Cores are shared with the rest of the robot: a pinned thread would wait for its own.
        "ENABLE_CPU_PINNING": False,
        # int8 is in the graph itself; the little that it leaves is no faster in bfloat16.
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
    }
    if threads is not None:
        config["INFERENCE_NUM_THREADS"] = threads
    model = core.read_model(path)
    if pixels:
        from openvino import Layout, Type
        from openvino.preprocess import PrePostProcessor

        if precision == "int8":
            _read_bytes(model)
        steps = PrePostProcessor(model)
        steps.input(0).tensor().set_element_type(Type.u8).set_layout(Layout("NHWC"))
        steps.input(0).model().set_layout(Layout("NCHW"))
        model = steps.build()
    return _Request(openvino, core.compile_model(model, "CPU", config))


def _read_bytes(model: Any) -> None:
    """Let a quantised graph's first convolution read an image's bytes as they are.

    The graph turns the image into bytes and back, which, where it is of bytes to begin with,
    OpenVINO takes for nothing at all, and then computes that convolution in floating point. As a
    range alone it is understood.
    """
    from openvino import opset13

    image = model.input(0).node
    steps = [image]
    while steps[-1].get_type_name() != "Convolution":
        (reader,) = steps[-1].output(0).get_target_inputs()
        steps.append(reader.get_node())
    low, high = (steps[1].input_value(i).get_node().data for i in (1, 2))
    if (low, high) != (0, 255):
        return  # calibrated on images without white
    ranged = opset13.fake_quantize(image, low, high, low, high, 256)
    steps[-1].input(0).replace_source_output(ranged.output(0))
    model.validate_nodes_and_infer_types()
