"""The benchmarks by name: which data, which rules, where results lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from siamcar_ros.data import Collection, SequenceSet, dataset_kinds
from siamcar_ros.data.sequence_sets import benchmark_facts
from siamcar_ros.evaluation import protocols
from siamcar_ros.evaluation.protocols import Protocol


@dataclass(frozen=True)
class Benchmark:
    """A data set with its owner's rules."""

    name: str  # on the command line
    title: str  # in tables and plots; the data folder's name when empty
    kind: str  # of the data set, as registered in `siamcar_ros.data`
    protocol: Protocol
    folder: str  # of its results under the result root; the data folder's name when empty
    options: Mapping[str, Any] = field(default_factory=dict)  # of the data set, such as the split
    size: int | None = None  # how many sequences the owner's has; None where that varies
    layout: str = "otb"  # a file per sequence; "got10k": a folder per sequence
    server: str = ""  # where to submit when the ground truth is withheld

    def read(self, root: Path) -> Collection:
        """Read its data; raises SequenceError or FileNotFoundError where there is none."""
        if not root.is_dir():
            raise FileNotFoundError(f"no folder {root}")
        data: SequenceSet = dataset_kinds()[self.kind](root, **self.options)
        return data.read_all()


def benchmarks() -> dict[str, Benchmark]:
    """All benchmarks by name: those of config/benchmarks/benchmarks.yaml, and every other
    registered data set of sequences, scored by the rules of `folder`.
    """
    known = {
        name: Benchmark(name, **{**facts, "protocol": getattr(protocols, facts["protocol"])})
        for name, facts in benchmark_facts("benchmarks").items()
    }
    kinds = {benchmark.kind for benchmark in known.values()}
    for name, kind in dataset_kinds().items():
        if issubclass(kind, SequenceSet) and name not in kinds:
            known[name] = Benchmark(name, name, name, protocols.FOLDER, name)
    return known


def find_benchmark(name: str) -> Benchmark:
    """The benchmark of that name, case and punctuation aside ("OTB-100", "UAV123@10fps")."""

    def plain(text: str) -> str:
        return "".join(c for c in text.lower() if c.isalnum())

    known = benchmarks()
    for benchmark in known.values():
        if plain(benchmark.name) == plain(name):
            return benchmark
    raise ValueError(f"no benchmark {name!r}; there are: {', '.join(known)}")
