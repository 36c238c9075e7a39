"""Training on a GPU: pairs a second, the loader's share, how busy the GPU is, its memory.

The pairs are cut from copies of the film that ships, which are read as any data set is, so that the
loader has its usual work.
"""

from __future__ import annotations

import itertools
import os
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from benchmarks.gpu.inference import device_events, union
from benchmarks.gpu.run import Clock, GpuOptions, Part
from siamcar_ros.speed.backends import Film
from siamcar_ros.speed.tables import Table
from siamcar_ros.training.distributed import Processes
from siamcar_ros.training.loader import Batch, loading
from siamcar_ros.training.loop import Run
from siamcar_ros.training.recipe import Recipe, recipe_from_dict

# ResNet-50's is that of the authors' code.
_BATCH = {"resnet50": 80, "mobile": 128, "compact": 256}
_PROFILED_STEPS = 6
_KEPT_BATCHES = 4
# What the workers do to a pair, as config/train/compact.yaml has it.
_AUGMENT = {"rotation": 15, "low_resolution": 0.45, "foreign_border": 0.5, "distractor": 0.35}


def measure_training(part: Part, options: GpuOptions, clock: Clock) -> None:
    """Steps of each network, bf16 on a GPU."""
    table = part.table(
        Table(
            "training, from clips on disk",
            {
                "name": "",
                "batch": "batch",
                "workers": "workers",
                "pairs": "pairs/s",
                "wait": "loader wait",
                "fed": "pairs/s from memory",
                "busy": "GPU busy",
                "fed_busy": "busy from memory",
                "memory": "peak GiB",
                "loss": "loss, first to last",
            },
            notes=[
                "busy: the share of the time in which a kernel runs, by the profiler over "
                f"{_PROFILED_STEPS} steps; from memory: the same {_KEPT_BATCHES} batches over and "
                "over, without the loader"
            ],
        )
    )
    with tempfile.TemporaryDirectory(prefix="siamcar_clips_") as folder:
        root = Path(folder)
        write_clips(root / "train", 4 if options.quick else 24, 4 if options.quick else 8)
        networks = options.networks[-1:] if options.quick else options.networks
        for index, name in enumerate(networks):
            if not clock.has(0.9):
                part.notes.append(f"{name}: no time left")
                continue
            share = (clock.seconds - clock.spent) / (len(networks) - index)
            row = part.attempt(name, partial(_train, name, options, root, 0.9 * share))
            table.rows += [] if row is None else [row]
            part.write()


def write_clips(root: Path, clips: int, frames: int) -> None:
    """Copies of the film that ships, a folder of images and ``groundtruth.txt`` each.

    Args:
        root: where they go; it is made.
        clips: how many.
        frames: of each.
    """
    film = Film(frames)
    coded = [cv2.imencode(".jpg", image)[1].tobytes() for image in film.images]
    for clip in range(clips):
        folder = root / f"clip{clip:03d}"
        folder.mkdir(parents=True)
        for index, data in enumerate(coded):
            (folder / f"{index + 1:08d}.jpg").write_bytes(data)
        np.savetxt(folder / "groundtruth.txt", film.boxes, "%.2f", ",")


def _recipe(name: str, options: GpuOptions, root: Path) -> Recipe:
    on_gpu = options.device != "cpu"
    workers = max(1, len(os.sched_getaffinity(0)) - 1)
    return recipe_from_dict(
        {
            "network": name,
            "output": str(root / "runs" / name),
            "epochs": 1000,
            "batch": 2 if options.quick else _BATCH.get(name, 64),
            "data": {"sets": {"clips": {"kind": "sequences", "root": str(root / "train")}}},
            "augment": _AUGMENT,
            "optimizer": {"kind": "adamw", "lr": 1e-4, "clip": 5.0},
            "compute": {
                "device": options.device,
                "precision": "bf16" if on_gpu else "fp32",
                "augment_on_device": on_gpu,
                "workers": min(2, workers) if options.quick else workers,
            },
            "log": {"every": 1 << 30, "images_every": 1 << 30, "tensorboard": False},
        }
    )


def _train(name: str, options: GpuOptions, root: Path, seconds: float) -> dict[str, Any]:
    """Train for about so long: half of it with the loader."""
    recipe, device = _recipe(name, options, root), torch.device(options.device)
    processes = Processes()
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.cuda.reset_peak_memory_stats(device)
    begin = time.perf_counter()
    run = Run(recipe, device, processes)
    row: dict[str, Any] = {"name": name, "batch": recipe.batch, "workers": recipe.compute.workers}
    few = 1 if options.quick else 5
    with loading(run.batches, 0, recipe.steps, recipe.compute.workers, device) as pairs:
        kept = list(itertools.islice(pairs, _KEPT_BATCHES))
        for _ in range(few):  # cuDNN's choice, memory, the workers' first batches, the CUDA graph
            run.advance(pairs)
        losses = [run.meter.take(recipe.batch, processes)["total"]]
        _steps(run, pairs, device, few, begin + 0.5 * seconds)
        seen = run.meter.take(recipe.batch, processes)
        losses.append(seen["total"])
        row |= {"pairs": seen["pairs/s"], "wait": f"{100 * seen['loader wait']:.0f} %"}
        row["busy"] = _busy(run, pairs, device)
    memory = itertools.cycle(kept)
    run.meter.take(recipe.batch, processes)
    _steps(run, memory, device, few, begin + 0.85 * seconds)
    row["fed"] = run.meter.take(recipe.batch, processes)["pairs/s"]
    row["fed_busy"] = _busy(run, memory, device)
    if device.type == "cuda":
        row["memory"] = torch.cuda.max_memory_allocated(device) / 2**30
    run.monitor.close()
    row["loss"] = f"{losses[0]:.2f} to {losses[1]:.2f}"
    return row


def _steps(run: Run, pairs: Iterator[Batch], device: torch.device, least: int, end: float) -> None:
    done = 0
    while done < least or time.perf_counter() < end:
        run.advance(pairs)
        done += 1
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _busy(run: Run, pairs: Iterator[Batch], device: torch.device) -> str | None:
    """The share of the time of some steps in which the GPU runs a kernel."""
    if device.type == "cpu":
        run.advance(pairs)
        return None
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        run.advance(pairs)
        torch.cuda.synchronize(device)
        begin = time.perf_counter()
        for _ in range(_PROFILED_STEPS):
            run.advance(pairs)
        torch.cuda.synchronize(device)
        seconds = time.perf_counter() - begin
    events = sorted(device_events(profiler), key=lambda event: event[1])
    if not events:
        return None
    reached = events[-1][2] - 1e6 * seconds
    counted = [(name, max(start, reached), end) for name, start, end in events if end > reached]
    return f"{100 * union(counted) / (1e6 * seconds):.0f} %"
