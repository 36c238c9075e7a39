"""Runs a network in OpenVINO, ONNX Runtime, OpenCV or PyTorch, behind one interface.

>>> from siamcar_ros.runtime import load_network
>>> network = load_network("compact")
>>> print(network, network.reason)
>>> network.warm_up()

Running the shipped networks on a CPU needs only numpy, OpenCV and PyYAML.
"""

from importlib import import_module

from .load import find_placement, find_source, load_network
from .network import (
    BACKENDS,
    PRECISIONS,
    Backend,
    DeviceError,
    Maps,
    Network,
    Placement,
    register_backend,
)
from .select import select_backend

for _module in ("onnx_network", "opencv_network", "openvino_network", "torch_backends"):
    import_module(f"{__name__}.{_module}")  # registers its backends

__all__ = [
    "BACKENDS",
    "PRECISIONS",
    "Backend",
    "DeviceError",
    "Maps",
    "Network",
    "Placement",
    "find_placement",
    "find_source",
    "load_network",
    "register_backend",
    "select_backend",
]
