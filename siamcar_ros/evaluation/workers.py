"""Workers that each hold a tracker: this process, several processes, or a Ray cluster's."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from queue import SimpleQueue
from typing import Any, TypeAlias, TypeVar

import cv2

from siamcar_ros.evaluation.trackers import TrackerSpec
from siamcar_ros.runtime.select import gpu_names

#: Makes what a worker holds, from a device (the tracker's own when None) and a number of threads.
Setup: TypeAlias = Callable[[str | None, int | None], Any]
Item = TypeVar("Item")


class Workers:
    """Workers that are ready.

    `facts` describe their tracker, for `run.json`; `here` is true if this process is the only one.
    """

    def __init__(
        self, apply: Callable[..., Any], count: int, facts: dict[str, Any], here: bool = False
    ) -> None:
        self._apply, self.count, self.facts, self.here = apply, count, facts, here

    def call(self, work: Callable[[Any, Item], Any], item: Item) -> Any:
        """Apply `work` to what an idle worker holds and an item; called from any thread.

        Raises:
            ValueError: the worker died. What `work` raises is passed on.
        """
        with _explain_deaths():
            return self._apply(work, item)

    def map(
        self, work: Callable[[Any, Item], Any], items: Iterable[Item]
    ) -> Generator[tuple[Item, Any], None, None]:
        """Yield each item with its result, in any order; raises as `call`."""
        if self.here:
            for item in items:
                yield item, self.call(work, item)
            return
        threads = ThreadPoolExecutor(self.count)
        try:
            futures = {threads.submit(self.call, work, item): item for item in items}
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            threads.shutdown(cancel_futures=True)


@contextmanager
def open_workers(
    spec: TrackerSpec,
    setup: Setup,
    *,
    items: int,
    count: int | None = None,
    ray_address: str | None = None,
) -> Iterator[Workers]:
    """Start workers of a tracker, and end them with the context.

    Each worker holds what `setup` makes, which must be picklable. There are `count` workers, but no
    more than `items` to work on. The default is one or, with Ray, one for each GPU of the cluster,
    or for each processor if it has no GPU. `ray_address` is a Ray cluster's, "auto" or "local".
    """
    with ExitStack() as stack:
        if ray_address is not None:
            yield _ray_workers(spec, setup, min(count or items, items), ray_address, stack)
            return
        count = min(count or 1, items)
        if count == 1:
            held = setup(None, None)
            yield Workers(lambda work, item: work(held, item), 1, spec.facts(), here=True)
            return
        # Spawned, not forked: CUDA and OpenCV's threads do not survive a fork.
        context = multiprocessing.get_context("spawn")
        # A tracker that cannot be built is refused here, rather than in each worker.
        devices = worker_devices(spec, getattr(spec.build(), "network", None))
        turns = context.SimpleQueue()
        for i in range(count):
            turns.put(devices[i % len(devices)])
        initial = setup, turns, max(1, len(os.sched_getaffinity(0)) // count)
        processes = ProcessPoolExecutor(count, context, _start_process, initial)
        stack.callback(processes.shutdown, cancel_futures=True)
        yield Workers(
            lambda work, item: processes.submit(_apply_to_held, work, item).result(),
            count,
            spec.facts(),
        )


def worker_devices(spec: TrackerSpec, network: Any) -> list[str | None]:
    """The devices to give to workers in turn: all GPUs, or None for the tracker's own choice.

    The GPUs are numbered as PyTorch does; without it, the choice is the tracker's. `network` is its
    network in this process.
    """
    on = str(getattr(network, "device", "cpu"))
    if spec.device not in ("auto", "cuda") or not on.startswith("cuda"):
        return [None]
    return [f"cuda:{i}" for i in range(len(gpu_names()))] or [None]


_held: Any = None  # in a worker process


def _start_process(setup: Setup, devices: Any, threads: int) -> None:
    """Set up what the process holds, on the next device of a queue."""
    global _held
    cv2.setNumThreads(threads)
    _held = setup(devices.get(), threads)


def _apply_to_held(work: Callable[..., Any], item: Any) -> Any:
    return work(_held, item)


class _RayActor:
    def __init__(self, spec: TrackerSpec, setup: Setup, device: str | None) -> None:
        self.facts, self._held = spec.facts(), setup(device, None)

    def run(self, work: Callable[..., Any] | None, item: Any) -> Any:
        return self.facts if work is None else work(self._held, item)


def _ray_workers(
    spec: TrackerSpec, setup: Setup, count: int, address: str, stack: ExitStack
) -> Workers:
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
    stack.callback(ray.shutdown)
    may_use_gpu = (
        spec.kind == "siamcar"
        and spec.device != "cpu"
        and spec.backend not in ("openvino", "opencv")
        and spec.precision != "int8"
    )
    gpus = ray.cluster_resources().get("GPU", 0) if may_use_gpu else 0
    slots = int(gpus or ray.cluster_resources().get("CPU", 1))
    actor: Any = ray.remote(num_cpus=1, num_gpus=1 if gpus else 0)(_RayActor)
    # Ray shows each worker one GPU, which "auto" takes if the backend can.
    device = "cuda" if spec.device.startswith("cuda") else None
    actors = [actor.remote(spec, setup, device) for _ in range(min(count, slots))]

    with _explain_deaths():
        facts = ray.get([one.run.remote(None, None) for one in actors])
    idle: SimpleQueue[Any] = SimpleQueue()
    for one in actors:
        idle.put(one)

    def apply(work: Callable[..., Any], item: Any) -> Any:
        one = idle.get()
        try:
            return one.run.remote(work, item).future().result()
        finally:
            idle.put(one)

    return Workers(apply, len(actors), agreed_facts(facts))


def agreed_facts(facts: list[dict[str, Any]]) -> dict[str, Any]:
    """The facts of a tracker in which all workers agree."""
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


@contextmanager
def _explain_deaths() -> Iterator[None]:
    """Report a dead worker in one sentence."""
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
