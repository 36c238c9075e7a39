"""The training loop.

    siamcar train compact
    siamcar train compact epochs=1 batch=16 output=runs/short
    torchrun --nproc-per-node 4 -m siamcar_ros.cli train siamcar_r50 variant=code

The same command resumes an interrupted run from ``last.pt`` in its output folder. On a CPU the
final weights are then bit for bit those of an uninterrupted run.

:meth:`Run.advance` is one step; what happens around the steps is in :func:`train`.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, cast

import torch
from torch import Tensor, nn

from siamcar_ros.data import build_mixture
from siamcar_ros.files import replacing
from siamcar_ros.model import SiamCAR
from siamcar_ros.processes import ENDINGS, signals_handled

from .build import (
    autocast,
    build_average,
    build_network,
    build_optimizer,
    build_teacher,
    wrap,
)
from .checkpoint import load_checkpoint, run_metadata, save_checkpoint, write_weights
from .distributed import Processes, choose_device, joined
from .loader import Batch, Batches, FaultCount, loading
from .losses import siamcar_loss, teacher_loss
from .monitor import Meter, Monitor, best_boxes
from .photometric import apply_changes
from .recipe import Recipe, to_yaml
from .recorded import RecordedPass
from .schedule import freeze, rate_factor, set_modes
from .validation import find_sequences, validate

logger = logging.getLogger(__name__)

LAST, FINAL = "last.pt", "model.safetensors"


def train(recipe: Recipe) -> Path:
    """Train a network, or resume its training.

    Returns:
        the file of the trained weights: the averaged ones, if the recipe averages.

    Raises:
        ValueError, OSError: the recipe, the data or an earlier checkpoint cannot be used, a file
            cannot be written, or the run has diverged; the last checkpoint is from before.
        KeyboardInterrupt: on SIGINT, SIGTERM or SIGHUP, after the last checkpoint has been written.
    """
    device = choose_device(recipe.compute.device)
    with joined(device) as processes:
        run, workers = Run(recipe, device, processes), recipe.compute.workers
        with (
            _interruption(processes.first) as interrupted,
            loading(run.batches, run.step, recipe.steps, workers, device) as pairs,
            closing(run),  # first: its last checkpoint does not wait for the workers to end
        ):
            while run.step < recipe.steps:
                run.advance(pairs)
                run.report()
                if processes.any(bool(interrupted)):
                    raise KeyboardInterrupt
        return run.finish()


class Run:
    """The state of a run after `step` steps; `parts` are what a checkpoint holds."""

    def __init__(self, recipe: Recipe, device: torch.device, processes: Processes) -> None:
        self.recipe, self.device, self.processes = recipe, device, processes
        self.output = Path(recipe.output)
        self.output.mkdir(parents=True, exist_ok=True)
        if processes.first:
            for leftover in self.output.glob(".*.partial.*"):  # of a killed run
                leftover.unlink()
        if recipe.compute.threads is not None:
            torch.set_num_threads(recipe.compute.threads)
        if device.type == "cuda":  # all batches have the same shapes, so that timing kernels pays
            torch.backends.cudnn.benchmark = True
        if recipe.validation.sequences is not None:
            find_sequences(Path(recipe.validation.sequences))  # refuse now, not in hours
        mixture = build_mixture(recipe.data.sets, recipe.data.max_fault_share)

        self.model = build_network(recipe, device)
        self.teacher = build_teacher(recipe, self.model, device)
        self.average = build_average(self.model, recipe.average) if recipe.average else None
        self.optimizer = build_optimizer(self.model, recipe)
        self.scaler = torch.amp.GradScaler(device.type, enabled=recipe.compute.precision == "fp16")
        self.metadata = run_metadata(recipe, mixture.fingerprint())
        self.parts: dict[str, Any] = {
            "model": self.model,
            "optimizer": self.optimizer,
            "scaler": self.scaler,
        }
        if self.average is not None:
            self.parts["average"] = self.average
        self.step = load_checkpoint(self.output / LAST, self.parts, recipe, self.metadata)
        self.buffers = list(self.model.buffers())  # BatchNorm's statistics
        self.kept = [buffer.clone() for buffer in self.buffers]  # and those before the step
        freeze(self.model.backbone, recipe.backbone, self.step // recipe.steps_per_epoch)
        self.network = wrap(self.model, recipe, device, processes)

        self.batches = Batches(mixture, recipe, processes)
        loss = self.loss_options = dataclasses.asdict(recipe.loss)
        weights = loss.pop("cls"), loss.pop("reg"), loss.pop("cen")
        # Shared with the teacher's loss.
        self.loss_shared: dict[str, Any] = {"weights": weights, "average": processes.average}
        self.recorded: RecordedPass | None = None
        graph = recipe.compute.cuda_graph and not recipe.compute.compile
        if graph and device.type == "cuda" and processes.world == 1:
            self.recorded = RecordedPass(self._pass, list(self.model.parameters()), device)
        self.faults = FaultCount(recipe.data.max_fault_share)
        self.meter = Meter()
        self.monitor = Monitor(
            self.output, recipe.steps, self.step, recipe.log, quiet=not processes.first
        )
        if processes.first:
            with replacing(self.output / "recipe.yaml") as part:
                part.write_text(to_yaml(recipe))
        self._saved, self._whole_step, self._lost_in_a_row = self.step, True, 0
        self._epoch = -1  # the one that modes and trained parts were last set for
        self._next: Batch | Exception | None = None  # the next batch, or why there is none
        # Whether the gradient is finite. A copy to memory that is not pinned waits for the GPU.
        self._finite = torch.empty((), dtype=torch.bool, pin_memory=device.type == "cuda")

    def advance(self, pairs: Iterator[Batch]) -> None:
        """Do one training step with the next batch."""
        recipe, device = self.recipe, self.device

        # What the epoch trains, and at which rate.
        epoch = self.step // recipe.steps_per_epoch
        if epoch != self._epoch:
            if freeze(self.model.backbone, recipe.backbone, epoch):
                self.network = wrap(self.model, recipe, device, self.processes)
                if self.recorded is not None:
                    self.recorded.forget()
            set_modes(self.model, recipe, epoch)
            self._epoch = epoch
        self.rate = rate_factor(recipe, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * group["full_lr"]

        batch = self._next or self._prepared(pairs)
        self._next = None
        if isinstance(batch, Exception):
            raise batch
        templates, searches, boxes, negatives = inputs = batch[:4]
        self.faults.add(batch.faults)

        # Forward and backward. Until the end of the step no checkpoint is written, since
        # BatchNorm's statistics have moved and the weights have not.
        self._whole_step = False
        torch._foreach_copy_(self.kept, self.buffers)
        if self.recorded is not None:
            losses, cls, reg = self.recorded(*inputs)
        else:
            self.optimizer.zero_grad(set_to_none=True)
            losses, cls, reg = self._pass(*inputs)

        # A step whose gradient is not finite is left out.
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), recipe.optimizer.clip or math.inf)
        self._finite.copy_(torch.isfinite(norm), non_blocking=True)
        computed = torch.cuda.Event() if device.type == "cuda" else None
        if computed is not None:
            computed.record()
        if self.step + 1 < recipe.steps:  # prepare the next one while the GPU works on this
            try:
                self._next = self._prepared(pairs)
            except Exception as error:  # raised by the next step, as this one is whole
                self._next = error
        if computed is not None:
            computed.synchronize()
        finite = bool(self._finite)
        if finite or self.scaler.is_enabled():  # the scaler leaves such a step out by itself
            self.scaler.step(self.optimizer)
            self.scaler.update()
        if finite:
            self._lost_in_a_row = 0
            if self.average is not None:
                self.average.update_parameters(self.model)
        else:
            self._leave_out()
        self.step += 1
        self._whole_step = True

        self.meter.add(losses, norm)
        true = torch.where(negatives[:, None], math.nan, boxes)
        self._seen = templates, searches, true, cls, reg

    def _pass(
        self, templates: Tensor, searches: Tensor, boxes: Tensor, negatives: Tensor
    ) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Add the batch's gradients to the parameters; return its losses, and the maps' cls, reg.

        A CUDA graph may be made of it, so nothing here waits for the device.
        """
        recipe = self.recipe
        with autocast(recipe, self.device):
            cls, reg, cen = self.network(templates, searches)
            if self.teacher is not None:
                with torch.no_grad():
                    taught = self.teacher(searches, self.teacher.template(templates))
        losses = siamcar_loss(
            cls,
            reg,
            cen,
            boxes,
            self.model.locations,
            negative=negatives,
            **self.loss_options,
            **self.loss_shared,
        )
        if self.teacher is not None:
            losses["teacher"] = teacher_loss(cls, reg, cen, taught, **self.loss_shared)
            losses["total"] = losses["total"] + recipe.teacher.weight * losses["teacher"]
        self.scaler.scale(losses["total"]).backward()
        return {name: loss.detach() for name, loss in losses.items()}, cls.detach(), reg.detach()

    def _prepared(self, pairs: Iterator[Batch]) -> Batch:
        """The next batch on the device, with images (B, 3, h, w) float32."""
        with self.meter.waiting():
            batch = next(pairs)
        return batch._replace(
            templates=self._upload(batch.templates, batch.changes[:, 0]),
            searches=self._upload(batch.searches, batch.changes[:, 1]),
            boxes=batch.boxes.to(self.device, non_blocking=True),
            negatives=batch.negatives.to(self.device, non_blocking=True),
        )

    def _upload(self, images: Tensor, changes: Tensor) -> Tensor:
        """Images (B, h, w, 3) uint8 to (B, 3, h, w) float32 on the device."""
        there = images.to(self.device, non_blocking=True)
        if self.recipe.compute.augment_on_device:
            there = apply_changes(there, changes.numpy())
        return there.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.channels_last)

    def _leave_out(self) -> None:
        """Undo a step whose gradient is not finite."""
        logger.warning("step %d left out: its gradient is not finite", self.step)
        torch._foreach_copy_(self.buffers, self.kept)  # a moving average would stay not finite
        self._lost_in_a_row += 1
        optimizer = self.recipe.optimizer
        if self._lost_in_a_row >= optimizer.give_up_after:
            clip = f" or optimizer.clip ({optimizer.clip:g})" if optimizer.clip else ""
            fp16 = self.recipe.compute.precision == "fp16"
            raise ValueError(
                f"the run has diverged: no finite gradient in {self._lost_in_a_row} steps in a "
                f"row, up to step {self.step}; lower optimizer.lr ({optimizer.lr:g}){clip}"
                f"{', or use compute.precision=bf16,' if fp16 else ''} and train again into "
                "another output"
            )

    def report(self) -> None:
        """Do what is due after a step: progress bar, log, pictures, checkpoint, validation."""
        log, step = self.recipe.log, self.step
        last = step == self.recipe.steps
        self.monitor.advance()
        if last or step % log.every == 0:
            values = self.meter.take(self.recipe.batch, self.processes)
            self.monitor.log(step, {**values, "rate": self.rate * self.recipe.optimizer.lr})
        if last or step % log.images_every == 0:
            templates, searches, boxes, cls, reg = self._seen
            predicted = best_boxes(cls, reg, self.model.locations)
            self.monitor.show(step, templates, searches, boxes, predicted)
        if step % log.checkpoint_every == 0:
            self.save()
        if self._due(log.keep_every_epochs):
            self._write_weights(self.output / f"model_{step:07d}.safetensors")
        if self.recipe.validation.sequences and self._due(self.recipe.validation.every_epochs):
            if step > self._saved:  # a validation can take long
                self.save()
            if self.processes.first:
                self._validate(Path(self.recipe.validation.sequences))
            self.processes.wait()

    def _validate(self, folder: Path) -> None:
        recipe = self.recipe
        try:
            scores = validate(self._trained(), recipe.network, folder, recipe.validation.frames)
        except Exception as error:  # hours of training are worth more than one validation
            logger.warning("no validation after step %d: %s", self.step, error)
        else:
            self.monitor.log(self.step, scores)
        self._epoch = -1  # the network is in evaluation mode now

    def save(self) -> None:
        """Write the checkpoint that a killed run resumes from."""
        self._saved = self.step  # even if it fails: it is not tried twice
        if self.processes.first:
            save_checkpoint(self.output / LAST, self.step, self.parts, self.metadata)

    def close(self) -> None:
        """Write the summary and, unless a step was interrupted, the last checkpoint."""
        if self.step > self._saved and self._whole_step:
            self.save()
        self.monitor.close()

    def finish(self) -> Path:
        """Write the trained weights."""
        self._write_weights(self.output / FINAL)
        self.processes.wait()
        return self.output / FINAL

    def _trained(self) -> SiamCAR:
        """The averaged network, or the network itself if there is no average."""
        return self.model if self.average is None else cast(SiamCAR, self.average.module)

    def _write_weights(self, path: Path) -> None:
        if self.processes.first:
            write_weights(path, self._trained(), {**self.metadata, "step": str(self.step)})

    def _due(self, epochs: float) -> bool:
        interval = max(1, round(epochs * self.recipe.steps_per_epoch))
        return self.step == self.recipe.steps or self.step % interval == 0


@contextmanager
def _interruption(tell: bool) -> Iterator[list[int]]:
    """Collect signals to end: the loop ends after its step, and at once on a second one.

    A closed terminal sends SIGHUP twice, which counts as once. A signal that is ignored, as under
    nohup, stays ignored.
    """
    noted: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        if noted and number != signal.SIGHUP:
            raise KeyboardInterrupt
        if tell and not noted:
            logger.warning("stopping after this step or validation; a second Ctrl-C stops at once")
        noted.append(number)

    kinds = [kind for kind in ENDINGS if signal.getsignal(kind) is not signal.SIG_IGN]
    with signals_handled(kinds, note):
        yield noted
