"""The network in PyTorch: backbones, neck, correlation, head, and its weights."""

from .architecture import Architecture
from .correlation import depthwise_correlation, depthwise_correlation_fft
from .registry import Backbone, register_backbone
from .siamcar import MODEL_NAMES, SiamCAR, build_model, fold_batchnorm
from .weights import WeightsError, load_weights, read_metadata, read_weights, save_weights

__all__ = [
    "MODEL_NAMES",
    "Architecture",
    "Backbone",
    "SiamCAR",
    "WeightsError",
    "build_model",
    "depthwise_correlation",
    "depthwise_correlation_fft",
    "fold_batchnorm",
    "load_weights",
    "read_metadata",
    "read_weights",
    "register_backbone",
    "save_weights",
]
