"""Int8 quantization of the search graph for CPUs, calibrated on images.

Convolutions read 8-bit unsigned activations and multiply them by 7-bit signed weights, which have a
scale for each output channel. Their outputs are not quantized, so that sums and rectifiers work on
exact values, and a runtime can fuse a convolution, its rectifier and the next quantization into one
kernel. The template graph, which runs once per target, and the correlation, whose kernel is data,
stay in floating point. The channels of the correlation's output differ in range by tens of times
but share one scale, so they are equalized first, as are those of other layers.

x86 CPUs without VNNI add products of bytes in pairs in 16 bits: 2 * 255 * 64 fits, 2 * 255 * 128
overflows. Weights from -64 to 64, 7 bits, are therefore right on every CPU.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from siamcar_ros.files import move_into_place, scratch_folder
from siamcar_ros.runtime.network import Images, Placement, as_planes, import_or_refuse
from siamcar_ros.runtime.onnx_files import INT8_WEIGHT_BITS, GraphFacts, OnnxFiles
from siamcar_ros.runtime.onnx_network import OnnxNetwork
from siamcar_ros.runtime.source import graph_source

_ONE, _ZERO = np.array(1, np.float32), np.array(0, np.uint8)
_LARGEST_WEIGHT = 64

Pair = tuple[Images, Images]
"""A template (127 x 127) and a search region (255 x 255), each of batch 1."""


def quantize(files: OnnxFiles, pairs: Iterable[Pair], output: Path) -> None:
    """Write an int8 copy of a search graph of form "grouped", calibrated on a few dozen inputs."""
    onnx = import_or_refuse("onnx", "int8 quantization", "torch")
    import_or_refuse("onnxruntime", "int8 quantization", "torch")
    from onnxruntime.quantization import (
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    facts = GraphFacts.read(files.search)
    if facts.form != "grouped":
        raise ValueError(
            "int8 needs a search graph whose correlation is a convolution: export it with form "
            "'grouped'"
        )
    placement = Placement("onnxruntime", "cpu", "fp32", "it calibrates")
    network = OnnxNetwork(graph_source(files), placement)
    feeds = []
    for z, x in pairs:
        levels = {f"template{i}": level for i, level in enumerate(network.template(z))}
        feeds.append({"x": as_planes(x), **levels})
    if not feeds:
        raise ValueError("int8 needs images to be calibrated on, and there are none")
    with scratch_folder(output.parent, ".new-") as scratch:
        prepared, written = scratch / "prepared.onnx", scratch / output.name
        quant_pre_process(str(files.search), str(prepared), skip_symbolic_shape=True)
        prepared_graph = onnx.load(str(prepared))
        graph = prepared_graph.graph
        constants = {entry.name for entry in graph.initializer}
        correlations = [
            node.name
            for node in graph.node
            if node.op_type == "Conv" and node.input[1] not in constants
        ]
        equalize_cross_layer(prepared_graph, feeds)
        onnx.save(prepared_graph, str(prepared))
        quantize_static(
            str(prepared),
            str(written),
            SimpleNamespace(get_next=partial(next, iter(feeds), None)),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=correlations,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            reduce_range=True,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={
                "OpTypesToExcludeOutputQuantization": ["Conv"],
                # An image's bytes are quantized to themselves, however bright it is.
                "TensorQuantOverrides": {"x": [{"scale": _ONE, "zero_point": _ZERO}]},
            },
        )
        quantized = onnx.load(str(written))
        _round_kernels(quantized, prepared_graph)
        # The quantizer drops the graph's metadata.
        facts = replace(facts, weight_bits=INT8_WEIGHT_BITS)
        onnx.helper.set_model_props(quantized, facts.properties())
        onnx.save(quantized, str(written))
        move_into_place(written, output)


def equalize_cross_layer(model: Any, feeds: Sequence[dict[str, NDArray[np.float32]]]) -> None:
    """Make the channels of layers' outputs more alike in range, without changing the result.

    If only one layer reads another's output, each channel of that output is divided by the square
    root of its largest value, and the reader's kernel is multiplied by it; a rectifier or the
    correlation between them passes the factor on. The square root splits the difference between
    activations and kernel (cross-layer equalization, Nagel et al. 2019; SmoothQuant, Xiao et al.
    2023).

    The model, an ONNX search graph whose weights are constants, is changed in place. The ranges are
    measured on `feeds`, inputs by name.
    """
    from onnx import numpy_helper

    nodes = model.graph.node
    constants = {entry.name: entry for entry in model.graph.initializer}
    maker = {output: node for node in nodes for output in node.output}
    reads = Counter(name for node in nodes for name in node.input)

    def layer_behind(name: str) -> Any:
        """The convolution that sets the range of a tensor with one reader, if there is one."""
        node = maker.get(name)
        while node is not None and reads[name] == 1:
            if node.op_type == "Conv" and node.input[1] in constants:
                return node
            if node.op_type not in ("Conv", "Relu"):
                return None
            name = node.input[0]
            node = maker.get(name)
        return None

    def scale(name: str, factor: NDArray[Any]) -> None:
        array = numpy_helper.to_array(constants[name])
        array = (array * factor.reshape(-1, *[1] * (array.ndim - 1))).astype(np.float32)
        constants[name].CopyFrom(numpy_helper.from_array(array, name))

    links = []
    for reader in nodes:
        if reader.op_type == "Conv" and reader.input[1] in constants:
            parts = [reader.input[0]]
            source = maker.get(parts[0])
            if source is not None and source.op_type == "Concat":
                parts = list(source.input)
            layers = [layer_behind(part) for part in parts]
            if all(layers):
                links.append((reader, parts, layers))
    reach = _largest(model, [part for _, parts, _ in links for part in parts], feeds)
    for reader, parts, layers in links:
        # The bound is for channels that were almost silent during calibration.
        divisors = [np.sqrt(np.maximum(reach[p], 1e-3 * reach[p].max() + 1e-30)) for p in parts]
        for layer, divisor in zip(layers, divisors, strict=True):
            for name in layer.input[1:]:
                scale(name, 1 / divisor)
        kernel = constants[reader.input[1]]
        array, factor = numpy_helper.to_array(kernel), np.concatenate(divisors)
        # A depth-wise kernel has its channels in the first dimension.
        depthwise = len(array) > array.shape[1] == 1
        array = array * factor.reshape(*((-1, 1) if depthwise else (1, -1)), 1, 1)
        kernel.CopyFrom(numpy_helper.from_array(array.astype(np.float32), kernel.name))


def _round_kernels(quantized: Any, original: Any) -> None:
    """Round the weights again, so that the sum of each 2-D kernel is right to within 1/2.

    Neighboring activations are similar, so the error of the sum matters most (the kernel-wise
    step of SQuant, Guo et al. 2022). The weights closest to a half are rounded the other way.
    """
    from onnx import numpy_helper

    stored = {entry.name: entry for entry in quantized.graph.initializer}
    for entry in original.graph.initializer:
        weights = stored.get(f"{entry.name}_quantized")
        if weights is None or len(entry.dims) != 4:
            continue
        scale = numpy_helper.to_array(stored[f"{entry.name}_scale"])
        exact = numpy_helper.to_array(entry) / scale.reshape(-1, 1, 1, 1)
        exact = exact.reshape(*exact.shape[:2], -1)
        rounded = np.rint(exact)
        error = exact - rounded
        missing = np.rint(error.sum(2, keepdims=True))
        rank = np.argsort(np.argsort(-error * np.sign(missing), axis=2), axis=2)
        rounded += np.where(rank < abs(missing), np.sign(missing), 0)
        array = rounded.clip(-_LARGEST_WEIGHT, _LARGEST_WEIGHT).astype(np.int8).reshape(entry.dims)
        weights.CopyFrom(numpy_helper.from_array(array, weights.name))


def _largest(
    model: Any, names: Sequence[str], feeds: Sequence[dict[str, NDArray[np.float32]]]
) -> dict[str, NDArray[np.float32]]:
    """The largest magnitude in each channel of the named tensors over all feeds."""
    import onnx
    import onnxruntime

    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = onnxruntime.InferenceSession(
        probe.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    seen = [
        [np.abs(value).max((0, 2, 3)) for value in session.run(list(names), feed)] for feed in feeds
    ]
    return {
        name: np.max(values, axis=0)
        for name, values in zip(names, zip(*seen, strict=True), strict=True)
    }
