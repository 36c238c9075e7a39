"""Where a network runs: PyTorch, CUDA graphs, ONNX Runtime or OpenVINO behind one interface.

>>> from siamcar_ros.runtime import load_network
>>> network = load_network("compact")
>>> print(network, network.reason)
>>> network.warm_up()
"""

from .export import ExportError, OnnxFiles, export_onnx
from .load import find_placement, load_network, place
from .network import BACKENDS, PRECISIONS, DeviceError, Network, Placement
from .select import choose

__all__ = [
    "BACKENDS",
    "PRECISIONS",
    "DeviceError",
    "ExportError",
    "Network",
    "OnnxFiles",
    "Placement",
    "choose",
    "export_onnx",
    "find_placement",
    "load_network",
    "place",
]
