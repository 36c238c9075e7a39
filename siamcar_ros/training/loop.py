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
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .augment import PairMaker
from .build import (
    BatchNormStatistics,
    autocast,
    build_network,
    build_optimizer,
    build_teacher,
    layout,
    update_average,
    wrap,
)
from .checkpoint import encode, save_checkpoint, write_atomically
from .datasets import DataError, build_mixture
from .distributed import Processes, choose_device, join, leave
from .loader import Batch, Batches, FaultCount, loading
from .losses import siamcar_loss, teacher_loss
from .monitor import LOSSES, Monitor
from .photometric import DeviceAugment, without_photometric
from .recipe import Recipe, to_yaml
from .resume import resume, run_metadata
from .schedule import freeze, rate_factor, set_modes
from .validation import find_sequences, validate

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
            run = Run(recipe, device, processes)
            workers = recipe.compute.workers
            with loading(run.batches, run.step, recipe.steps, workers, device) as pairs:
                try:
                    while run.step < recipe.steps:
                        run.advance(pairs)
                        run.report()
                        if processes.any(bool(interrupted)):
                            raise KeyboardInterrupt
                finally:
                    run.close()
            return run.finish()
    finally:
        leave()


class _Maps(NamedTuple):
    """What a step saw and predicted, for the sample pictures."""

    templates: Tensor
    searches: Tensor
    boxes: Tensor
    cls: Tensor
    reg: Tensor


