"""The training loop.

    siamcar train config/train/compact.yaml
    siamcar train config/train/compact.yaml epochs=1 batch=16 output=runs/short
    torchrun --nproc-per-node 4 -m siamcar_ros.training config/train/siamcar_r50.yaml variant=code

The same command goes on where a run was interrupted: it finds ``last.safetensors`` in the output
folder. On one kind of machine the weights then are those of an uninterrupted run, on a CPU bit for
bit.
"""

from __future__ import annotations

import copy
import logging
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor, nn

from .augment import PairMaker
from .build import autocast, build_network, build_optimizer, layout, update_average, wrap
from .checkpoint import encode, save_checkpoint, write_atomically
from .datasets import build_mixture
from .distributed import Processes, choose_device, join, leave
from .loader import Batch, Batches, FaultCount, loading
from .losses import siamcar_loss
from .monitor import LOSSES, Monitor
from .photometric import DeviceAugment, without_photometric
from .recipe import Recipe, to_yaml
from .resume import resume, run_metadata
from .schedule import freeze, rate_factor, set_modes
from .validation import validate

logger = logging.getLogger(__name__)

LAST, FINAL = "last.safetensors", "model.safetensors"


def train(recipe: Recipe) -> Path:
    """Train a network, or go on training it.

    Args:
        recipe: everything that is to be known.

    Returns:
        the file of the trained weights (the averaged ones where there is an average).

    Raises:
        ValueError, OSError: the recipe, the data or an earlier checkpoint cannot be used.
        KeyboardInterrupt: interrupted by SIGINT or SIGTERM, after the last checkpoint was written.
    """
    device = choose_device(recipe.compute.device)
    processes = join(device)
    try:
        with _interruption() as interrupted:
            return _train(recipe, device, processes, interrupted)
    finally:
        leave()


