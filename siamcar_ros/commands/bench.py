"""`siamcar bench`: which backend and precision is fastest on this machine."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

EXAMPLES = """examples:
  siamcar bench
  siamcar bench mobile --threads 2 --targets 4
  siamcar bench resnet50 --weights siamcar_r50.safetensors --device cuda

The backends run in turn, so that other programs slow all of them alike: on a busy machine trust
the ratios, not the milliseconds.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `siamcar bench`."""
    parser.add_argument(
        "networks",
        nargs="*",
        default=["compact"],
        metavar="NETWORK",
        help="a shipped network's name, or a YAML file (default: compact)",
    )
    parser.add_argument(
        "--weights", type=Path, metavar="FILE", help="of the network, if one is given"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (%(default)s)")
    parser.add_argument(
        "--threads", type=int, metavar="N", help="CPU threads (default: each backend's choice)"
    )
    parser.add_argument(
        "--targets", type=int, default=1, metavar="N", help="targets in each frame (%(default)s)"
    )
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="time for each network, about (%(default)g)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures; - for stdout")


def run(args: argparse.Namespace) -> int:
    """Measure, print, write."""
    from siamcar_ros.files import check_folder, replacing
    from siamcar_ros.runtime import select_backend
    from siamcar_ros.speed.backends import Options, measure_backends
    from siamcar_ros.speed.measure import describe_machine

    for name in ("seconds", "targets", "threads"):
        value = getattr(args, name)
        if value is not None and not value > 0:
            raise ValueError(f"--{name} must be above 0, not {value:g}")
    if args.weights is not None and len(args.networks) != 1:
        raise ValueError("--weights needs one network: siamcar bench NETWORK --weights FILE")
    if args.json is not None and str(args.json) != "-":
        check_folder(args.json)
    options = Options(select_backend(args.device).device, args.threads, args.targets, args.seconds)
    machine = describe_machine(args.threads, options.device)
    out = sys.stderr if str(args.json) == "-" else sys.stdout
    print("\n".join(f"{key}: {value}" for key, value in machine.items()), file=out)
    tables = []
    for network in args.networks:
        tables.append(measure_backends(network, args.weights, options))
        print(f"\n{tables[-1].text()}", file=out, flush=True)
    if args.json is not None:
        content = {"machine": machine, "tables": [table.as_dict() for table in tables]}
        text = json.dumps(content, indent=1) + "\n"
        if str(args.json) == "-":
            print(text, end="")
        else:
            with replacing(args.json) as file:
                file.write_text(text, encoding="utf-8")
    return 0
