"""Workers that each hold a tracker: this process, several processes, or a Ray cluster's."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeAlias, TypeVar

import cv2

from siamcar_ros.evaluation.trackers import TrackerSpec
from siamcar_ros.runtime.select import gpu_names

#: Makes what a worker holds, from a device (the tracker's own when None) and a number of threads.
Setup: TypeAlias = Callable[[str | None, int | None], Any]
Item = TypeVar("Item")


@dataclass(frozen=True)
class Workers:
    """Workers that are ready.

    Attributes:
        count: how many there are.
        facts: what the tracker is, with the device, backend and precision that it has in them.
        submit: called with a function and an item, at most `count` times before one has finished.
        here: the one worker is this process.
    """

    count: int
    facts: dict[str, Any]
    submit: Callable[..., Future[Any]]
    here: bool = False

    def map(
        self, work: Callable[[Any, Item], Any], items: Iterable[Item]
    ) -> Generator[tuple[Item, Any], None, None]:
        """Apply a function to items, in any order; an item is taken when a worker is free for it.

        Args:
            work: called with what the worker holds and the item. What it raises ends the run.
            items: what to work on.

        Yields:
            each item and its result.

        Raises:
            ValueError: a worker died.
        """
        running: dict[Future[Any], Item] = {}
        waiting = iter(items)
        while True:
            for item in waiting:
                with _worker_deaths():
                    running[self.submit(work, item)] = item
                if len(running) == self.count:
                    break
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                with _worker_deaths():
                    result = future.result()
                yield running.pop(future), result


@contextmanager
def open_workers(
    spec: TrackerSpec,
    setup: Setup,
    *,
    items: int,
    count: int | None = None,
    ray_address: str | None = None,
) -> Iterator[Workers]:
    """Start workers, and end them with the context.

    Args:
        spec: the tracker.
        setup: makes what a worker holds; it must be picklable.
        items: how many items there are to work on; no more workers are started.
        count: how many; by default 1, or with Ray as many as the cluster has GPUs or processors.
        ray_address: of a Ray cluster, "auto" or "local"; no Ray when None.

    Raises:
        ValueError: the tracker cannot be built, a worker died, or the machines of a cluster would
            run it in different ways.
        OSError: a file of the tracker's cannot be read.
    """
    if ray_address is not None:
        with _ray_workers(spec, setup, min(count or items, items), ray_address) as workers:
            yield workers
        return
    count = min(count or 1, items)
    if count == 1:
        held = setup(None, None)
        yield Workers(1, spec.facts(), partial(_at_once, held), here=True)
    else:
        # Spawned, not forked: CUDA and OpenCV's threads do not survive a fork.
        context = multiprocessing.get_context("spawn")
        # A tracker that cannot be built is refused here, rather than in each worker.
        devices = worker_devices(spec, getattr(spec.build(), "network", None))
        queue = context.SimpleQueue()
        for i in range(count):
            queue.put(devices[i % len(devices)])
        pool = ProcessPoolExecutor(count, context, _start_process, (setup, queue, count))
        try:
            yield Workers(count, spec.facts(), partial(_submit, pool))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def worker_devices(spec: TrackerSpec, network: Any) -> list[str | None]:
    """The devices to give to workers in turn: all GPUs, or None for the tracker's own choice.

    Without PyTorch, whose numbering of the GPUs this is, the choice is the tracker's own, too.

    Args:
        spec: the tracker.
        network: the one that it has in this process, None for a tracker without.
    """
    on = str(getattr(network, "device", "cpu"))
    if spec.device not in ("auto", "cuda") or not on.startswith("cuda"):
        return [None]
    return [f"cuda:{i}" for i in range(len(gpu_names()))] or [None]


def _at_once(held: Any, work: Callable[..., Any], item: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(work(held, item))
    return future


def _submit(pool: ProcessPoolExecutor, work: Callable[..., Any], item: Any) -> Future[Any]:
    return pool.submit(_in_process, work, item)


_held: Any = None  # in a process of the pool


def _start_process(setup: Setup, devices: Any, count: int) -> None:
    """Set up a process with its share of the machine's threads."""
    global _held
    threads = max(1, len(os.sched_getaffinity(0)) // count)
    cv2.setNumThreads(threads)
    _held = setup(devices.get(), threads)


def _in_process(work: Callable[..., Any], item: Any) -> Any:
    return work(_held, item)


class _RayActor:
    """A worker on some machine of the cluster."""

    def __init__(self, spec: TrackerSpec, setup: Setup, device: str | None) -> None:
        self._facts = spec.facts()
        self._held = setup(device, None)

    def facts(self) -> dict[str, Any]:
        return self._facts

    def run(self, work: Callable[..., Any], item: Any) -> Any:
        return work(self._held, item)


@contextmanager
def _ray_workers(spec: TrackerSpec, setup: Setup, count: int, address: str) -> Iterator[Workers]:
    """Actors of a Ray cluster. The files of data and tracker must be at the same place on each
    machine.
    """
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
        actor: Any = ray.remote(num_cpus=1, num_gpus=1 if gpus else 0)(_RayActor)
        # Ray shows each worker one GPU, which "auto" takes if the backend can.
        device = "cuda" if spec.device.startswith("cuda") else None
        actors = [actor.remote(spec, setup, device) for _ in range(min(count, slots))]
        with _worker_deaths():
            facts: list[dict[str, Any]] = ray.get([one.facts.remote() for one in actors])
        agreed = agreed_facts(facts)

        idle: SimpleQueue[Any] = SimpleQueue()
        for one in actors:
            idle.put(one)

        def submit(work: Callable[..., Any], item: Any) -> Future[Any]:
            worker = idle.get()  # may wait for a moment: a future is done before its callback ran
            future: Future[Any] = worker.run.remote(work, item).future()
            future.add_done_callback(lambda _: idle.put(worker))
            return future

        yield Workers(len(actors), agreed, submit)
    finally:
        ray.shutdown()


def agreed_facts(facts: list[dict[str, Any]]) -> dict[str, Any]:
    """The facts of a tracker in which all workers agree.

    Raises:
        ValueError: they differ; their results would be of different arithmetic.
    """
    differing = {
        key: sorted({str(other.get(key)) for other in facts})
        for key in sorted({key for other in facts for key in other})
        if any(other.get(key) != facts[0].get(key) for other in facts)
    }
    if not differing:
        return facts[0]
    told = "; ".join(f"{key}: {', '.join(values)}" for key, values in differing.items())
    raise ValueError(
        f"the machines of the cluster would run the tracker in different ways ({told}): give "
        "--device, --backend and --precision, and the same files on each"
    )


def _may_use_gpu(spec: TrackerSpec) -> bool:
    return (
        spec.kind == "siamcar"
        and spec.device != "cpu"
        and spec.backend not in ("openvino", "opencv")
        and spec.precision != "int8"
    )


@contextmanager
def _worker_deaths() -> Iterator[None]:
    """Turn the death of a worker into one sentence."""
    try:
        yield
    except BrokenProcessPool as error:
        raise ValueError(
            "a worker process died (out of memory?): run the same command again to continue, with "
            "fewer --workers"
        ) from error
    except Exception as error:
        if not type(error).__module__.startswith("ray."):
            raise
        reason = str(error).strip().splitlines()[-1]
        raise ValueError(f"Ray: {reason}; run the same command again to continue") from error
