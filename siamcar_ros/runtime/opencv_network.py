"""OpenCV's own DNN module: the slowest backend, but always available."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from siamcar_ros.resources import shortened
from siamcar_ros.runtime.network import (
    DeviceError,
    Images,
    OneByOneNetwork,
    Placement,
    Template,
    as_planes,
    register_backend,
)
from siamcar_ros.runtime.source import Source

_OLDEST = (4, 6)
_VERSION = tuple(map(int, cv2.__version__.split(".")[:2]))


@register_backend("opencv", cpu=("fp32",), speed=10)
class OpenCvNetwork(OneByOneNetwork):
    """Both graphs in `cv2.dnn`; `threads` applies to all that OpenCV does in this process."""

    def __init__(self, source: Source, placement: Placement, threads: int | None = None) -> None:
        files = source.graphs()
        super().__init__(source.geometry, placement)
        if _VERSION < _OLDEST:
            raise DeviceError(
                f"the opencv backend needs OpenCV 4.6 or later, this is {cv2.__version__}: install "
                "openvino or onnxruntime"
            )
        if threads is not None:
            cv2.setNumThreads(threads)
        self._template_net, self._search_net = _read(files.template), _read(files.search)
        self._levels = list(self._template_net.getUnconnectedOutLayersNames())
        self.gives_features = "features" in self._search_net.getUnconnectedOutLayersNames()
        self._outputs = ["cls", "reg", "cen", "features"][: 3 + self.gives_features]

    def _template_of(self, z: Images) -> Template:
        self._template_net.setInput(as_planes(z), "z")
        return _copies(self._template_net.forward(self._levels))

    def _maps_of(self, x: Images, template: Template, features: bool) -> Template:
        self._search_net.setInput(as_planes(x), "x")
        for name, level in zip(self._levels, template, strict=True):
            self._search_net.setInput(level, name)
        # OpenCV 5 gives all outputs or none.
        outputs = self._search_net.forward(self._outputs)
        return _copies(outputs[: 3 + features])


def _read(path: Path) -> Any:
    data = path.read_bytes()
    if _VERSION < (5, 0):
        data = clips_as_attributes(data)
    try:
        return cv2.dnn.readNetFromONNX(np.frombuffer(data, np.uint8))
    except cv2.error as error:
        raise DeviceError(
            f"OpenCV {cv2.__version__} cannot read the graph {path}: {shortened(error, 300)}"
        ) from error


def clips_as_attributes(model: bytes) -> bytes:
    """Convert the inputs min and max of an ONNX model's Clip nodes to attributes.

    OpenCV 4.6 only reads these, which are from before opset 11. The fields are those of onnx.proto:
    ModelProto.graph 7; GraphProto.node 1, initializer 5; TensorProto.name 8, raw_data 9;
    NodeProto.input 1, op_type 4, attribute 5; AttributeProto.name 1, f 2, type 20.
    """
    parts = []
    for field, whole, graph in _fields(model):
        if field == 7:
            entries = list(_fields(graph))
            tensors = [_named(tensor) for number, _, tensor in entries if number == 5]
            values = {tensor.get(8): tensor.get(9, b"") for tensor in tensors}
            nodes = [
                _field(1, _clip_as_attributes(body, values)) if number == 1 else part
                for number, part, body in entries
            ]
            whole = _field(7, b"".join(nodes))
        parts.append(whole)
    return b"".join(parts)


def _clip_as_attributes(node: bytes, values: dict[bytes | None, bytes]) -> bytes:
    fields = list(_fields(node))
    inputs = [value for field, _, value in fields if field == 1]
    if _named(node).get(4) != b"Clip" or len(inputs) != 3:
        return node
    others = b"".join(part for field, part, _ in fields if field != 1)
    limits = zip((b"min", b"max"), (values[name] for name in inputs[1:]), strict=True)
    # A float (field 2, four bytes) of the kind FLOAT (field 20, 1).
    attributes = [_field(1, name) + b"\x15" + value + b"\xa0\x01\x01" for name, value in limits]
    return _field(1, inputs[0]) + others + b"".join(_field(5, each) for each in attributes)


def _named(message: bytes) -> dict[int, bytes]:
    return {field: value for field, _, value in _fields(message)}


def _field(number: int, value: bytes) -> bytes:
    """Encode a protobuf field of bytes."""
    length, size = b"", len(value)
    while size > 127:
        length += bytes([size & 127 | 128])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + value


def _fields(message: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield the number, the bytes and the value's bytes of each field of a protobuf message."""
    at = 0
    while at < len(message):
        begin = at
        tag, at = _varint(message, at)
        kind = tag & 7
        first = at
        if kind == 0:
            _, at = _varint(message, at)
        elif kind == 2:
            size, first = _varint(message, at)
            at = first + size
        else:
            at += 8 if kind == 1 else 4
        yield tag >> 3, message[begin:at], message[first:at]


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def _copies(outputs: Any) -> tuple[NDArray[np.float32], ...]:
    """Copies of the outputs, which the next call overwrites."""
    return tuple(np.array(output, np.float32) for output in outputs)