class Run:
    """The state of a run, and what is done to it in each step."""

    def __init__(self, recipe: Recipe, device: torch.device, processes: Processes) -> None:
        self.recipe, self.device, self.processes = recipe, device, processes
        self.output = Path(recipe.output)
        self.output.mkdir(parents=True, exist_ok=True)
        if recipe.compute.threads is not None:
            torch.set_num_threads(recipe.compute.threads)
        if recipe.validation.sequences is not None:
            find_sequences(Path(recipe.validation.sequences))  # refuses now what it would then
        mixture = build_mixture(recipe.data.sets, recipe.data.max_fault_share)

        self.model = build_network(recipe, device)
        self.teacher = build_teacher(recipe, self.model, device)
        self.metadata = run_metadata(recipe, mixture.fingerprint())
        self.average = copy.deepcopy(self.model).eval() if recipe.average else None
        self.optimizer = build_optimizer(self.model, recipe)
        self.scaler = torch.amp.GradScaler(device.type, enabled=recipe.compute.precision == "fp16")
        self.step = resume(
            self.output / LAST,
            recipe,
            self.metadata,
            self.model,
            self.average,
            self.optimizer,
            self.scaler,
        )
        self.statistics = BatchNormStatistics(self.model)
        freeze(self.model.backbone, recipe.backbone, self.step // recipe.steps_per_epoch)
        self.network = wrap(self.model, recipe, device, processes)

        augment, self.change = recipe.augment, None
        if recipe.compute.augment_on_device:
            self.change = DeviceAugment(augment, recipe.seed, processes)
            augment = without_photometric(augment)
        maker = PairMaker(mixture, mixture, augment)
        self.batches = Batches(maker, mixture, recipe.batch, recipe.seed, processes)
        self.faults = FaultCount(recipe.data.max_fault_share)
        self.meter = _Meter()
        self.monitor = Monitor(
            self.output, recipe.steps, self.step, recipe.log, quiet=not processes.first
        )
        if processes.first:
            (self.output / "recipe.yaml").write_text(to_yaml(recipe))
        self._saved, self._between_steps = self.step, True

    def advance(self, pairs: Iterator[Batch]) -> None:
        """One step."""
        recipe = self.recipe
        epoch = self.step // recipe.steps_per_epoch
        if freeze(self.model.backbone, recipe.backbone, epoch):
            self.network = wrap(self.model, recipe, self.device, self.processes)
        set_modes(self.model, self.model.backbone, recipe, epoch)
        self.rate = rate_factor(recipe, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * group["full_lr"]

        with self.meter.waiting():
            batch = next(pairs)
        self.faults.add(batch.faults)
        templates, searches = _upload(batch, self.device, recipe)
        boxes, negatives = batch.boxes.to(self.device), batch.negatives.to(self.device)
        if self.change is not None:
            templates, searches = self.change(templates, searches, boxes, self.step)

        self.statistics.keep()
        self._between_steps = False  # from here on: a forward pass moves BatchNorm's statistics
        with autocast(recipe, self.device):
            cls, reg, cen = self.network(templates, searches)
            taught = None
            if self.teacher is not None:
                with torch.no_grad():
                    taught = self.teacher(searches, self.teacher.template(templates))
        weights = (recipe.loss.cls, recipe.loss.reg, recipe.loss.cen)
        average = self.processes.average if self.processes.world > 1 else None
        losses = siamcar_loss(
            cls,
            reg,
            cen,
            boxes,
            self.model.locations,
            positives=recipe.loss.positives,
            balanced=recipe.loss.balanced,
            negative=negatives,
            centerness_weighted=recipe.loss.centerness_weighted,
            weights=weights,
            average=average,
        )
        if taught is not None:
            losses["teacher"] = teacher_loss(
                cls, reg, cen, taught, weights=weights, average=average
            )
            losses["total"] = losses["total"] + recipe.teacher.weight * losses["teacher"]
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(losses["total"]).backward()
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), recipe.optimizer.clip or math.inf)
        finite = bool(torch.isfinite(norm))
        if self.scaler.is_enabled():
            self.scaler.step(self.optimizer)  # which itself leaves out what is not finite
            self.scaler.update()
        elif finite:
            self.optimizer.step()
        if not finite:
            logger.warning("step %d left out: its gradient is not finite", self.step)
            self.statistics.restore()
        self.step += 1
        if self.average is not None and finite:
            decay = min(recipe.average, (1 + self.step) / (20 + self.step))
            update_average(self.average, self.model, decay)
        self._between_steps = True
        self.meter.add(losses, norm)
        true = torch.where(negatives[:, None], math.nan, boxes)
        self._seen = _Maps(templates, searches, true, cls.detach(), reg.detach())

    def report(self) -> None:
        """Whatever is due after a step: bar, logs, pictures, checkpoints, validation."""
        log, step = self.recipe.log, self.step
        last = step == self.recipe.steps
        self.monitor.advance()
        if last or step % log.every == 0:
            values = self.meter.take(self.recipe.batch, self.processes)
            self.monitor.log(step, {**values, "rate": self.rate * self.recipe.optimizer.lr})
        if last or step % log.images_every == 0:
            seen = self._seen
            predicted = best_boxes(seen.cls, seen.reg, self.model.locations)
            self.monitor.show(step, seen.templates, seen.searches, seen.boxes, predicted)
        if step % log.checkpoint_every == 0:
            self.save()
        if self._due(log.keep_every_epochs):
            self._write_weights(self.output / f"model_{step:07d}.safetensors")
        folder = self.recipe.validation.sequences
        if folder is not None and self._due(self.recipe.validation.every_epochs):
            if self.processes.first:
                self._validate(Path(folder))
            self.processes.wait()

    def _validate(self, folder: Path) -> None:
        try:
            scores = validate(self.average or self.model, folder)
        except DataError as error:  # not worth the run
            logger.warning("%s", error)
        else:
            self.monitor.log(self.step, {f"overlap/{k}": v for k, v in scores.items()})

    def save(self) -> None:
        """Write the checkpoint that a killed run goes on from."""
        if self.processes.first:
            save_checkpoint(
                self.output / LAST,
                model=self.model,
                average=self.average,
                optimizer=self.optimizer,
                metadata={**self._texts(), "scaler": encode(self.scaler.state_dict())},
            )
        self._saved = self.step

    def close(self) -> None:
        """Write the last checkpoint, unless a step was broken off half-way, and the summary."""
        if self.step > self._saved and self._between_steps:
            self.save()
        self.monitor.close()

    def finish(self) -> Path:
        """Write the trained weights."""
        self._write_weights(self.output / FINAL)
        self.processes.wait()
        return self.output / FINAL

    def _write_weights(self, path: Path) -> None:
        if self.processes.first:
            write_atomically(path, (self.average or self.model).state_dict(), self._texts())

    def _texts(self) -> dict[str, str]:
        return {**self.metadata, "step": str(self.step)}

    def _due(self, epochs: float) -> bool:
        interval = max(1, round(epochs * self.recipe.steps_per_epoch))
        return self.step == self.recipe.steps or self.step % interval == 0


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
        names = sorted(self._sums, key=[*LOSSES, "gradient"].index)
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


def describe(recipe: Recipe) -> str:
    """A line on what a recipe asks for."""
    sets = ", ".join(name for name, o in recipe.data.sets.items() if o.get("weight", 1))
    return (
        f"{recipe.network}: {recipe.steps} steps of {recipe.batch} pairs from {sets}; "
        f"{recipe.optimizer.kind}, rate {recipe.optimizer.lr:g}"
    )
