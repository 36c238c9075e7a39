"""Int8 for CPUs with VNNI: calibrated on images, and judged by the tracking that it costs.

What the search graph's convolutions read is quantised, with 8-bit unsigned activations and 8-bit
signed weights that have a scale for each output channel; what they write is not, so that sums and
rectifiers see the exact value, and a runtime makes one kernel of a convolution, its rectifier and
the next one's quantisation. In floating point stay the template graph (once a target), the
correlation (its kernel is data), what reads its response, whose range is wide, and the last
convolutions, whose outputs are coordinates and scores.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from siamcar_ros.model import SiamCAR
from siamcar_ros.runtime.cache import new_folder
from siamcar_ros.runtime.export import OnnxFiles
from siamcar_ros.runtime.network import Geometry, Placement, import_or_refuse
from siamcar_ros.runtime.onnx_network import OnnxNetwork

Pair = tuple[Tensor, Tensor]
"""A template (1, 3, 127, 127) and a search region (1, 3, 255, 255), float32 BGR 0..255."""


def quantise(model: SiamCAR, files: OnnxFiles, pairs: Iterable[Pair], output: Path) -> None:
    """Write an int8 copy of a search graph.

    Args:
        model: the network that the files were exported from.
        files: its graphs, of form "grouped".
        pairs: what the network will see; a few dozen are enough.
        output: the int8 search graph.

    Raises:
        DeviceError: the packages ``onnx`` and ``onnxruntime`` are not installed.
        ValueError: there are no pairs, or the graph is of form "banded".
    """
    onnx = import_or_refuse("onnx", "int8 quantisation", "onnx")
    import_or_refuse("onnxruntime", "int8 quantisation", "onnx")
    from onnxruntime.quantization import (
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    placement = Placement("onnxruntime", "cpu", "fp32", "for calibration")
    network = OnnxNetwork(Geometry.of(model), placement, files.template, files.search)
    feeds = [_feed(network, z, x) for z, x in pairs]
    if not feeds:
        raise ValueError("int8 needs images to be calibrated on, and there are none")
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with new_folder(output.parent) as scratch:
            prepared, written = scratch / "prepared.onnx", scratch / output.name
            quant_pre_process(str(files.search), str(prepared), skip_symbolic_shape=True)
            quantize_static(
                str(prepared),
                str(written),
                _Feeds(feeds),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["Conv"],
                nodes_to_exclude=_kept_in_float(onnx.load(str(prepared)).graph),
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
                extra_options={"OpTypesToExcludeOutputQuantization": ["Conv"]},
            )
            # The quantiser drops the properties that tell what the graph is of.
            source, quantised = onnx.load(str(files.search)), onnx.load(str(written))
            del quantised.metadata_props[:]
            quantised.metadata_props.extend(source.metadata_props)
            onnx.save(quantised, str(written))
            written.replace(output)
    finally:
        logger.setLevel(level)


class _Feeds:
    """Inputs one after another, as ONNX Runtime's calibration asks for them."""

    def __init__(self, feeds: Sequence[dict[str, NDArray[np.float32]]]) -> None:
        self._iterator: Iterator[dict[str, NDArray[np.float32]]] = iter(feeds)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """The next, None after the last."""
        return next(self._iterator, None)


def _feed(network: OnnxNetwork, z: Tensor, x: Tensor) -> dict[str, NDArray[np.float32]]:
    feed = {"x": x.numpy()}
    for i, level in enumerate(network.template(z)):
        feed[f"template{i}"] = level.numpy()
    return feed


def _kept_in_float(graph: Any) -> list[str]:
    """Convolutions whose kernel is no constant, what reads them, and those that give a map.

    Raises:
        ValueError: no kernel is an input: the correlation is not a convolution here.
    """
    constants = {entry.name for entry in graph.initializer}
    constants.update(
        output for node in graph.node if node.op_type == "Constant" for output in node.output
    )
    kept = []
    response: set[str] = set()
    for node in graph.node:
        read = not response.isdisjoint(node.input)
        if node.op_type == "Conv":
            correlation = node.input[1] not in constants
            if correlation or read:
                kept.append(node.name)
            if correlation:
                response.update(node.output)
        elif read:
            response.update(node.output)
    if not response:
        raise ValueError(
            "int8 needs a search graph whose correlation is a convolution: export it with form "
            "'grouped'"
        )
    reaching = {entry.name for entry in graph.output}
    for node in reversed(graph.node):
        if reaching.isdisjoint(node.output):
            continue
        if node.op_type == "Conv":
            kept.append(node.name)
        else:
            reaching.update(node.input)
    return kept
