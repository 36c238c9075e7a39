"""The benchmarks by name: which data, which rules, where results lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from siamcar_ros.data import Collection, SequenceSet, dataset_kinds
from siamcar_ros.evaluation import protocols
from siamcar_ros.evaluation.protocols import Protocol


@dataclass(frozen=True)
class Benchmark:
    """A data set with its owner's rules.

    Attributes:
        name: on the command line.
        title: in tables and plots; the data folder's name when empty.
        kind: of the data set, as registered in `siamcar_ros.data`.
        protocol: how it is scored.
        folder: where its results lie under the result root; the data folder's name when empty.
        options: of the data set, such as the split.
        size: how many sequences the owner's has; None where that varies.
        layout: "got10k", a folder per sequence, or "otb", a file per sequence.
        server: where to submit when the ground truth is withheld.
    """

    name: str
    title: str
    kind: str
    protocol: Protocol
    folder: str
    options: Mapping[str, Any] = field(default_factory=dict)
    size: int | None = None
    layout: str = "otb"
    server: str = ""

    def read(self, root: Path) -> Collection:
        """Read its data from the root folder.

        Raises:
            SequenceError, FileNotFoundError: there is none.
        """
        return self.open(root).read_all()

    def open(self, root: Path) -> SequenceSet:
        """List the sequences of its data in the root folder; errors as those of `read`."""
        if not root.is_dir():
            raise FileNotFoundError(f"no folder {root}")
        data: SequenceSet = dataset_kinds()[self.kind](root, **self.options)
        return data


_GOT10K_SERVER = "http://got-10k.aitestunion.com/submit_instructions"
_TRACKINGNET_SERVER = "https://eval.ai/web/challenges/challenge-page/1805"


def _got10k(split: str, title: str, server: str = "") -> Benchmark:
    return Benchmark(
        f"got10k-{split}",
        f"GOT-10k {title}",
        "got10k",
        protocols.GOT10K,
        "GOT-10k",
        {"split": split},
        180,
        layout="got10k",
        server=server,
    )


def _lasot(name: str, title: str, split: str, size: int) -> Benchmark:
    return Benchmark(name, title, "lasot", protocols.LASOT, "LaSOT", {"split": split}, size)


def _otb_like(
    name: str, title: str, kind: str, folder: str, size: int, **options: Any
) -> Benchmark:
    return Benchmark(name, title, kind, protocols.OTB, folder, options, size)


def _trackingnet(name: str, split: str, size: int, folder: str, server: str = "") -> Benchmark:
    return Benchmark(
        name,
        f"TrackingNet {split}",
        "trackingnet",
        protocols.TRACKINGNET,
        folder,
        {"split": split},
        size,
        server=server,
    )


_ALL = (
    _got10k("val", "validation"),
    _got10k("test", "test", _GOT10K_SERVER),
    _lasot("lasot", "LaSOT test (protocol II)", "test", 280),
    _lasot("lasot-all", "LaSOT, all sequences (protocol I)", "all", 1400),
    _otb_like("otb50", "OTB-50", "otb", "OTBtb50", 50, version="50"),
    _otb_like("otb100", "OTB-100", "otb", "OTB2015", 100, version="100"),
    _otb_like("otb2013", "OTB-2013", "otb", "OTB2013", 51, version="2013"),
    _otb_like("uav123", "UAV123", "uav123", "UAV123", 123, version="UAV123"),
    _otb_like(
        "uav123-10fps", "UAV123 at 10 fps", "uav123", "UAV123_10fps", 123, version="UAV123_10fps"
    ),
    _otb_like("uav20l", "UAV20L", "uav123", "UAV20L", 20, version="UAV20L"),
    _otb_like("dtb70", "DTB70", "dtb70", "DTB70", 70),
    _otb_like("nfs30", "NfS at 30 fps", "nfs", "NfS/30", 100, fps=30),
    _otb_like("nfs240", "NfS at 240 fps", "nfs", "NfS/240", 100, fps=240),
    _trackingnet("trackingnet", "test", 511, "TrackingNet", _TRACKINGNET_SERVER),
    _trackingnet("trackingnet-train", "train", 30132, "TrackingNet-train"),
    Benchmark("folder", "", "sequences", protocols.FOLDER, ""),
)
# Benchmarks with a reader and a table entry of their own
_RULED = {benchmark.kind for benchmark in _ALL}


def benchmarks() -> dict[str, Benchmark]:
    """All benchmarks by name.

    A registered data set of sequences that has no rules here is one, too: mean over sequences, the
    first frame not counted.
    """
    others = {
        name: Benchmark(name, name, name, protocols.FOLDER, name)
        for name, kind in dataset_kinds().items()
        if issubclass(kind, SequenceSet) and name not in _RULED
    }
    return {benchmark.name: benchmark for benchmark in _ALL} | others


def find_benchmark(name: str) -> Benchmark:
    """The benchmark of that name, case and punctuation aside ("OTB-100", "UAV123@10fps").

    Raises:
        ValueError: there is none; the message lists them.
    """

    def plain(text: str) -> str:
        return "".join(c for c in text.lower() if c.isalnum())

    known = benchmarks()
    for benchmark in known.values():
        if plain(benchmark.name) == plain(name):
            return benchmark
    raise ValueError(f"no benchmark {name!r}; there are: {', '.join(known)}, vot")
