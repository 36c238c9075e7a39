"""The node between processes: what it adds to the tracker, and how old a detection is.

A tracker node and a probe that shows it images run in processes of their own, over the real
middleware, once with Fast DDS's defaults and once with the shared-memory profile that ships.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from siamcar_ros.processes import Child, ended_in_order
from siamcar_ros.resources import resource_path
from siamcar_ros.speed.tables import Table

if TYPE_CHECKING:
    from siamcar_ros.speed.runs import Options

SIZES = ((640, 480), (1280, 720), (1920, 1080))
RATES = (15.0, 30.0, 60.0, 120.0, 240.0, 480.0)
_CAMERA_RATE = 20.0
_PROFILES = ("defaults", "shared memory")
_TRANSPORTS = ("raw", "compressed")
_COLUMNS = {
    "latency": "latency ms",
    "p99": "99% ms",
    "node": "in the node ms",
    "overhead": "node less tracker ms",
    "shown": "images",
    "tracked": "tracked",
}
_PATIENCE = 300.0


def measure_node(options: Options) -> list[Table]:
    """Latency by size, transport and profile; and as the camera's rate grows.

    Raises:
        ValueError: ROS 2 is not to be had, or the node does not start; the message says why.
    """
    network = options.networks[0]
    if importlib.util.find_spec("rclpy") is None:
        raise ValueError(
            "the node needs ROS 2: source its setup file, or in a checkout `source tools/env.sh`"
        )
    with ended_in_order():
        return [_by_size(options, network), _by_rate(options, network)]


def _by_size(options: Options, network: str) -> Table:
    table = Table(
        f"{network} in the node, {_CAMERA_RATE:g} images a second, between processes",
        {"profile": "Fast DDS", "transport": "transport", "size": "size", **_COLUMNS},
        notes=[
            "latency: from before an image's publication to its detection's arrival, median; "
            "overhead: from the callback's start to the published detection, less crop, network "
            "and decode.",
        ],
    )
    seconds = max(2.0, options.seconds / (len(SIZES) * len(_TRANSPORTS) * len(_PROFILES)))
    for profile in _PROFILES:
        for transport in _TRANSPORTS:
            showings = [
                _showing(width, height, transport, _CAMERA_RATE, seconds) for width, height in SIZES
            ]
            heard = _heard(options, network, transport, profile, showings)
            for (width, height), answer in zip(SIZES, heard, strict=True):
                table.rows.append(
                    {"profile": profile, "transport": transport, "size": f"{width}x{height}"}
                    | _figures(answer)
                )
    return table


def _by_rate(options: Options, network: str) -> Table:
    table = Table(
        f"{network} in the node as the camera's rate grows, 640x480 raw, shared memory",
        {"rate": "images a second", **_COLUMNS},
        notes=["The newest image wins: what cannot be tracked is dropped, and latency stays."],
    )
    seconds = max(2.0, options.seconds / len(RATES))
    showings = [_showing(640, 480, "raw", rate, seconds) for rate in RATES]
    for rate, answer in zip(
        RATES, _heard(options, network, "raw", "shared memory", showings), strict=True
    ):
        table.rows.append({"rate": rate} | _figures(answer))
    return table


def _showing(
    width: int, height: int, transport: str, rate: float, seconds: float
) -> dict[str, Any]:
    return {
        "width": width,
        "height": height,
        "transport": transport,
        "rate": rate,
        "seconds": seconds,
    }


def _figures(heard: dict[str, Any]) -> dict[str, Any]:
    figures = {"shown": heard["shown"], "tracked": len(heard["latency"])}
    if heard["latency"] and heard["node"]:
        figures |= {
            "latency": 1e3 * float(np.median(heard["latency"])),
            "p99": 1e3 * float(np.percentile(heard["latency"], 99)),
            "node": 1e3 * float(np.median(heard["node"])),
            "overhead": 1e3 * float(np.median(heard["overhead"])),
        }
    return figures


def _heard(
    options: Options,
    network: str,
    transport: str,
    profile: str,
    showings: Sequence[dict[str, Any]],
) -> list[dict[str, Any]]:
    """What the probe heard of a node of its own, for each showing."""
    parameters = {
        "config": network,
        "weights": options.weights or "",
        "device": options.device,
        "threads": options.threads,
        "image_transport": transport,
    }
    arguments = ["--ros-args", "-r", "__ns:=/bench"]
    for name, value in parameters.items():
        if value != "":
            arguments += ["-p", f"{name}:={value}"]
    environment = _environment(profile)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "node.log"
        with Child("the node", "siamcar_ros.ros.tracker_node", arguments, log, environment) as node:
            node.start()
            probe = subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "siamcar_ros.ros.latency_probe",
                    "/bench/tracker",
                    json.dumps(list(showings)),
                ],
                env=environment,
                capture_output=True,
                text=True,
                timeout=_PATIENCE,
                check=False,
            )
        if probe.returncode:
            said = (log.read_text(errors="replace") + probe.stderr).strip().splitlines()
            raise ValueError("the node was not measured: " + " / ".join(said[-3:]))
    return [json.loads(line) for line in probe.stdout.splitlines() if line.startswith("{")]


def _environment(profile: str) -> dict[str, str]:
    """For both processes: the profile, and a domain in which nobody else speaks."""
    environment = dict(os.environ)
    for name in ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"):
        environment.pop(name, None)
        if profile == "shared memory":
            environment[name] = str(Path(resource_path("config/fastdds/shared_memory.xml")))
    environment["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)
    return environment
