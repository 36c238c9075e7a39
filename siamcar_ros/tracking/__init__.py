"""Following targets from frame to frame: crop, decode, tracks. Needs numpy and OpenCV; no ROS."""

from .config import TrackerConfig, read_config
from .decode import Decoded, Grid, decode, register_decoder
from .interface import (
    DECODERS,
    TargetError,
    TrackerParams,
    TrackResult,
    TrackState,
)
from .point import box_about
from .tracker import MultiTracker, SiamCarTracker

__all__ = [
    "DECODERS",
    "Decoded",
    "Grid",
    "MultiTracker",
    "SiamCarTracker",
    "TargetError",
    "TrackResult",
    "TrackState",
    "TrackerConfig",
    "TrackerParams",
    "box_about",
    "decode",
    "read_config",
    "register_decoder",
]
