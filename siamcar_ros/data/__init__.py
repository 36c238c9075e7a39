"""Data sets on disk: annotations, sequences, benchmarks and training sets.

Needs neither ROS nor PyTorch.
"""

from siamcar_ros.data.annotations import SequenceError, read_boxes
from siamcar_ros.data.frames import Frame
from siamcar_ros.data.images import read_image
from siamcar_ros.data.mixture import Mixture, build_mixture, build_source
from siamcar_ros.data.pair_sources import DataError, DataFault, Faults, PairSet
from siamcar_ros.data.registry import dataset_kinds, register_dataset
from siamcar_ros.data.sequence_sets import Collection, SequenceSet
from siamcar_ros.data.sequences import Sequence, find_frames, load_sequence, read_sequence

__all__ = [
    "Collection",
    "DataError",
    "DataFault",
    "Faults",
    "Frame",
    "Mixture",
    "PairSet",
    "Sequence",
    "SequenceError",
    "SequenceSet",
    "build_mixture",
    "build_source",
    "dataset_kinds",
    "find_frames",
    "load_sequence",
    "read_boxes",
    "read_image",
    "read_sequence",
    "register_dataset",
]
