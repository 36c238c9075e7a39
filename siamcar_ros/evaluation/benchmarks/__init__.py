"""Benchmarks by name: how each is read, scored and where its results lie."""

from siamcar_ros.evaluation.benchmarks.catalog import (
    BENCHMARKS,
    Benchmark,
    Collection,
    find_benchmark,
)

__all__ = ["BENCHMARKS", "Benchmark", "Collection", "find_benchmark"]
