"""OpenCV's own DNN module: the slowest, and the one that is always there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

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


@register_backend("opencv", cpu=("fp32",), speed=10)
class OpenCvNetwork(OneByOneNetwork):
    """Both graphs in `cv2.dnn`.

    Args:
        source: of the network; its graphs of form "grouped" are read.
        placement: of backend "opencv", precision "fp32".
        threads: of all that OpenCV does in this process; None leaves them as they are.

    Raises:
        DeviceError: OpenCV is older than 4.6.
    """

    def __init__(self, source: Source, placement: Placement, threads: int | None = None) -> None:
        files = source.graphs()
        super().__init__(source.geometry, placement)
        if tuple(map(int, cv2.__version__.split(".")[:2])) < _OLDEST:
            raise DeviceError(
                f"the opencv backend needs OpenCV 4.6 or later, this is {cv2.__version__}: install "
                "openvino or onnxruntime"
            )
        if threads is not None:
            cv2.setNumThreads(threads)
        self._template_net, self._search_net = _read(files.template), _read(files.search)
        self._levels = list(self._template_net.getUnconnectedOutLayersNames())

    def _template_of(self, z: Images) -> Template:
        self._template_net.setInput(as_planes(z), "z")
        return _copies(self._template_net.forward(self._levels))

    def _maps_of(self, x: Images, template: Template) -> Template:
        self._search_net.setInput(as_planes(x), "x")
        for name, level in zip(self._levels, template, strict=True):
            self._search_net.setInput(level, name)
        return _copies(self._search_net.forward(["cls", "reg", "cen"]))


def _read(path: Path) -> Any:
    try:
        return cv2.dnn.readNetFromONNX(str(path))
    except cv2.error as error:
        raise DeviceError(f"OpenCV cannot read the graph {path}: {error}") from error


def _copies(outputs: Any) -> tuple[NDArray[np.float32], ...]:
    """The outputs as arrays of their own: the next call writes over those of the network."""
    return tuple(np.array(output, np.float32) for output in outputs)
