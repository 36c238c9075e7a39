"""Benchmarks, their official measures, runs and reports. Nothing here needs ROS."""

from siamcar_ros.evaluation.one_pass import Run, run_sequence

__all__ = ["Run", "run_sequence"]
