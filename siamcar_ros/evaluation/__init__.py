"""Benchmarks, their official measures, runs and reports. Nothing here needs ROS."""

from siamcar_ros.evaluation.one_pass import Run, run_sequence
from siamcar_ros.evaluation.protocols import Score, score

__all__ = ["Run", "Score", "run_sequence", "score"]
