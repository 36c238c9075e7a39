"""OpenVINO: the fastest on CPUs, in bfloat16 where they multiply it natively, and in int8."""

from __future__ import annotations

import threading
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from siamcar_ros.runtime.network import (
    DeviceError,
    Images,
    OneByOneNetwork,
    Placement,
    Template,
    as_planes,
    import_or_refuse,
    register_backend,
)
from siamcar_ros.runtime.source import Source

_LOCK = threading.Lock()


@register_backend("openvino", packages=("openvino",), cpu=("fp32", "bf16", "int8"), speed=40)
class OpenVinoNetwork(OneByOneNetwork):
    """Both graphs compiled for the CPU."""

    def __init__(self, source: Source, placement: Placement, threads: int | None = None) -> None:
        files = source.graphs(precision=placement.precision)
        super().__init__(source.geometry, placement)
        import_or_refuse("openvino", "the openvino backend", "openvino")
        with _LOCK:
            core = _core()
        # The template is computed once and used in every frame: in full precision.
        self._template_request = _compiled(core, files.template, "fp32", threads)
        outputs = core.read_model(files.search).outputs
        self.gives_features = any("features" in output.names for output in outputs)
        # One for each form that images may have, without the features and with them, compiled when
        # it is first wanted.
        self._search_requests: dict[tuple[bool, bool], _Request] = {}
        self._compile_search = partial(_compiled, core, files.search, placement.precision, threads)

    def _template_of(self, z: Images) -> Template:
        return self._template_request(as_planes(z))

    def _maps_of(self, x: Images, template: Template, features: bool) -> Template:
        pixels = x.dtype == np.uint8
        request = self._search_requests.get((pixels, features))
        if request is None:
            request = self._compile_search(pixels=pixels, features=features)
            self._search_requests[pixels, features] = request
        return request(x if pixels else as_planes(x), template)


class _Request:
    """A compiled graph of fixed shapes: arrays in, new arrays out.

    The graph reads its inputs in place: they are kept until others take their place.
    """

    def __init__(self, compiled: Any) -> None:
        from openvino import Tensor

        self._tensor = Tensor
        self._request = compiled.create_infer_request()
        self._outputs = [self._request.get_output_tensor(i) for i in range(len(compiled.outputs))]
        self._given: Template = ()
        self._kept: dict[int, NDArray[Any]] = {}

    def __call__(self, image: NDArray[Any], template: Template = ()) -> Template:
        self._set(0, image)
        if template is not self._given:
            for port, level in enumerate(template, 1):
                self._set(port, level)
            self._given = template
        self._request.infer()
        return tuple(output.data.copy() for output in self._outputs)

    def _set(self, port: int, value: NDArray[Any]) -> None:
        self._kept[port] = np.ascontiguousarray(value)
        self._request.set_input_tensor(port, self._tensor(self._kept[port], True))


@cache
def _core() -> Any:
    """The process's only core, which is never released.

    A core's CPU plugin gives the thread that loads it a stack for signal handlers, and unmaps it
    when it is released. If another plugin was loaded since, or the release is in another thread,
    that stack stays registered: the next signal, Ctrl-C for instance, is a segmentation fault.
    """
    from openvino import Core

    return Core()


def _compiled(
    core: Any,
    path: Path,
    precision: str,
    threads: int | None,
    pixels: bool = False,
    features: bool = False,
) -> _Request:
    """A graph compiled for the lowest latency.

    With `pixels` its first input is (1, n, n, 3) uint8. Without `features` that output is left out.
    """
    config: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        # Cores are shared with the rest of the robot: a pinned thread would wait for its own.
        "ENABLE_CPU_PINNING": False,
        # int8 is in the graph itself; what it leaves in floating point is no faster in bfloat16.
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
    }
    if threads is not None:
        config["INFERENCE_NUM_THREADS"] = threads
    model = core.read_model(path)
    for result in model.get_results():
        if not features and "features" in result.input_value(0).get_names():
            model.remove_result(result)
    if pixels:
        from openvino import Layout, Type
        from openvino.preprocess import PrePostProcessor

        if precision == "int8":
            _read_bytes(model)
        steps = PrePostProcessor(model)
        steps.input(0).tensor().set_element_type(Type.u8).set_layout(Layout("NHWC"))
        steps.input(0).model().set_layout(Layout("NCHW"))
        model = steps.build()
    try:
        return _Request(core.compile_model(model, "CPU", config))
    except RuntimeError as error:  # for bf16, say, if ONEDNN_MAX_CPU_ISA hides its instructions
        raise DeviceError(
            f"OpenVINO cannot compile {path.name} in {precision} for this CPU: choose another "
            f"precision or backend ({' '.join(str(error).split())})"
        ) from error


def _read_bytes(model: Any) -> None:
    """Let a quantized graph's first convolution read an image's bytes as they are.

    The graph quantizes the image and dequantizes it again. If the input already is bytes, OpenVINO
    removes both steps and computes the convolution in floating point. With the range alone in their
    place, it stays in int8.
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
