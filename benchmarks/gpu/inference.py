"""Image to box on a GPU, beside the published way: by kernels, stage and number of targets."""

from __future__ import annotations

import copy
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from benchmarks.contestants import Film, model_of
from benchmarks.gpu.run import Clock, GpuOptions, Part
from benchmarks.peaks import matrix_rate, search_operations
from benchmarks.published import PublishedTracker
from benchmarks.runs import stages
from siamcar_ros.model import SiamCAR
from siamcar_ros.runtime import Network, load_network, select_backend
from siamcar_ros.runtime.fusion import KERNELS
from siamcar_ros.speed.backends import follow, update_call
from siamcar_ros.speed.measure import interleave
from siamcar_ros.speed.tables import Table
from siamcar_ros.tracking import MultiTracker, SiamCarTracker, TrackerParams

_PROFILED_FRAMES = 20
_TIMED_FRAMES = 48
_SHOWN_KERNELS = 14
_TARGETS = (1, 2, 4, 8)


@dataclass
class _Subject:
    """A network in the process, and what runs it."""

    name: str
    model: SiamCAR
    params: TrackerParams
    flops: float
    networks: dict[str, Network] = field(default_factory=dict)
    load_seconds: dict[str, float] = field(default_factory=dict)
    fastest: str = ""


def measure_inference(part: Part, options: GpuOptions, clock: Clock) -> None:
    """See the module; the first network is measured the most closely."""
    device, film = options.device, Film(2 if options.quick else 16)
    precision = "fp32" if device == "cpu" else "fp16"
    peak = part.attempt("the matrix rate", lambda: _peak(part, options, precision))
    closely: _Subject | None = None
    for index, name in enumerate(options.networks):
        if not clock.has(0.85):
            part.notes.append(f"{name}: no time left")
            continue
        subject = part.attempt(name, partial(_load, name, options, index == 0, part))
        if subject is None or not subject.networks:
            continue
        closely = closely or subject
        steps: dict[str, Callable[..., Any]] = {"frames": _measure_frames, "targets": _targets}
        if device != "cpu":
            steps["kernels"] = _profile
        for what, step in steps.items():
            part.attempt(f"{name}, {what}", partial(step, part, options, subject, film, peak))
    if closely is not None:
        _others(part, options, closely, film, clock)


def _peak(part: Part, options: GpuOptions, precision: str) -> float:
    """Operations a second of a large matrix product."""
    rate = matrix_rate(precision, options.device)
    part.notes.append(f"matrix product in {precision}: {rate / 1e12:.3g} TFLOP/s")
    return rate


def _load(name: str, options: GpuOptions, closely: bool, part: Part) -> _Subject:
    model, params, weights = model_of(name)
    subject = _Subject(name, model, params, search_operations(model))
    part.notes.append(f"{name}: {weights}, {subject.flops / 1e9:.3g} GFLOP a frame")
    if options.device == "cpu":
        starts: dict[str, str | None] = {"torch fp32": None}
    elif closely:
        starts = {f"{kernels} kernels": kernels for kernels in KERNELS}
    else:
        starts = {"as chosen": None}
    for label, kernels in starts.items():
        started = part.attempt(
            f"{name}, {label}", partial(_started, model, options.device, "auto", kernels)
        )
        if started is not None:
            subject.networks[label], subject.load_seconds[label] = started
    part.notes += [f"{name}, {label}: {n.reason}" for label, n in subject.networks.items()]
    return subject


def _started(
    model: SiamCAR, device: str, precision: str, kernels: str | None = None
) -> tuple[Network, float]:
    """A network, warm, and the seconds that this took; in eager PyTorch on a CPU."""
    begin = time.perf_counter()
    if device == "cpu":
        precision = "fp32" if precision == "auto" else precision
        network = load_network(model, device="cpu", backend="torch", precision=precision)
    elif kernels is None:
        network = load_network(model, device=device)
    else:
        from siamcar_ros.runtime.cuda_graph_network import CudaGraphNetwork

        network = CudaGraphNetwork(model, select_backend(device, "cudagraph", precision), kernels)
    network.warm_up()
    return network, time.perf_counter() - begin


