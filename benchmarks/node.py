"""The latency of the node between processes, and what the node adds to the tracker's own time.

A tracker node, a frame source and a client run in separate processes over the real middleware, once
with Fast DDS's defaults and once with the shared-memory profile that ships.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from siamcar_ros.data.film import CLIP
from siamcar_ros.resources import FASTDDS_VARIABLES, resource_path
from siamcar_ros.speed.tables import Table

if TYPE_CHECKING:
    from benchmarks.runs import Options

SIZES = ("640x480", "1280x720", "1920x1080")
RATES = (15.0, 30.0, 60.0, 120.0, 240.0, 480.0)
_CAMERA_RATE = 20.0
_FRAMES = 16  # that the source keeps in memory
_PROFILES = {"defaults": "", "shared memory": "config/fastdds/shared_memory.xml"}
_COLUMNS = {
    "latency": "latency ms",
    "p99": "99% ms",
    "node": "in the node ms",
    "overhead": "node less tracker ms",
    "shown": "images",
    "tracked": "tracked",
}


def measure_node(options: Options) -> list[Table]:
    """Measure latency by image size, transport and profile, and as the camera's rate grows.

    Raises:
        ValueError: ROS 2 is not installed, or the node does not start; the message says why.
    """
    network = options.networks[0]
    if importlib.util.find_spec("rclpy") is None:
        raise ValueError(
            "the node needs ROS 2: source its setup file, or in a checkout `source tools/env.sh`"
        )
    by_size = Table(
        f"{network} in the node, {_CAMERA_RATE:g} images per second, between processes",
        {"profile": "Fast DDS", "transport": "transport", "size": "size", **_COLUMNS},
        notes=[
            "latency: from an image's publication to its detection's arrival, median; overhead: "
            "from the callback's start to the published detection, less crop, network and decode",
        ],
    )
    by_rate = Table(
        f"{network} in the node as the camera's rate grows, 640x480 raw, shared memory",
        {"rate": "images a second", **_COLUMNS},
        notes=["the newest image wins: what cannot be tracked is dropped, and latency stays"],
    )
    seconds = max(2.0, options.seconds / (4 * len(SIZES)))
    for profile in _PROFILES:
        for transport in ("raw", "compressed"):
            source = {"rate": _CAMERA_RATE, "image_transport": transport}
            sources = [source | {"size": size} for size in SIZES]
            rows = _measured(options, profile, sources, seconds)
            about = {"profile": profile, "transport": transport}
            by_size.rows += [
                about | {"size": size} | row for size, row in zip(SIZES, rows, strict=True)
            ]
    sources = [{"rate": rate, "image_transport": "raw"} for rate in RATES]
    seconds = max(2.0, options.seconds / len(RATES))
    rows = _measured(options, "shared memory", sources, seconds)
    by_rate.rows = [{"rate": rate} | row for rate, row in zip(RATES, rows, strict=True)]
    return [by_size, by_rate]


def _measured(
    options: Options, profile: str, sources: list[dict[str, Any]], seconds: float
) -> list[dict[str, Any]]:
    """Measure in a process of its own: Fast DDS reads a profile once."""
    tracker = {
        "config": options.networks[0],
        "weights": str(options.weights or ""),
        "device": options.device,
        "threads": options.threads,
        "image_transport": sources[0]["image_transport"],
    }
    path = str(resource_path(_PROFILES[profile])) if _PROFILES[profile] else ""
    with ProcessPoolExecutor(
        1, mp_context=get_context("spawn"), initializer=_isolate, initargs=(path,)
    ) as pool:
        return pool.submit(_play_all, tracker, sources, seconds).result()


def _isolate(profile: str) -> None:
    """Set the profile, and a ROS domain in which nobody else publishes."""
    for name in FASTDDS_VARIABLES:
        os.environ.pop(name, None)
        if profile:
            os.environ[name] = profile
    os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)


def _play_all(
    tracker: dict[str, Any], sources: list[dict[str, Any]], seconds: float
) -> list[dict[str, Any]]:
    from siamcar_ros.processes import unwind_on_signals
    from siamcar_ros.ros.live_run import LiveRun, LiveRunError

    rows = []
    try:
        with (
            unwind_on_signals(),
            tempfile.TemporaryDirectory() as folder,
            LiveRun(Path(folder), tracker, "/bench") as live,
        ):
            live.wait_until_active()
            for source in sources:
                heard = live.play({"source": CLIP, "preload": _FRAMES} | source, seconds=seconds)
                rows.append(_row(heard.score.summary()[-1], heard.statuses))
    except LiveRunError as error:
        raise ValueError(f"the node was not measured: {error}") from error
    return rows


def _row(score: dict[str, Any], statuses: list[Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"shown": score["frames"], "tracked": score["answered"]}
    if statuses and score["latency_ms"]:
        inside = [s.total_latency for s in statuses]
        own = [s.crop_latency + s.network_latency + s.decode_latency for s in statuses]
        row |= {
            "latency": score["latency_ms"]["median"],
            "p99": score["latency_ms"]["p99"],
            "node": 1e3 * float(np.median(inside)),
            "overhead": 1e3 * float(np.median(np.subtract(inside, own))),
        }
    return row
