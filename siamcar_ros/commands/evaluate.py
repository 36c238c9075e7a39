"""`siamcar evaluate`: run trackers over a benchmark and score them."""

from __future__ import annotations

import argparse
import importlib.util
import platform
import shlex
import shutil
import sys
from collections.abc import Iterable
from collections.abc import Sequence as Items
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from siamcar_ros import __version__
from siamcar_ros.commands.network_options import add_network_arguments, network_spec
from siamcar_ros.data import Sequence
from siamcar_ros.evaluation.benchmarks import benchmarks, find_benchmark
from siamcar_ros.evaluation.comparison import compare_on, format_table
from siamcar_ros.evaluation.results import TrackerResults
from siamcar_ros.evaluation.runs import run_all
from siamcar_ros.evaluation.trackers import BASELINES, TrackerSpec
from siamcar_ros.evaluation.vot import identifier, write_trackers_ini
from siamcar_ros.evaluation.workers import Workers, open_workers
from siamcar_ros.runtime.select import gpu_names
from siamcar_ros.speed.measure import processor_name

EXAMPLES = """examples:
  siamcar evaluate got10k-val /data/GOT-10k --workers 4
  siamcar evaluate folder sequences --network compact --baseline csrt kcf mil
  siamcar evaluate otb100 /data/OTB --network resnet50 --weights model.safetensors --set lr=0.35
  siamcar evaluate vot WORKSPACE          writes the VOT workspace's trackers.ini
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `siamcar evaluate`."""
    parser.add_argument("dataset", help=f"{', '.join(benchmarks())}, or vot")
    parser.add_argument("root", type=Path, help="where the data is (vot: the workspace)")
    add_network_arguments(parser, several=True)
    parser.add_argument(
        "--baseline",
        nargs="+",
        action="extend",
        default=[],
        choices=list(BASELINES),
        help="OpenCV's trackers to run as well (nano and vit need their files)",
    )
    parser.add_argument(
        "--nano-files",
        nargs=2,
        default=(),
        metavar=("BACKBONE", "HEAD"),
        help="NanoTrack's ONNX files",
    )
    parser.add_argument("--vit-file", default="", metavar="MODEL", help="ViT's ONNX file")
    parser.add_argument(
        "--tracker",
        metavar="MODULE:CALLABLE",
        help="your own tracker: a callable that returns an object with init(image, box) and "
        "update(image).box",
    )
    parser.add_argument("--name", help="the tracker's name in the results (one tracker only)")
    parser.add_argument(
        "--results",
        type=Path,
        default=Path("results"),
        metavar="DIR",
        help="where result files go (%(default)s)",
    )
    add_run_arguments(parser)
    parser.add_argument(
        "--again",
        action="store_true",
        help="run finished sequences, too; results of another tracker are replaced when all "
        "sequences have succeeded",
    )


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments that say which sequences are run, and by how many workers where."""
    parser.add_argument(
        "--sequences", nargs="+", action="extend", metavar="NAME", help="only these"
    )
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes, GPUs given to them in turn (default: 1)",
    )
    parser.add_argument(
        "--ray",
        nargs="?",
        const="auto",
        metavar="ADDRESS",
        help="run on a Ray cluster (auto: the one that this machine belongs to; "
        "local: start one here), --workers at a time",
    )


def run(args: argparse.Namespace) -> int:
    """Run the trackers and print their scores; 1 when a sequence has no result."""
    if args.dataset.lower() == "vot":
        return _integrate_vot(args)
    if args.workers is not None and args.workers < 1:
        raise ValueError("--workers must be at least 1")
    benchmark = find_benchmark(args.dataset)
    specs = tracker_specs(args)
    collection = benchmark.read(args.root)
    complain(collection.problems)
    sequences = choose_sequences(collection.sequences, args.sequences)
    withheld = sequences[0].withheld
    data = args.root.resolve().name
    place = args.results / (benchmark.folder or data)
    failed = left_out = 0 if args.sequences else collection.left_out
    folders = []
    done: set[str] = set()
    for spec in specs:
        results = TrackerResults(place / spec.title, benchmark.layout)
        with open_workers(
            spec, spec.build, items=len(sequences), count=args.workers, ray_address=args.ray
        ) as workers:
            facts = _facts(workers, benchmark.name, args)
            problems = _run(workers, sequences, results, facts, args.again)
        complain(problems)
        failed += len(problems)
        if results.names():
            folders.append(results.folder)
            done.update(results.names())
        if withheld and not problems and not left_out and args.sequences is None:
            archive = results.write_submission(sequences)
            print(f"{archive} is ready for {benchmark.server}")
    scored = tuple(s for s in collection.sequences if s.name in done)
    if scored and not withheld:
        collection = replace(collection, sequences=scored, problems=())
        comparison = compare_on(benchmark, collection, benchmark.title or data, folders)
        complain(comparison.problems)
        print(format_table(comparison))
        print(f"more: {shlex.join(['siamcar', 'report', *map(str, folders)])}")
    return 1 if failed else 0


def _run(
    workers: Workers,
    sequences: list[Sequence],
    results: TrackerResults,
    facts: dict[str, Any],
    again: bool,
) -> list[str]:
    """Run a tracker, unless the folder holds results of another one; return a line per failure."""
    before = results.read_run_file()
    differing = _differing(before, facts)
    if not (differing and results.names()):
        # GOT-10k's two parts share a folder: of them, the one that can be reported on is noted.
        elsewhere = before.get("benchmark", facts["benchmark"]) != facts["benchmark"]
        if differing or not (sequences[0].withheld and elsewhere):
            results.write_run_file(facts)
        return run_all(workers, sequences, results, again=again)
    if not again:
        whose = f"of another tracker (differs in {', '.join(differing)})"
        if "tracker" not in before:
            whose = "without a run.json, so they may be another tracker's"
        raise ValueError(
            f"{results.folder} holds results {whose}: give another --name, or --again to replace "
            "them"
        )
    others = {*results.names()} - {sequence.name for sequence in sequences}
    if others:
        raise ValueError(
            f"{results.folder} holds another tracker's results of sequences that are not run now "
            f"({len(others)}), which would be lost: give another --name, or remove the folder"
        )
    staged = replace(results, folder=results.folder.with_name(f".{results.tracker}.new"))
    if _differing(staged.read_run_file(), facts):
        shutil.rmtree(staged.folder, ignore_errors=True)
    staged.write_run_file(facts)
    problems = run_all(workers, sequences, staged)
    if problems:
        problems.append(
            f"{results.folder} keeps the other tracker's results, since not all sequences "
            "succeeded; the same command again runs only those that failed"
        )
    else:
        shutil.rmtree(results.folder)
        staged.folder.rename(results.folder)
    return problems


def tracker_specs(args: argparse.Namespace) -> list[TrackerSpec]:
    """Describe the trackers that the arguments name."""
    networks = args.network
    if not networks and not args.baseline and not args.tracker:
        networks = ["compact"]
    if args.weights and len(networks) > 1:
        raise ValueError("--weights goes with one --network")
    specs = [network_spec(args, network) for network in networks]
    if args.tracker:
        specs.append(TrackerSpec(title=args.tracker.rpartition(":")[2], kind=args.tracker))
    files = {"nano": tuple(args.nano_files), "vit": (args.vit_file,) if args.vit_file else ()}
    for name in args.baseline:
        specs.append(TrackerSpec(BASELINES[name].title, name, files=files.get(name, ())))
    if args.name is not None:
        if len(specs) > 1:
            raise ValueError("--name goes with one tracker")
        specs = [replace(specs[0], title=args.name)]
    if len({spec.title for spec in specs}) < len(specs):
        raise ValueError("two of the trackers have the same name: run them one by one with --name")
    for spec in specs:
        if not spec.title or spec.title.startswith(".") or {"/", "\\", "\0"} & {*spec.title}:
            raise ValueError(
                f"{spec.title!r} cannot be the name of a result folder: give a --name without a "
                "slash that does not begin with a dot"
            )
    return specs


def choose_sequences(sequences: Items[Sequence], names: list[str] | None) -> list[Sequence]:
    """Select the sequences of these names, or all when None."""
    if names is None:
        return list(sequences)
    known = {s.name: s for s in sequences}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"no sequence {', '.join(unknown)}; there are: {', '.join(known)}")
    return [known[name] for name in names]


def _facts(workers: Workers, benchmark: str, args: argparse.Namespace) -> dict[str, Any]:
    """What `run.json` records."""
    if args.ray is not None:
        processor = "a Ray cluster"
    elif workers.facts.get("device") == "cuda":
        processor = ", ".join(sorted(set(gpu_names())))
    else:
        processor = processor_name()
    return {
        "benchmark": benchmark,
        "root": str(args.root.resolve()),
        "tracker": workers.facts,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": platform.platform(),
        "processor": processor,
        "workers": workers.count,
        "versions": {
            "siamcar_ros": __version__,
            "opencv": cv2.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }


def _differing(before: dict[str, Any], facts: dict[str, Any]) -> list[str]:
    """The facts in which the tracker of an earlier run differs; of files, only the content."""
    old, new = before.get("tracker", {}), facts["tracker"]
    keys = {*old, *new} - {key for key in ("weights", "files") if f"{key}_sha256" in old}
    return sorted(key for key in keys if old.get(key) != new.get(key))


def _integrate_vot(args: argparse.Namespace) -> int:
    given = [name for name in ("sequences", "workers", "ray", "again") if getattr(args, name)]
    if given:
        raise ValueError(f"--{given[0]} is not for vot: the VOT toolkit runs the tracker")
    specs = tracker_specs(args)
    for spec in specs:
        spec.build()  # what the toolkit could not start is refused
    for spec in specs:
        path = write_trackers_ini(args.root, spec)
        print(f"{spec.title} is in {path}. In {args.root}: vot test {identifier(spec.title)}")
    if importlib.util.find_spec("trax") is None:
        complain(["the command in it needs the Python package 'trax': pip install '.[vot]'"])
    return 0


def complain(problems: Iterable[str]) -> None:
    """Print each problem on standard error."""
    for problem in problems:
        print(f"siamcar: {problem}", file=sys.stderr)
