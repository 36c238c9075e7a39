"""Running a tracker over many sequences: resumable, in several processes, on several machines."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
from collections.abc import Callable, Generator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeAlias

import cv2
from tqdm import tqdm

from siamcar_ros.data.sequences import Sequence
from siamcar_ros.evaluation.one_pass import Run, Tracker, run_sequence
from siamcar_ros.evaluation.results import TrackerResults
from siamcar_ros.evaluation.trackers import TrackerSpec

#: A finished sequence with its run, or with the reason why it has none.
Outcome: TypeAlias = tuple[Sequence, Run | str]


def run_all(
    spec: TrackerSpec,
    sequences: list[Sequence],
    results: TrackerResults,
    *,
    workers: int = 1,
    again: bool = False,
    ray_address: str | None = None,
    progress: bool = True,
) -> list[str]:
    """Run a tracker over sequences and write what it found.

    A sequence that has its result is not run again. One that fails is named and the others go on;
    after an interruption the same call goes on where this one ended.

    Args:
        spec: the tracker.
        sequences: what to run on.
        results: where to write.
        workers: processes on this machine, GPUs given to them in turn; with Ray, how many run at
            a time, 0 for as many as the cluster has processors or GPUs.
        again: run finished sequences, too.
        ray_address: of a Ray cluster, "auto" or "local"; no Ray when None.
        progress: show a progress bar.

    Returns:
        A line for each sequence that has no result, with the reason.

    Raises:
        ValueError: the tracker cannot be built, or a worker process died.
        OSError: the results cannot be written, or a file of the tracker's cannot be read.
    """
    todo = [s for s in sequences if again or not results.is_done(s)]
    done = len(sequences) - len(todo)
    problems: list[str] = []
    if not todo:
        return problems
    todo.sort(key=len, reverse=True)
    with tqdm(
        total=sum(map(len, todo)),
        desc=f"{spec.title}" + (f" ({done} done before)" if done else ""),
        unit="frame",
        disable=not progress,
        mininterval=0.1 if sys.stderr.isatty() else 10,
        dynamic_ncols=True,
    ) as bar:
        if ray_address is not None:
            outcomes = _with_ray(spec, todo, workers, ray_address, bar)
        elif workers > 1 and len(todo) > 1:
            outcomes = _in_processes(spec, todo, min(workers, len(todo)), bar)
        else:
            outcomes = _in_turn(spec, todo, bar)
        with contextlib.closing(outcomes):
            for sequence, outcome in outcomes:
                if isinstance(outcome, str):
                    problems.append(f"{sequence.name}: {outcome}")
                else:
                    results.write(sequence.name, outcome)
    return problems


def _in_turn(spec: TrackerSpec, todo: list[Sequence], bar: Any) -> Generator[Outcome, None, None]:
    tracker = spec.build()
    for sequence in todo:
        bar.set_postfix_str(sequence.name)
        yield sequence, _attempt(tracker, sequence, lambda _: bar.update())


def _in_processes(
    spec: TrackerSpec, todo: list[Sequence], workers: int, bar: Any
) -> Generator[Outcome, None, None]:
    # Spawned, not forked: CUDA and OpenCV's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    numbers = context.SimpleQueue()
    # What cannot be built is refused here, with its reason, rather than in each worker.
    devices = worker_devices(spec, getattr(spec.build(), "network", None))
    for i in range(workers):
        numbers.put(devices[i % len(devices)])
    pool = ProcessPoolExecutor(workers, context, _start_worker, (spec, numbers, workers))
    try:
        futures = {pool.submit(_work, sequence): sequence for sequence in todo}
        for future in as_completed(futures):
            sequence = futures[future]
            try:
                outcome = future.result()
            except BrokenProcessPool as error:
                raise ValueError(
                    "a worker process died (out of memory?): run the same command again to go on, "
                    "with fewer --workers"
                ) from error
            bar.update(len(sequence))
            bar.set_postfix_str(sequence.name)
            yield sequence, outcome
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_worker_tracker: Tracker


def _start_worker(spec: TrackerSpec, numbers: Any, workers: int) -> None:
    global _worker_tracker
    _worker_tracker = spec.build(numbers.get(), share_processors(workers))


def _work(sequence: Sequence) -> Run | str:
    return _attempt(_worker_tracker, sequence)


def _attempt(
    tracker: Tracker, sequence: Sequence, on_frame: Callable[[int], None] | None = None
) -> Run | str:
    """Run one sequence; whatever the tracker raises is the reason why it has no result."""
    try:
        return run_sequence(tracker, sequence, on_frame=on_frame)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def worker_devices(spec: TrackerSpec, network: Any) -> list[str | None]:
    """The devices to give to workers in turn: all GPUs, or None for the tracker's own choice.

    Args:
        spec: the tracker.
        network: the one that it has in this process, None for a tracker without.
    """
    on = str(getattr(network, "device", "cpu"))
    if spec.device not in ("auto", "cuda") or not on.startswith("cuda"):
        return [None]
    import torch

    return [f"cuda:{i}" for i in range(torch.cuda.device_count())]


def share_processors(workers: int) -> int | None:
    """This process's share of the machine's threads, so that workers do not crowd it.

    OpenCV is held to it at once; None, for a worker that is alone, leaves the choice open.
    """
    if workers == 1:
        return None
    threads = max(1, len(os.sched_getaffinity(0)) // workers)
    cv2.setNumThreads(threads)
    return threads


def _with_ray(
    spec: TrackerSpec, todo: list[Sequence], workers: int, address: str, bar: Any
) -> Generator[Outcome, None, None]:
    """Run on a Ray cluster. The sequences' files must be at the same place on each machine."""
    import ray

    if address == "local":
        # Workers of a cluster have an installation of their own; those started here have ours.
        paths = {"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}}
        ray.init(log_to_driver=False, runtime_env=paths)
    else:
        ray.init(address=address, log_to_driver=False)
    try:
        gpus = ray.cluster_resources().get("GPU", 0) if _may_use_gpu(spec) else 0
        slots = int(gpus or ray.cluster_resources().get("CPU", 1))
        actor = ray.remote(num_cpus=1, num_gpus=1 if gpus else 0)(_RayWorker)
        count = max(1, min(workers or slots, slots, len(todo)))
        # Ray shows each worker one GPU, which "auto" takes if the backend can.
        device = "cuda" if spec.device.startswith("cuda") else None
        pool = [actor.remote(spec, device) for _ in range(count)]
        waiting, running = list(reversed(todo)), {}
        for worker in pool:
            sequence = waiting.pop()
            running[worker.run.remote(sequence)] = (worker, sequence)
        while running:
            (finished, *_), _ = ray.wait(list(running), num_returns=1)
            worker, sequence = running.pop(finished)
            outcome = ray.get(finished)
            if waiting:
                following = waiting.pop()
                running[worker.run.remote(following)] = (worker, following)
            bar.update(len(sequence))
            bar.set_postfix_str(sequence.name)
            yield sequence, outcome
    except ray.exceptions.RayError as error:
        raise ValueError(f"Ray: {error}; run the same command again to go on") from error
    finally:
        ray.shutdown()


def _may_use_gpu(spec: TrackerSpec) -> bool:
    return (
        spec.kind == "siamcar"
        and spec.device != "cpu"
        and spec.backend != "openvino"
        and spec.precision != "int8"
    )


class _RayWorker:
    """A tracker on some machine of the cluster."""

    def __init__(self, spec: TrackerSpec, device: str | None) -> None:
        self._tracker = spec.build(device)

    def run(self, sequence: Sequence) -> Run | str:
        return _attempt(self._tracker, sequence)
