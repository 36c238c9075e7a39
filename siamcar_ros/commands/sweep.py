"""`siamcar sweep`: search the tracker's knobs on a data set."""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

from siamcar_ros.commands.evaluate import add_run_arguments, choose_sequences, complain
from siamcar_ros.commands.network_options import add_network_arguments, network_spec
from siamcar_ros.data import Sequence
from siamcar_ros.evaluation.benchmarks import find_benchmark
from siamcar_ros.evaluation.trackers import TrackerSpec
from siamcar_ros.files import check_folder, replacing
from siamcar_ros.options import assignments

EXAMPLES = """examples:
  siamcar sweep got10k-val /data/GOT-10k --trials 200 --workers 4
  siamcar sweep folder sequences --network compact --range lr=0.2:0.6
The studies are kept in an SQLite file: the same command continues its own; another tracker, other
weights, settings or sequences begin a new one. optuna-dashboard shows them.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `siamcar sweep`."""
    parser.add_argument("dataset", help="a benchmark's name, as for siamcar evaluate")
    parser.add_argument("root", type=Path, help="where its data is")
    add_network_arguments(parser)
    parser.add_argument(
        "--trials",
        type=int,
        default=100,
        metavar="N",
        help="how many to run now (%(default)s)",
    )
    add_run_arguments(parser)
    parser.add_argument(
        "--range",
        nargs="+",
        action="extend",
        default=[],
        metavar="KNOB=LOW:HIGH",
        dest="ranges",
        help="search in this range; the other knobs keep their default ranges",
    )
    parser.add_argument(
        "--study",
        type=Path,
        default=Path("results/sweep.db"),
        metavar="FILE",
        help="the studies' file (%(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the search")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the best knobs to it")


def run(args: argparse.Namespace) -> int:
    """Search, then print the best knobs as YAML."""
    from siamcar_ros.evaluation.sweep import RANGES, sweep

    if args.trials < 1 or (args.workers is not None and args.workers < 1):
        raise ValueError("--trials and --workers must be at least 1")
    if args.output:
        check_folder(args.output)
    spec = network_spec(args, args.network)
    benchmark = find_benchmark(args.dataset)
    collection = benchmark.read(args.root)
    complain(collection.problems)
    sequences = choose_sequences(collection.sequences, args.sequences)
    if sequences[0].withheld:
        raise ValueError(f"the ground truth of {benchmark.title} is withheld")
    data = benchmark.title or args.root.resolve().name
    text = sweep(
        spec,
        sequences,
        benchmark.protocol,
        args.study,
        study_name=f"{spec.title} {data} {_digest(spec, args.root, sequences)}",
        data=data,
        trials=args.trials,
        workers=args.workers,
        ray_address=args.ray,
        ranges={**RANGES, **_ranges(args.ranges)},
        seed=args.seed,
    )
    print(text, end="")
    if args.output:
        with replacing(args.output) as partial:
            partial.write_text(text, encoding="utf-8")
    return 0


def _digest(spec: TrackerSpec, root: Path, sequences: list[Sequence]) -> str:
    """A digest of what the trials of a study have in common: tracker, weights and sequences."""
    common = [spec.facts(), str(root.resolve()), [sequence.name for sequence in sequences]]
    return hashlib.sha256(json.dumps(common, sort_keys=True).encode()).hexdigest()[:8]


def _ranges(texts: list[str]) -> dict[str, tuple[float, float]]:
    ranges = {}
    for knob, ends in assignments(texts, "--range").items():
        try:
            low, high = map(float, ends.split(":"))
        except ValueError:
            raise ValueError(f"--range takes KNOB=LOW:HIGH, not {knob}={ends}") from None
        ranges[knob] = (low, high)
    return ranges