def _train(
    recipe: Recipe, device: torch.device, processes: Processes, interrupted: list[int]
) -> Path:
    output = Path(recipe.output)
    output.mkdir(parents=True, exist_ok=True)
    if recipe.compute.threads is not None:
        torch.set_num_threads(recipe.compute.threads)
    mixture = build_mixture(recipe.data.sets, recipe.data.max_fault_share)
    metadata = run_metadata(recipe, mixture.fingerprint())

    model = build_network(recipe, device)
    average = copy.deepcopy(model).eval() if recipe.average else None
    optimizer = build_optimizer(model, recipe)
    scaler = torch.amp.GradScaler(device.type, enabled=recipe.compute.precision == "fp16")
    step = resume(output / LAST, recipe, metadata, model, average, optimizer, scaler)

    augment = recipe.augment
    change: DeviceAugment | None = None
    if recipe.compute.augment_on_device:
        change = DeviceAugment(augment, recipe.seed * 1009 + processes.rank)
        augment = without_photometric(augment)
    maker = PairMaker(mixture, mixture, augment)
    batches = Batches(maker, mixture, recipe.batch, recipe.seed, processes)
    faults = FaultCount(recipe.data.max_fault_share)
    monitor = Monitor(output, recipe.steps, step, recipe.log, quiet=not processes.first)
    if processes.first:
        (output / "recipe.yaml").write_text(to_yaml(recipe))

    weights = (recipe.loss.cls, recipe.loss.reg, recipe.loss.cen)
    freeze(model.backbone, recipe.backbone, step // recipe.steps_per_epoch)
    network = wrap(model, recipe, device, processes)
    saved, between_steps = step, True
    meter = _Meter()

    def save() -> None:
        if processes.first:
            texts = {**metadata, "step": str(step), "scaler": encode(scaler.state_dict())}
            save_checkpoint(
                output / LAST, model=model, average=average, optimizer=optimizer, metadata=texts
            )

    with loading(batches, step, recipe.steps, recipe.compute.workers, device) as pairs:
        try:
            while step < recipe.steps:
                epoch = step // recipe.steps_per_epoch
                if freeze(model.backbone, recipe.backbone, epoch):
                    network = wrap(model, recipe, device, processes)
                set_modes(model, model.backbone, recipe, epoch)
                factor = rate_factor(recipe, step)
                for group in optimizer.param_groups:
                    group["lr"] = factor * group["full_lr"]

                with meter.waiting():
                    batch = next(pairs)
                faults.add(batch.faults)
                templates, searches = _upload(batch, device, recipe)
                boxes, negatives = batch.boxes.to(device), batch.negatives.to(device)
                if change is not None:
                    templates, searches = change(templates, searches, boxes, step)

                with autocast(recipe, device):
                    cls, reg, cen = network(templates, searches)
                losses = siamcar_loss(
                    cls,
                    reg,
                    cen,
                    boxes,
                    model.locations,
                    positives=recipe.loss.positives,
                    negative=negatives,
                    centerness_weighted=recipe.loss.centerness_weighted,
                    weights=weights,
                    average=processes.average if processes.world > 1 else None,
                )
                optimizer.zero_grad(set_to_none=True)
                scaler.scale(losses["total"]).backward()
                scaler.unscale_(optimizer)
                norm = nn.utils.clip_grad_norm_(
                    model.parameters(), recipe.optimizer.clip or math.inf
                )
                between_steps = False
                if scaler.is_enabled():
                    scaler.step(optimizer)
                    scaler.update()
                elif torch.isfinite(norm):
                    optimizer.step()
                else:
                    logger.warning("step %d left out: its gradient is not finite", step)
                step += 1
                if average is not None:
                    update_average(average, model, min(recipe.average, (1 + step) / (20 + step)))
                between_steps = True
                meter.add(losses, norm)
                monitor.advance()

                if step % recipe.log.every == 0 or step == recipe.steps:
                    values = meter.take(recipe.batch, processes)
                    monitor.log(step, {**values, "rate": factor * recipe.optimizer.lr})
                if step % recipe.log.images_every == 0 or step == recipe.steps:
                    predicted = best_boxes(cls, reg, model.locations)
                    true = torch.where(negatives[:, None], math.nan, boxes)
                    monitor.show(step, templates, searches, true, predicted)
                if step % recipe.log.checkpoint_every == 0:
                    save()
                    saved = step
                if _due(recipe, step, recipe.log.keep_every_epochs) and processes.first:
                    kept = output / f"model_{step:07d}.safetensors"
                    write_atomically(
                        kept, (average or model).state_dict(), {**metadata, "step": str(step)}
                    )
                if recipe.validation.sequences and _due(
                    recipe, step, recipe.validation.every_epochs
                ):
                    if processes.first:
                        scores = validate(average or model, Path(recipe.validation.sequences))
                        monitor.log(step, {f"overlap/{k}": v for k, v in scores.items()})
                    processes.wait()
                if _stop(interrupted, step, recipe, processes, device):
                    raise KeyboardInterrupt
        finally:
            if step > saved and between_steps:
                save()
            monitor.close()
    final = output / FINAL
    if processes.first:
        write_atomically(final, (average or model).state_dict(), {**metadata, "step": str(step)})
    processes.wait()
    return final


def best_boxes(cls: Tensor, reg: Tensor, locations: Tensor) -> Tensor:
    """(B, 4) boxes x1, y1, x2, y2 that the cells of the highest foreground score predict."""
    best = (cls[:, 1] - cls[:, 0]).flatten(1).argmax(1)
    rows = torch.arange(len(best), device=best.device)
    left, top, right, bottom = reg.flatten(2)[rows, :, best].float().unbind(1)
    x, y = locations[best].unbind(1)
    return torch.stack((x - left, y - top, x + right, y + bottom), 1)


class _Meter:
    """Mean losses and speed since the last look."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._steps = 0
        self._waited = 0.0
        self._since = time.perf_counter()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time spent in here counts as waiting for the loader."""
        begin = time.perf_counter()
        yield
        self._waited += time.perf_counter() - begin

    def add(self, losses: dict[str, Tensor], norm: Tensor) -> None:
        for name, value in (*losses.items(), ("gradient", norm)):
            self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value.detach()
        self._steps += 1

    def take(self, batch: int, processes: Processes) -> dict[str, float]:
        names = (*LOSSES, "gradient")
        means = processes.average(torch.stack([self._sums[n] for n in names]) / self._steps)
        seconds = time.perf_counter() - self._since
        values = dict(zip(names, means.tolist(), strict=True))
        values |= {"pairs/s": self._steps * batch / seconds, "loader wait": self._waited / seconds}
        self._reset()
        return values


def _upload(batch: Batch, device: torch.device, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """(B, h, w, 3) uint8 to (B, 3, h, w) float32 on the device."""
    templates, searches = (
        images.to(device, non_blocking=True)
        .permute(0, 3, 1, 2)
        .to(dtype=torch.float32, memory_format=layout(recipe))
        for images in (batch.templates, batch.searches)
    )
    return templates, searches


def _due(recipe: Recipe, step: int, epochs: float) -> bool:
    return step % max(1, round(epochs * recipe.steps_per_epoch)) == 0 or step == recipe.steps


@contextmanager
def _interruption() -> Iterator[list[int]]:
    """SIGINT and SIGTERM are noted in the list, for the loop to end after its step."""
    noted: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        if noted:
            raise KeyboardInterrupt
        noted.append(number)

    kinds = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(kind, note) for kind in kinds]
    try:
        yield noted
    finally:
        for kind, handler in zip(kinds, before, strict=True):
            signal.signal(kind, handler)


def _stop(
    interrupted: list[int], step: int, recipe: Recipe, processes: Processes, device: torch.device
) -> bool:
    """Whether to end here; several processes agree on it when they log."""
    if processes.world == 1:
        return bool(interrupted)
    return step % recipe.log.every == 0 and processes.any(bool(interrupted), device)


def describe(recipe: Recipe) -> str:
    """A line on what a recipe asks for."""
    sets = ", ".join(name for name, o in recipe.data.sets.items() if o.get("weight", 1))
    return (
        f"{recipe.network}: {recipe.steps} steps of {recipe.batch} pairs from {sets}; "
        f"{recipe.optimizer.kind}, rate {recipe.optimizer.lr:g}"
    )
