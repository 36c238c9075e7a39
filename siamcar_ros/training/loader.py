"""Batches of training pairs, made in worker processes; each depends only on its step."""

from __future__ import annotations

import logging
import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from siamcar_ros.data import DataError, Mixture
from siamcar_ros.data.pair_sources import Faults
from siamcar_ros.geometry import Image
from siamcar_ros.processes import ENDINGS

from .augment import PairMaker
from .distributed import Processes
from .photometric import apply_changes
from .recipe import Recipe

logger = logging.getLogger(__name__)

_COUNTED_FROM = 1000
_NAMED = 20


class Batch(NamedTuple):
    """B pairs."""

    templates: Tensor  # (B, 127, 127, 3) uint8 BGR
    searches: Tensor  # (B, 255, 255, 3) uint8 BGR
    boxes: Tensor  # (B, 4) float32 x1, y1, x2, y2 in search pixels
    negatives: Tensor  # (B,) bool, pairs whose target is not in the search region
    # (B, 2, fields of photometric.Changes) float64, of templates and search regions; already
    # applied if the workers apply them.
    changes: Tensor
    faults: Faults  # the broken files met since the worker's last batch


class Batches(Dataset["Batch | DataError"]):
    """One process's part of the batch of each step; or the reason why it cannot be made.

    Pair i of a step depends only on the seed, the step and i, not on the number of processes or
    workers, nor on interruptions.
    """

    def __init__(self, mixture: Mixture, recipe: Recipe, processes: Processes) -> None:
        batch = recipe.batch
        if batch % processes.world:
            raise ValueError(f"a batch of {batch} cannot be shared by {processes.world} processes")
        self._mixture, self._maker = mixture, PairMaker(mixture, mixture, recipe.augment)
        self._batch, self._seed = batch, recipe.seed
        self._own = range(processes.rank, batch, processes.world)
        self._photometric = not recipe.compute.augment_on_device

    def __getitem__(self, step: int) -> Batch | DataError:
        seeds = [(self._seed, step * self._batch + index) for index in self._own]
        try:
            pairs = [self._maker.make(np.random.default_rng(seed)) for seed in seeds]
        except DataError as error:
            return error  # if it were raised, it would arrive with a long traceback
        changes = np.stack([pair.changes for pair in pairs])
        return Batch(
            self._images([pair.template for pair in pairs], changes[:, 0]),
            self._images([pair.search for pair in pairs], changes[:, 1]),
            torch.from_numpy(np.stack([pair.box for pair in pairs])),
            torch.tensor([not pair.positive for pair in pairs]),
            torch.from_numpy(changes),
            self._mixture.take_faults(),
        )

    def _images(self, images: list[Image], changes: NDArray[np.float64]) -> Tensor:
        tensors = torch.from_numpy(np.stack(images))
        return apply_changes(tensors, changes) if self._photometric else tensors


@contextmanager
def loading(
    batches: Batches, first: int, last: int, workers: int, device: torch.device
) -> Iterator[Iterator[Batch]]:
    """The batches of the steps first to last - 1, in order; DataError if a set gives no pair.

    Worker processes make them ahead of time; with none, this process makes them on demand. For a
    GPU they are in pinned memory.
    """
    cv2.setNumThreads(1)  # ends OpenCV's thread pool, on which forked workers would hang
    loader: DataLoader[Batch | DataError] = DataLoader(
        batches,
        batch_size=None,
        sampler=range(first, last),
        num_workers=workers,
        worker_init_fn=_start_worker,
        prefetch_factor=3 if workers else None,
        pin_memory=device.type == "cuda",
    )
    iterator = iter(loader)
    try:
        yield map(_made, iterator)
    finally:
        # The iterator does this when it is collected, which may be too late after an error: the
        # workers ignore the signal that the interpreter sends them at its exit.
        shut_down = getattr(iterator, "_shutdown_workers", None)
        if shut_down is not None:
            shut_down()


def _made(batch: Batch | DataError) -> Batch:
    if isinstance(batch, DataError):
        raise batch
    return batch


def _start_worker(_: int) -> None:
    """Use one thread, and leave signals to the main process, which ends its workers."""
    for kind in ENDINGS:
        signal.signal(kind, signal.SIG_IGN)
    torch.set_num_threads(1)
    os.nice(1)


class FaultCount:
    """Counts files that could not be used, and names the first twenty in the log."""

    def __init__(self, max_share: float) -> None:
        self.max_share = max_share
        self.draws, self.faults = 0, 0  # pairs drawn, and how often a fault was met
        self.named: Counter[str] = Counter()  # how often each fault was met, by its message

    def add(self, met: Faults) -> None:
        """Count the faults of a batch."""
        self.draws += met.draws
        self.faults += len(met.messages)
        for message in met.messages:
            if message not in self.named and len(self.named) < _NAMED:
                logger.warning("skipped %s", message)
            self.named[message] += 1
        tries = self.draws + self.faults
        if tries >= _COUNTED_FROM and self.faults > self.max_share * tries:
            worst = (name for name, _ in self.named.most_common(5))
            raise DataError(
                f"{self.faults} of {tries} draws met a file that is missing or broken, more than "
                f"data.max_fault_share ({self.max_share:g}) allows: " + "; ".join(worst)
            )
