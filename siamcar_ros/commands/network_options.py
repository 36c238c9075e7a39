"""The options of every subcommand that tracks: which network, where it runs, which parameters."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from siamcar_ros.evaluation.trackers import TrackerSpec
from siamcar_ros.options import assignments
from siamcar_ros.resources import parse_yaml
from siamcar_ros.runtime import BACKENDS, PRECISIONS


def add_network_arguments(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """Declare --network (a list, empty by default, if `several`), --weights, --device and so on."""
    if several:
        parser.add_argument(
            "--network",
            nargs="+",
            action="extend",
            default=[],
            metavar="NAME",
            help="SiamCAR networks or their YAML files (compact, if no other tracker is given)",
        )
    else:
        parser.add_argument(
            "--network", default="compact", metavar="NAME", help="name or YAML file (%(default)s)"
        )
    parser.add_argument("--weights", metavar="FILE", help="weights (default: the network's own)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (%(default)s)")
    parser.add_argument(
        "--backend", default="auto", help=f"auto or one of {', '.join(BACKENDS)} (%(default)s)"
    )
    parser.add_argument(
        "--precision", default="auto", help=f"auto or one of {', '.join(PRECISIONS)} (%(default)s)"
    )
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        dest="settings",
        help="tracker parameters that replace the network's, e.g. lr=0.4 decoder=paper",
    )


def parse_settings(pairs: list[str]) -> dict[str, Any]:
    """Parse the tracker parameters of --set, KEY=VALUE each, the values as YAML; or ValueError."""
    given = assignments(pairs, "--set")
    return {key: parse_yaml(value, f"--set {key}") for key, value in given.items()}


def network_spec(args: argparse.Namespace, network: str) -> TrackerSpec:
    """Describe the tracker that has `network` and is otherwise as the options say."""
    return TrackerSpec(
        title=f"SiamCAR-{Path(network).stem}",
        network=network,
        weights=args.weights,
        device=args.device,
        backend=args.backend,
        precision=args.precision,
        settings=parse_settings(args.settings),
    )
