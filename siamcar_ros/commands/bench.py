"""`siamcar bench`: measure speed, every ratio between figures of one run."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from siamcar_ros.speed.runs import Options
    from siamcar_ros.speed.tables import Table

HELP = "measure speed: network, tracker, node, GPU"

WHATS = ("network", "tracker", "node", "targets", "sizes", "batch", "gpu")

EXAMPLES = """examples:
  siamcar bench network --networks compact resnet50
  siamcar bench tracker --nanotrack-backbone nano_backbone.onnx --nanotrack-head nano_head.onnx
  siamcar bench node                      (in a shell with ROS 2 sourced)
  siamcar bench --plots docs              (all but the node and the GPU, with pictures)
  siamcar bench gpu --output gpu-bench    (tests, tracking, training on a GPU: one JSON, one table)
  siamcar bench gpu --device cpu --quick  (the same lines on a CPU: whether it would run)

Contestants run in turn, so that other programs slow all of them alike; the ratios are to be
trusted on a busy machine, the milliseconds only on an idle one.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `siamcar bench`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    parser.add_argument(
        "what",
        nargs="?",
        choices=WHATS,
        help="default: network and tracker; with --plots all but node and gpu",
    )
    parser.add_argument(
        "--networks",
        nargs="+",
        default=["compact", "resnet50"],
        metavar="NAME",
        help="(default: compact resnet50)",
    )
    parser.add_argument("--weights", type=Path, help="of the network, if only one is named")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (%(default)s)")
    parser.add_argument("--threads", type=int, help="of the CPU (default: one a core)")
    parser.add_argument(
        "--seconds", type=float, help="for each table, about (20); of gpu, for all of it (300)"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("gpu-bench"), metavar="DIR", help="of gpu (%(default)s)"
    )
    parser.add_argument("--quick", action="store_true", help="of gpu: the smallest sizes")
    parser.add_argument("--nanotrack-backbone", type=Path, metavar="ONNX")
    parser.add_argument("--nanotrack-head", type=Path, metavar="ONNX")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures; - for stdout")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="draw the cost as work grows")


def run(args: argparse.Namespace) -> int:
    """Measure, print, write."""
    import cv2
    import torch

    from siamcar_ros.speed.measure import describe_machine

    if args.seconds is not None and not args.seconds > 0:
        raise ValueError(f"--seconds must be above 0, not {args.seconds:g}")
    if args.what == "gpu":
        return _run_gpu(args)
    options = _options(args)
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    machine = describe_machine(options.threads, options.device)
    out = sys.stderr if str(args.json) == "-" else sys.stdout
    for key, value in machine.items():
        print(f"{key}: {value}", file=out)
    tables = []
    for what in _wanted(args):
        for table in _measure(what, options):
            print(f"\n{table.text()}", file=out, flush=True)
            tables.append((what, table))
    if args.json is not None:
        content = {
            "machine": machine,
            "tables": [{"what": what, **table.as_dict()} for what, table in tables],
        }
        text = json.dumps(content, indent=1)
        if str(args.json) == "-":
            print(text)
        else:
            args.json.write_text(text + "\n", encoding="utf-8")
    if args.plots is not None:
        _plot(tables, args.plots)
    return 0


def _run_gpu(args: argparse.Namespace) -> int:
    from siamcar_ros.runtime import select_backend
    from siamcar_ros.speed.gpu import GpuOptions, failed, measure_gpu

    device = select_backend("cuda" if args.device == "auto" else args.device).device
    seconds = args.seconds or (20.0 if args.quick else 300.0)
    content = measure_gpu(GpuOptions(device, seconds, args.quick), args.output)
    print(f"figures in {args.output}/gpu.json and gpu.md")
    wrong = failed(content)
    if wrong:
        print(f"siamcar: failed: {', '.join(wrong)}", file=sys.stderr)
    return 1 if wrong else 0


def _options(args: argparse.Namespace) -> Options:
    import os

    from siamcar_ros.model import MODEL_NAMES
    from siamcar_ros.runtime import select_backend
    from siamcar_ros.speed.runs import Options

    unknown = [name for name in args.networks if name not in MODEL_NAMES]
    if unknown:
        raise ValueError(f"no network {', '.join(unknown)}; there are {', '.join(MODEL_NAMES)}")
    if args.weights is not None and len(args.networks) != 1:
        raise ValueError("--weights needs one network: --networks NAME --weights FILE")
    nano = (args.nanotrack_backbone, args.nanotrack_head)
    if any(nano) and not all(nano):
        raise ValueError("TrackerNano needs both --nanotrack-backbone and --nanotrack-head")
    if args.threads is not None and args.threads < 1:
        raise ValueError(f"--threads is at least 1, not {args.threads}")
    return Options(
        networks=tuple(args.networks),
        weights=args.weights,
        device=select_backend(args.device).device,
        threads=args.threads or len(os.sched_getaffinity(0)),
        seconds=args.seconds or 20.0,
        nano=nano if all(nano) else None,
    )


def _wanted(args: argparse.Namespace) -> tuple[str, ...]:
    if args.what is not None:
        return (args.what,)
    if args.plots is None:
        return ("network", "tracker")
    return tuple(what for what in WHATS if what not in ("node", "gpu"))


def _measure(what: str, options: Options) -> list[Table]:
    from siamcar_ros.speed import runs

    if what == "network":
        return [runs.measure_network(options, name) for name in options.networks]
    if what == "node":
        from siamcar_ros.speed.node import measure_node

        return measure_node(options)
    measure = {
        "tracker": runs.measure_tracker,
        "targets": runs.measure_targets,
        "sizes": runs.measure_sizes,
        "batch": runs.measure_batch,
    }[what]
    return [measure(options)]


def _plot(tables: list[tuple[str, Table]], folder: Path) -> None:
    from siamcar_ros.speed.plots import latency_by_rate, plot_backbones, plot_growth

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
    print(f"pictures in {folder}")
