"""The table of benchmarks: names on the command line, readers, rules, result folders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from siamcar_ros.data.benchmarks.collection import Collection
from siamcar_ros.data.benchmarks.folders import (
    read_dtb70,
    read_folder,
    read_nfs,
    read_trackingnet,
)
from siamcar_ros.data.benchmarks.got10k import read_got10k
from siamcar_ros.data.benchmarks.lasot import read_lasot
from siamcar_ros.data.benchmarks.otb import read_otb
from siamcar_ros.data.benchmarks.uav123 import read_uav123
from siamcar_ros.evaluation import protocols
from siamcar_ros.evaluation.protocols import Protocol


@dataclass(frozen=True)
class Benchmark:
    """A data set with the owner's rules.

    Attributes:
        name: on the command line.
        title: in tables and plots.
        read: reads it from its root folder; raises SequenceError or FileNotFoundError.
        protocol: how it is scored.
        folder: where its results lie under the result root; the data's own name when empty.
        layout: "got10k", a folder per sequence, or "otb", a file per sequence.
        server: where to submit when the ground truth is withheld.
    """

    name: str
    title: str
    read: Callable[[Path], Collection]
    protocol: Protocol
    folder: str
    layout: str = "otb"
    server: str = ""


_GOT10K_SERVER = "http://got-10k.aitestunion.com/submit_instructions"
_TRACKINGNET_SERVER = "https://eval.ai/web/challenges/challenge-page/1805"

_ALL = (
    Benchmark(
        "got10k-val",
        "GOT-10k validation",
        partial(read_got10k, subset="val"),
        protocols.GOT10K,
        "GOT-10k",
        layout="got10k",
    ),
    Benchmark(
        "got10k-test",
        "GOT-10k test",
        partial(read_got10k, subset="test"),
        protocols.GOT10K,
        "GOT-10k",
        layout="got10k",
        server=_GOT10K_SERVER,
    ),
    Benchmark(
        "lasot",
        "LaSOT test (protocol II)",
        partial(read_lasot, protocol=2),
        protocols.LASOT,
        "LaSOT",
    ),
    Benchmark(
        "lasot-all",
        "LaSOT, all sequences (protocol I)",
        partial(read_lasot, protocol=1),
        protocols.LASOT,
        "LaSOT",
    ),
    Benchmark("otb50", "OTB-50", partial(read_otb, version="50"), protocols.OTB, "OTBtb50"),
    Benchmark("otb100", "OTB-100", partial(read_otb, version="100"), protocols.OTB, "OTB2015"),
    Benchmark("otb2013", "OTB-2013", partial(read_otb, version="2013"), protocols.OTB, "OTB2013"),
    Benchmark("uav123", "UAV123", partial(read_uav123, version="UAV123"), protocols.OTB, "UAV123"),
    Benchmark(
        "uav123-10fps",
        "UAV123 at 10 frames/s",
        partial(read_uav123, version="UAV123_10fps"),
        protocols.OTB,
        "UAV123_10fps",
    ),
    Benchmark("uav20l", "UAV20L", partial(read_uav123, version="UAV20L"), protocols.OTB, "UAV20L"),
    Benchmark("dtb70", "DTB70", read_dtb70, protocols.OTB, "DTB70"),
    Benchmark("nfs30", "NfS, 30 frames/s", partial(read_nfs, fps=30), protocols.OTB, "NfS/30"),
    Benchmark("nfs240", "NfS, 240 frames/s", partial(read_nfs, fps=240), protocols.OTB, "NfS/240"),
    Benchmark(
        "trackingnet",
        "TrackingNet test",
        partial(read_trackingnet, subset="TEST"),
        protocols.TRACKINGNET,
        "TrackingNet",
        server=_TRACKINGNET_SERVER,
    ),
    Benchmark(
        "trackingnet-train",
        "TrackingNet train",
        partial(read_trackingnet, subset="TRAIN"),
        protocols.TRACKINGNET,
        "TrackingNet-train",
    ),
    Benchmark("folder", "", read_folder, protocols.FOLDER, ""),
)

BENCHMARKS: dict[str, Benchmark] = {benchmark.name: benchmark for benchmark in _ALL}


def find_benchmark(name: str) -> Benchmark:
    """The benchmark of that name, case and punctuation aside ("OTB-100", "UAV123@10fps").

    Raises:
        ValueError: there is none; the message lists them.
    """

    def plain(text: str) -> str:
        return "".join(c for c in text.lower() if c.isalnum())

    for benchmark in _ALL:
        if plain(benchmark.name) == plain(name):
            return benchmark
    raise ValueError(f"no benchmark {name!r}; there are: {', '.join(BENCHMARKS)}")
