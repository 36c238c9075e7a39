"""`siamcar report`: compare results as tables, plots and one HTML page."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

_NAMED = 5  # what was left out, in the terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `siamcar report`."""
    parser.add_argument(
        "results",
        nargs="+",
        type=Path,
        metavar="RESULTS",
        help="result folders of trackers or of several runs of one, e.g. "
        "results/OTB2015/SiamCAR-compact; results/OTB2015 stands for all trackers in it",
    )
    parser.add_argument("--dataset", help="the benchmark (default: as the results' run.json says)")
    parser.add_argument("--root", type=Path, help="where its data is (default: likewise)")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("results/report"),
        metavar="DIR",
        help="where report.html, .png and .json go (%(default)s)",
    )
    parser.add_argument(
        "--focus",
        metavar="TRACKER",
        help="whose differences and worst frames are shown (default: the best)",
    )
    parser.add_argument(
        "--worst",
        type=int,
        default=5,
        metavar="N",
        help="strips of its N worst sequences (%(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Print the table and write the report."""
    from siamcar_ros.evaluation.comparison import compare, format_table
    from siamcar_ros.evaluation.report import write_report

    comparison = compare(args.results, benchmark=args.dataset, root=args.root)
    print(format_table(comparison))
    problems = comparison.problems
    for problem in problems[:_NAMED]:
        print(f"siamcar: {problem}", file=sys.stderr)
    if len(problems) > _NAMED:
        more = len(problems) - _NAMED
        print(f"siamcar: and {more} more, all of them in the report", file=sys.stderr)
    for path in write_report(comparison, args.output, focus=args.focus, worst=args.worst):
        print(path)
    return 0
