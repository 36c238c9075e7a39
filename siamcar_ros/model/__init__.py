"""The network: backbones, neck, correlation, head, weights in and out. Torch only."""

from .correlation import depthwise_correlation, depthwise_correlation_fft
from .siamcar import MODEL_NAMES, SiamCAR, build_model, fold_batchnorm
from .weights import WeightsError, load_weights, read_metadata, read_weights, save_weights

__all__ = [
    "MODEL_NAMES",
    "SiamCAR",
    "WeightsError",
    "build_model",
    "depthwise_correlation",
    "depthwise_correlation_fft",
    "fold_batchnorm",
    "load_weights",
    "read_metadata",
    "read_weights",
    "save_weights",
]
