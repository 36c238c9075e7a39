"""Runs a network in OpenVINO, ONNX Runtime, OpenCV or PyTorch, behind one interface.

>>> from siamcar_ros.runtime import load_network
>>> network = load_network("compact")
>>> print(network, network.reason)
>>> network.warm_up()

Importing this package and running the shipped networks on a CPU needs only numpy and OpenCV.
"""

from .config import NetworkConfig, read_network_config
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
from .onnx_network import OnnxNetwork  # each of these modules registers its backends
from .opencv_network import OpenCvNetwork
from .openvino_network import OpenVinoNetwork
from .select import select_backend
from .torch_backends import torch_network

__all__ = [
    "BACKENDS",
    "PRECISIONS",
    "Backend",
    "DeviceError",
    "Maps",
    "Network",
    "NetworkConfig",
    "OnnxNetwork",
    "OpenCvNetwork",
    "OpenVinoNetwork",
    "Placement",
    "find_placement",
    "find_source",
    "load_network",
    "read_network_config",
    "register_backend",
    "select_backend",
    "torch_network",
]
