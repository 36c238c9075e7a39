"""One network on every backend and in every precision that is available here, image to box."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

from siamcar_ros.data.film import open_source
from siamcar_ros.evaluation.metrics import iou
from siamcar_ros.geometry import Box, Image
from siamcar_ros.runtime import DeviceError, Network, find_placement, load_network
from siamcar_ros.runtime.select import installed_abilities
from siamcar_ros.speed.measure import interleave
from siamcar_ros.speed.tables import Table
from siamcar_ros.tracking import MultiTracker, TrackerParams, read_config


class Film:
    """The first frames of the film that ships, in memory, with their true boxes."""

    def __init__(self, frames: int = 60) -> None:
        clip = open_source("clip")
        assert clip.boxes is not None
        self.images: list[Image] = list(islice(clip.images(), frames))
        self.boxes: list[Box] = [(x, y, w, h) for x, y, w, h in clip.boxes[:frames].tolist()]

    def endless(self) -> Iterator[Image]:
        """The images forward and backward without end, so that the target never jumps."""
        return cycle(self.images + self.images[-2:0:-1])


@dataclass(frozen=True)
class Options:
    """What to measure."""

    device: str  # "cpu" or "cuda:N"
    threads: int | None = None  # of the CPU; None leaves the choice to each backend
    targets: int = 1  # in each frame, followed together
    seconds: float = 20.0  # to measure for, about


def measure_backends(config: str, weights: Path | None, options: Options) -> Table:
    """Time whole frames on each backend in turn, and score the boxes that each finds.

    `config` is a network's name or YAML file; `weights` replace those that it names.
    """
    film, read = Film(), read_config(config, weights)
    chosen = find_placement(read.network, device=options.device)[0]
    auto = f"{chosen.backend} {chosen.precision}"
    height, width = film.images[0].shape[:2]
    table = Table(
        f"{read.network.name}: {width}x{height}, image to box, {options.targets} target"
        + "s" * (options.targets > 1),
        {
            "name": "",
            "ms": "ms",
            "low": "25 %",
            "high": "75 %",
            "fps": "frames/s",
            "ratio": f"x {auto} (auto)",
            "crop": "crop ms",
            "network": "network ms",
            "decode": "decode ms",
            "start": "start s",
            "overlap": "mean overlap",
        },
        notes=[f"mean overlap: with the true boxes of the clip's first {len(film.images)} frames"],
    )
    calls: dict[str, Callable[[], Any]] = {}
    rows: dict[str, dict[str, Any]] = {}
    for backend, precision in installed_abilities(options.device.partition(":")[0]):
        label = f"{backend} {precision}"
        begin = time.perf_counter()
        try:
            network = load_network(
                read.network,
                device=options.device,
                backend=backend,
                precision=precision,
                threads=options.threads,
            )
            network.warm_up(options.targets)
        except DeviceError as error:
            table.notes.append(f"{label} left out: {error}")
            continue
        rows[label] = {"name": label, "start": time.perf_counter() - begin}
        rows[label] |= _first_pass(network, read.params, options.targets, film)
        calls[label] = update_call(follow(network, read.params, options.targets, film), film)
    timings = interleave(calls, options.seconds)
    for label, timing in timings.items():
        row = rows[label] | timing.row()
        if auto in timings:
            row["ratio"] = timing.faster_than(timings[auto])
        table.rows.append(row)
    return table


def update_call(tracker: Any, film: Film) -> Callable[[], Any]:
    """A call that shows a tracker the next frame."""
    images = film.endless()
    return lambda: tracker.update(next(images))


def follow(network: Network, params: TrackerParams, targets: int, film: Film) -> MultiTracker:
    """A tracker that follows the film's target in each of its `targets` tracks.

    With different targets, box sizes would differ and some might be lost, so that the time of one
    and of several could not be compared.
    """
    tracker = MultiTracker(network, params, max_targets=targets)
    for i in range(targets):
        tracker.add(film.images[0], film.boxes[0], str(i))
    return tracker


def _first_pass(
    network: Network, params: TrackerParams, targets: int, film: Film
) -> dict[str, float]:
    """Milliseconds by stage, the medians over the film, and the mean overlap with its boxes."""
    tracker = follow(network, params, targets, film)
    boxes, seconds = [], []
    for image in film.images[1:]:
        boxes.append(tracker.update(image)["0"].box)
        seconds.append(tracker.timings)
    row = {stage: 1e3 * float(np.median([s[stage] for s in seconds])) for stage in seconds[0]}
    return row | {"overlap": float(np.mean(iou(boxes, film.boxes[1:])))}
