"""Sequences on disk: annotations, benchmarks and training sets. Needs neither ROS nor PyTorch."""

from siamcar_ros.data.annotations import SequenceError
from siamcar_ros.data.images import read_image
from siamcar_ros.data.sequences import Sequence, read_annotated, read_sequence

__all__ = ["Sequence", "SequenceError", "read_annotated", "read_image", "read_sequence"]
