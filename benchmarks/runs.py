"""The measurements of `python -m benchmarks`; all figures of a table come from one run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.contestants import (
    Film,
    StillNetwork,
    calibration_of,
    int8_graph,
    model_of,
    variants,
)
from benchmarks.peaks import search_operations
from benchmarks.published import PublishedTracker
from siamcar_ros.evaluation.trackers import TrackerSpec
from siamcar_ros.runtime import DeviceError, Network, load_network
from siamcar_ros.runtime.network import Images
from siamcar_ros.runtime.tensors import TensorAdapter
from siamcar_ros.speed.backends import follow, update_call
from siamcar_ros.speed.measure import interleave
from siamcar_ros.speed.tables import Table
from siamcar_ros.tracking import MultiTracker, SiamCarTracker, TrackerParams

FRAME_SIZES = ((320, 240), (640, 480), (1280, 720), (1920, 1080), (3840, 2160))
COUNTS = (1, 2, 4, 8)
_SPREAD = {"ms": "ms", "low": "25 %", "high": "75 %"}


@dataclass(frozen=True)
class Options:
    """What to measure, and for how long.

    Attributes:
        networks: names.
        weights: of the network, where only one is named.
        device: "cpu" or "cuda:N".
        threads: of the CPU.
        seconds: for each table, about.
        nano: the files of NanoTrack's backbone and head.
    """

    networks: tuple[str, ...]
    weights: Path | None
    device: str
    threads: int
    seconds: float
    nano: tuple[str, ...] | None = None


def measure_network(options: Options, name: str) -> Table:
    """Time the search branch on every backend, beside the model in eager PyTorch."""
    model, _, weights = model_of(name, options.weights)
    film = Film()
    networks, left_out = variants(model, options.device, film, options.threads)
    z, x = film.pairs(model.offset, model.score_size)[0]
    calls = {"as published": _search_call(TensorAdapter(model.to(options.device)), z, x)}
    calls |= {label: _search_call(network, z, x) for label, network in networks.items()}
    timings = interleave(calls, options.seconds)
    flops = search_operations(model.to("cpu"))
    table = Table(
        f"network: {name}, one search region, {flops / 1e9:.2f} GFLOP",
        {"name": "", **_SPREAD, "ratio": "x published", "gflops": "GFLOP/s"},
        notes=[
            weights,
            "as published: eager PyTorch in fp32, BatchNorm not folded",
            *left_out,
        ],
    )
    for label, timing in timings.items():
        ratio = timing.faster_than(timings["as published"])
        rate = flops / timing.median / 1e9
        table.rows.append({"name": label, **timing.row(), "ratio": ratio, "gflops": rate})
    return table


def _search_call(network: Any, z: Images, x: Images) -> Callable[[], Any]:
    template = network.template(z)
    return lambda: network(x, template)


def measure_tracker(options: Options) -> Table:
    """Time whole frames, image to box: each backend, the published way, and TrackerNano."""
    film = Film()
    calls: dict[str, Callable[[], Any]] = {}
    trackers: dict[str, SiamCarTracker] = {}
    notes = []
    for name in options.networks:
        model, params, weights = model_of(name, options.weights)
        notes.append(f"{name}: {weights}")
        networks, left_out = variants(model, options.device, film, options.threads)
        notes += [f"{name}, {why}" for why in left_out]
        calibration = None if options.weights else calibration_of(name)
        for label, network in networks.items():
            network.calibration = calibration
            tracker = SiamCarTracker(network, params)
            tracker.init(film.images[0], film.boxes[0])
            trackers[f"{name}, {label}"] = tracker
            calls[f"{name}, {label}"] = update_call(tracker, film)
        if name.startswith("resnet"):
            published = PublishedTracker(model.to(options.device))
            published.init(film.images[0], film.boxes[0])
            calls[f"{name} as published"] = update_call(published, film)
    if options.nano is not None:
        nano = TrackerSpec("NanoTrack", "nano", files=options.nano).build()
        nano.init(film.images[0], film.boxes[0])
        calls["TrackerNano"] = update_call(nano, film)
    timings = interleave(calls, options.seconds)
    height, width = film.images[0].shape[:2]
    table = Table(
        f"tracker: one target, {width}x{height}, image to box",
        {
            "name": "",
            **_SPREAD,
            "fps": "frames/s",
            "crop": "crop ms",
            "network": "network ms",
            "decode": "decode ms",
        },
        notes=notes,
    )
    references = [name for name in calls if name.endswith("published") or name == "TrackerNano"]
    for reference in references:
        table.columns[reference] = f"x {reference}"
    for label, timing in timings.items():
        row = {"name": label, **timing.row()}
        if label in trackers:
            row |= {stage: 1e3 * s for stage, s in stages(trackers[label], film).items()}
        for reference in references:
            row[reference] = timing.faster_than(timings[reference])
        table.rows.append(row)
    return table


def stages(
    tracker: SiamCarTracker | MultiTracker, film: Film, frames: int = 12
) -> dict[str, float]:
    """Median seconds of each stage over some frames."""
    images, seen = film.endless(), []
    for _ in range(frames):
        tracker.update(next(images))
        seen.append(tracker.timings)
    return {stage: median(timings[stage] for timings in seen) for stage in seen[0]}


def measure_sizes(options: Options) -> Table:
    """Time what happens outside the network, by frame size, beside the published way."""
    model, params, _ = model_of("resnet50" if "resnet50" in options.networks else "compact")
    still: Any = StillNetwork(model)
    calls: dict[str, Callable[[], Any]] = {}
    for size in FRAME_SIZES:
        film = Film(6, size)
        for label, tracker in (
            ("ours", SiamCarTracker(still, params)),
            ("as published", PublishedTracker(still)),
        ):
            tracker.init(film.images[0], film.boxes[0])
            calls[f"{size[0]}x{size[1]} {label}"] = update_call(tracker, film)
    timings = interleave(calls, options.seconds)
    table = Table(
        "sizes: time outside the network (crop and decode), by frame size",
        {"name": "", "megapixels": "megapixels", **_SPREAD, "ratio": "x published"},
        notes=[
            "the target keeps its size and place; the published way copies the whole frame when "
            "the search square crosses its border"
        ],
    )
    for width, height in FRAME_SIZES:
        for label in ("ours", "as published"):
            frame = f"{width}x{height}"
            timing = timings[f"{frame} {label}"]
            row = {"name": f"{frame} {label}", **timing.row(), "line": label}
            row["ratio"] = timing.faster_than(timings[f"{frame} as published"])
            table.rows.append(row | {"megapixels": width * height / 1e6})
    return table


def measure_targets(options: Options) -> Table:
    """Time several targets in one frame, which share one call of the network."""

    def call(network: Network, params: TrackerParams, film: Film, n: int) -> Callable[[], Any]:
        return update_call(follow(network, params, n, film), film)

    title = "targets: one frame, n targets, one call of the network"
    return _measure_counts(options, title, "target", call)


def measure_batch(options: Options) -> Table:
    """Time the network alone, with several search regions in one call."""

    def call(network: Network, params: TrackerParams, film: Film, n: int) -> Callable[[], Any]:
        z, x = film.pairs(network.offset, network.score_size)[0]
        return _search_call(network, z, x.repeat(n, 0))

    return _measure_counts(
        options, "batch: n search regions in one call of the network", "region", call
    )


def _measure_counts(
    options: Options,
    title: str,
    what: str,
    call: Callable[[Network, TrackerParams, Film, int], Callable[[], Any]],
) -> Table:
    """Time a call with 1, 2, 4 and 8 of something, for each network on its fastest backend."""
    film = Film()
    table = Table(
        title,
        {"name": "", "n": f"{what}s", **_SPREAD, "each": "ms each", "times": f"x one {what}"},
    )
    calls: dict[str, Callable[[], Any]] = {}
    for name in options.networks:
        model, params, _ = model_of(name, options.weights)
        try:
            graph = int8_graph(model, film) if options.device == "cpu" else None
        except DeviceError:  # without the packages for an export
            graph = None
        network = load_network(model, graph, device=options.device, threads=options.threads)
        network.warm_up(max(COUNTS), calls=1)
        table.notes.append(f"{name}: {network.backend} {network.precision} on {network.device}")
        for n in COUNTS:
            calls[f"{name}, {n}"] = call(network, params, film, n)
    timings = interleave(calls, options.seconds)
    for label, timing in timings.items():
        name, _, count = label.partition(", ")
        row = {"name": label, "n": int(count), "line": name, **timing.row()}
        row["each"] = 1e3 * timing.median / int(count)
        row["times"] = 1 / timing.faster_than(timings[f"{name}, 1"])
        table.rows.append(row)
    return table
