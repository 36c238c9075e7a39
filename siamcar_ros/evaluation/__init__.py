"""Benchmarks, their official measures, runs, reports and replay. Nothing here needs ROS."""

from siamcar_ros.evaluation.annotations import SequenceError
from siamcar_ros.evaluation.one_pass import Run, run_sequence
from siamcar_ros.evaluation.sequences import Sequence, read_annotated, read_sequence

__all__ = [
    "Run",
    "Sequence",
    "SequenceError",
    "read_annotated",
    "read_sequence",
    "run_sequence",
]