def _measure_frames(
    part: Part, options: GpuOptions, subject: _Subject, film: Film, peak: float | None
) -> None:
    """One target, image to box, against the published way in turns."""
    trackers: dict[str, Any] = {}
    for label, network in subject.networks.items():
        trackers[label] = SiamCarTracker(network, subject.params)
    published = copy.deepcopy(subject.model).to(options.device)
    trackers["as published"] = PublishedTracker(published)
    calls = {}
    for label, tracker in trackers.items():
        tracker.init(film.images[0], film.boxes[0])
        calls[label] = update_call(tracker, film)
    timings = interleave(calls, 0.1 if options.quick else 5.0)
    subject.fastest = min(subject.networks, key=lambda label: timings[label].median)
    height, width = film.images[0].shape[:2]
    table = part.table(
        Table(
            f"{subject.name}: one target, {width}x{height}, image to box",
            {
                "name": "",
                "ms": "ms",
                "fps": "frames/s",
                "ratio": "x published",
                "crop": "crop ms",
                "network": "network ms",
                "decode": "decode ms",
                "share": "of the matrix rate, network",
                "load": "start s",
            },
            notes=[
                "network: upload, network, download, as the CPU sees it; as published: eager, "
                "fp32 (TF32 in a GPU's convolutions), unfolded"
            ],
        )
    )
    for label, timing in timings.items():
        row: dict[str, Any] = {"name": label, "ms": 1e3 * timing.median, "fps": 1 / timing.median}
        row["ratio"] = timing.faster_than(timings["as published"])
        if label in subject.networks:
            spent = stages(trackers[label], film, _TIMED_FRAMES)
            row |= {stage: 1e3 * seconds for stage, seconds in spent.items()}
            row["load"] = subject.load_seconds[label]
            if peak:
                row["share"] = f"{100 * subject.flops / spent['network'] / peak:.0f} %"
        table.rows.append(row)


def _profile(
    part: Part, options: GpuOptions, subject: _Subject, film: Film, peak: float | None
) -> None:
    """What the GPU does in a frame: launches, its time by kind, the longest kernels."""
    from torch.profiler import ProfilerActivity, profile

    table = part.table(
        Table(
            f"{subject.name}: the GPU in one frame",
            {
                "name": "",
                "launches": "kernels and copies",
                "busy": "busy ms",
                "span": "first to last ms",
                "upload": "upload ms",
                "download": "download ms",
            },
        )
    )
    for label, network in subject.networks.items():
        tracker = SiamCarTracker(network, subject.params)
        tracker.init(film.images[0], film.boxes[0])
        images = film.endless()
        tracker.update(next(images))
        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            for _ in range(_PROFILED_FRAMES):
                tracker.update(next(images))
            torch.cuda.synchronize()
        events = sorted(device_events(profiler), key=lambda event: event[1])
        if not events:
            part.notes.append(f"{subject.name}, {label}: the profiler saw no kernel")
            continue
        totals: dict[str, list[float]] = defaultdict(list)
        for kind, begin, end in events:
            totals[kind].append((end - begin) / 1e3 / _PROFILED_FRAMES)
        table.rows.append(
            {
                "name": label,
                "launches": round(len(events) / _PROFILED_FRAMES),
                "busy": union(events) / 1e3 / _PROFILED_FRAMES,
                "span": _span(events) / 1e3,
                "upload": sum(sum(v) for kind, v in totals.items() if "HtoD" in kind),
                "download": sum(sum(v) for kind, v in totals.items() if "DtoH" in kind),
            }
        )
        ranked = sorted(totals.items(), key=lambda item: -sum(item[1]))[:_SHOWN_KERNELS]
        longest = "; ".join(
            f"{len(times) / _PROFILED_FRAMES:g}x {sum(times):.3f} ms {kind[:60]}"
            for kind, times in ranked
        )
        part.notes.append(f"{subject.name}, {label}, longest kernels in a frame: {longest}")


