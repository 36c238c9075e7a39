"""Following targets from frame to frame: crop, decode, tracks. A network is given; no ROS."""

from .config import NetworkConfig, load_config, read_config
from .interface import (
    DECODERS,
    TargetError,
    TrackerParams,
    TrackResult,
    TrackState,
)
from .tracker import MultiTracker, SiamCarTracker

__all__ = [
    "DECODERS",
    "MultiTracker",
    "NetworkConfig",
    "SiamCarTracker",
    "TargetError",
    "TrackResult",
    "TrackState",
    "TrackerParams",
    "load_config",
    "read_config",
]
