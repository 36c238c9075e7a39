"""The processes of a training run: those that torchrun starts, or a single one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from siamcar_ros.runtime import DeviceError, select_backend
from siamcar_ros.runtime.select import gpu_names

_PATIENCE = timedelta(hours=12)
"""How long the others wait while the first one validates; NCCL's own limit is ten minutes."""


@dataclass(frozen=True)
class Processes:
    """The place of this process among all."""

    rank: int = 0  # its number
    world: int = 1  # the number of processes
    patient: dist.ProcessGroup | None = None  # to wait for each other on the CPU; None for one

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and logs."""
        return self.rank == 0

    def average(self, values: Tensor) -> Tensor:
        """The mean of a tensor over all processes."""
        if self.world == 1:
            return values
        total = values.detach().clone()
        dist.all_reduce(total)
        return total / self.world

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        if self.world == 1:
            return flag
        count = torch.tensor(int(flag))
        dist.all_reduce(count, group=self.patient)
        return bool(count > 0)

    def wait(self) -> None:
        """Wait, for hours if necessary, until all processes get here."""
        self.any(False)


@contextmanager
def joined(device: torch.device) -> Iterator[Processes]:
    """Join the processes that torchrun has started, for the length of the block.

    They communicate by NCCL on GPUs, by Gloo on CPUs. Without torchrun there is only this one.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Processes()
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        patient = dist.new_group(backend="gloo", timeout=_PATIENCE)
        yield Processes(dist.get_rank(), world, patient)
    finally:
        dist.destroy_process_group()


def choose_device(name: str) -> torch.device:
    """The device of this process; a GPU without a number is its own among those of torchrun."""
    try:
        place = select_backend(name, "torch").device
    except DeviceError as error:
        raise ValueError(f"compute.device: {error}") from None
    if place == "cuda:0" and ":" not in name:
        number, count = int(os.environ.get("LOCAL_RANK", "0")), len(gpu_names())
        if number >= count:
            raise ValueError(
                f"torchrun starts more processes than the {count} GPUs that PyTorch finds: lower "
                "--nproc-per-node"
            )
        place = f"cuda:{number}"
    device = torch.device(place)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device