def device_events(profiler: Any) -> list[tuple[str, float, float]]:
    """(name, begin, end) in microseconds of what a profiler saw the GPU do."""
    from torch.autograd import DeviceType

    return [
        (event.name, event.time_range.start, event.time_range.end)
        for event in profiler.events()
        if event.device_type == DeviceType.CUDA
    ]


def union(events: list[tuple[str, float, float]]) -> float:
    """The length of the union of events that are sorted by their beginning."""
    total, reached = 0.0, float("-inf")
    for _, begin, end in events:
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


def _span(events: list[tuple[str, float, float]]) -> float:
    """Median microseconds from a frame's first event, an upload, to its last."""
    spans, first, last = [], None, 0.0
    for name, begin, end in events:
        if "HtoD" in name:
            if first is not None:
                spans.append(last - first)
            first = begin
        last = max(last, end)
    spans += [] if first is None else [last - first]
    return sorted(spans)[len(spans) // 2] if spans else 0.0


def _targets(
    part: Part, options: GpuOptions, subject: _Subject, film: Film, peak: float | None
) -> None:
    """Several targets in one frame, in one call of the network."""
    label = subject.fastest or next(iter(subject.networks))
    calls: dict[str, Callable[[], Any]] = {}
    trackers: dict[str, MultiTracker] = {}
    for n in _TARGETS[:2] if options.quick else _TARGETS:
        tracker = follow(subject.networks[label], subject.params, n, film)
        trackers[str(n)], calls[str(n)] = tracker, update_call(tracker, film)
    timings = interleave(calls, 0.1)
    table = part.table(
        Table(
            f"{subject.name}: several targets, {label}",
            {
                "name": "targets",
                "ms": "ms",
                "times": "x one target",
                "crop": "crop ms",
                "network": "network ms",
                "decode": "decode ms",
            },
        )
    )
    for count, timing in timings.items():
        spent = {
            k: 1e3 * seconds for k, seconds in stages(trackers[count], film, _TIMED_FRAMES).items()
        }
        times = 1 / timing.faster_than(timings["1"])
        table.rows.append({"name": count, "ms": 1e3 * timing.median, "times": times, **spent})


def _others(part: Part, options: GpuOptions, subject: _Subject, film: Film, clock: Clock) -> None:
    """Time the other precisions."""
    kernels = getattr(subject.networks.get(subject.fastest), "kernels", "plain")
    started = "torch" if options.device == "cpu" else f"{kernels} kernels"
    table = part.table(
        Table(
            f"{subject.name}: other precisions",
            {"name": "", "ms": "ms", "network": "network ms", "load": "start s"},
        )
    )
    for precision in ("bf16",) if options.device == "cpu" else ("bf16", "fp32"):
        label = f"{started}, {precision}"
        if clock.has(0.9):
            step = partial(_precision_row, options, subject, film, precision, kernels)
            row = part.attempt(f"{subject.name}, {label}", step)
            table.rows += [] if row is None else [{"name": label, **row}]
        else:
            part.notes.append(f"{subject.name}, {label}: no time left")


def _precision_row(
    options: GpuOptions, subject: _Subject, film: Film, precision: str, kernels: str
) -> dict[str, float]:
    network, load = _started(subject.model, options.device, precision, kernels)
    tracker = SiamCarTracker(network, subject.params)
    tracker.init(film.images[0], film.boxes[0])
    timing = interleave({"": update_call(tracker, film)}, 0.1)[""]
    spent = stages(tracker, film, _TIMED_FRAMES)["network"]
    return {"ms": 1e3 * timing.median, "load": load, "network": 1e3 * spent}
