"""Compare trackers, networks and the node on this machine; every ratio is of figures of one run.

    python -m benchmarks network --networks compact resnet50
    python -m benchmarks tracker --nano-files backbone.onnx head.onnx
    python -m benchmarks node               in a shell with ROS 2 sourced
    python -m benchmarks --plots docs       everything but the node, with plots

Contestants run in turn, so that other programs slow all of them alike: on a busy machine trust the
ratios, not the milliseconds.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import torch

from benchmarks import runs
from benchmarks.node import measure_node
from benchmarks.plots import latency_by_rate, plot_backbones, plot_growth
from siamcar_ros.files import check_folder, replacing
from siamcar_ros.runtime import select_backend
from siamcar_ros.speed.measure import describe_machine
from siamcar_ros.speed.tables import Table

MEASURES: dict[str, Callable[[runs.Options], list[Table]]] = {
    "network": lambda options: [runs.measure_network(options, name) for name in options.networks],
    "tracker": lambda options: [runs.measure_tracker(options)],
    "targets": lambda options: [runs.measure_targets(options)],
    "sizes": lambda options: [runs.measure_sizes(options)],
    "batch": lambda options: [runs.measure_batch(options)],
    "node": measure_node,
}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        "python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "what",
        nargs="?",
        choices=MEASURES,
        help="default: network and tracker; with --plots everything but the node",
    )
    made.add_argument(
        "--networks",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="(default: compact resnet50)",
    )
    made.add_argument("--weights", type=Path, help="of the network, if only one is named")
    made.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (%(default)s)")
    made.add_argument("--threads", type=int, help="of the CPU (default: one per core)")
    made.add_argument("--seconds", type=float, default=20.0, help="for each table, about (20)")
    made.add_argument(
        "--nano-files", nargs=2, metavar=("BACKBONE", "HEAD"), help="NanoTrack's ONNX files"
    )
    made.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    made.add_argument("--plots", type=Path, metavar="DIR", help="plot how the cost grows")
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write.

    Raises:
        ValueError, FileNotFoundError: an argument cannot be used; the message says why.
    """
    args = parser().parse_args(arguments)
    args.networks = args.networks or ["compact", "resnet50"]
    if args.json is not None:
        check_folder(args.json)
    options = _options(args)
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    machine = describe_machine(options.threads, options.device)
    print("\n".join(f"{key}: {value}" for key, value in machine.items()))
    wanted = ["network", "tracker"]
    if args.plots is not None:
        wanted = [what for what in MEASURES if what != "node"]
    tables = []
    for what in [args.what] if args.what else wanted:
        for table in MEASURES[what](options):
            print(f"\n{table.text()}", flush=True)
            tables.append((what, table))
    if args.json is not None:
        shown = [{"what": what, **table.as_dict()} for what, table in tables]
        text = json.dumps({"machine": machine, "tables": shown}, indent=1)
        with replacing(args.json) as file:
            file.write_text(text + "\n", encoding="utf-8")
    if args.plots is not None:
        _plot(tables, args.plots)


def _options(args: argparse.Namespace) -> runs.Options:
    if args.weights is not None and len(args.networks) != 1:
        raise ValueError("--weights needs one network: --networks NAME --weights FILE")
    for name in ("threads", "seconds"):
        value = getattr(args, name)
        if value is not None and not value > 0:
            raise ValueError(f"--{name} must be above 0, not {value:g}")
    return runs.Options(
        networks=tuple(args.networks),
        weights=args.weights,
        device=select_backend(args.device).device,
        threads=args.threads or len(os.sched_getaffinity(0)),
        seconds=args.seconds,
        nano=args.nano_files and tuple(args.nano_files),
    )


def _plot(tables: list[tuple[str, Table]], folder: Path) -> None:
    by_kind = dict(tables)
    for what, table in tables:
        if what == "node" and "rate" in table.columns:
            path = folder / "speed-node.png"
            plot_growth(latency_by_rate(table), "rate", "images a second", "line", path)
    for what, by, label in (
        ("targets", "n", "targets"),
        ("batch", "n", "search regions in a call"),
        ("sizes", "megapixels", "frame, megapixels"),
    ):
        if what in by_kind:
            plot_growth(by_kind[what], by, label, "line", folder / f"speed-{what}.png")
    networks = [table for what, table in tables if what == "network"]
    if networks:
        plot_backbones(networks, folder / "speed-backbones.png")
    print(f"plots in {folder}")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"benchmarks: error: {error}")
