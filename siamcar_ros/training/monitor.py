"""What a run reports: progress bar, TensorBoard, a history in text and pictures."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from siamcar_ros.data import read_image
from siamcar_ros.files import reason, replacing

from .distributed import Processes
from .recipe import LogRecipe

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger(__name__)

LOSSES = ("total", "cls", "reg", "cen", "teacher")
_TRUE, _PREDICTED = (80, 220, 80), (60, 60, 250)
_SHOWN = 8


class Monitor:
    """Writes ``history.jsonl``, TensorBoard's event files, ``samples.png`` and ``summary.png``.

    Of a run of `steps` steps, `first` are done already: the history of later ones is dropped. With
    `quiet`, as in all processes but the first, nothing is written.
    """

    def __init__(
        self, folder: Path, steps: int, first: int, recipe: LogRecipe, *, quiet: bool = False
    ) -> None:
        self._folder, self._quiet = folder, quiet
        self._writer: SummaryWriter | None = None
        self.history: list[dict[str, Any]] = []
        self._bar = tqdm(
            total=steps, initial=first, unit="step", disable=True if quiet else None, smoothing=0.1
        )
        if quiet:
            return
        self._path = folder / "history.jsonl"
        self.history = [entry for entry in _read_history(self._path) if entry["step"] <= first]
        with replacing(self._path) as part:
            part.write_text("".join(json.dumps(entry) + "\n" for entry in self.history))
        if recipe.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=first + 1)

    def advance(self) -> None:
        """Move the progress bar on by one step."""
        self._bar.update()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write losses, rate, speed or a validation's measures after a step."""
        if self._quiet:
            return
        entry = {"step": step, **{key: round(float(v), 6) for key, v in values.items()}}
        self.history.append(entry)
        with self._path.open("a") as file:
            file.write(json.dumps(entry) + "\n")
        for key, value in values.items():
            if self._writer is not None:
                self._writer.add_scalar(_group(key), value, step)
        shown = ", ".join(f"{key} {value:.4g}" for key, value in values.items())
        if self._bar.disable:
            logger.info("step %d: %s", step, shown)
        elif "total" in values:
            self._bar.set_postfix_str(shown)
        else:
            self._bar.write(f"step {step}: {shown}")

    def show(
        self, step: int, templates: Tensor, searches: Tensor, true: Tensor, predicted: Tensor
    ) -> None:
        """Write sample pairs: the template in a corner, the true box green, the predicted red.

        Images are (B, 3, h, w) BGR 0..255, boxes (B, 4) in search pixels, NaN without a target.
        """
        if self._quiet:
            return
        pictures = [
            _sample(*(part.detach().float().cpu().numpy() for part in pair))
            for pair in islice(zip(templates, searches, true, predicted, strict=True), _SHOWN)
        ]
        columns = (len(pictures) + 1) // 2
        pictures += [np.zeros_like(pictures[0])] * (2 * columns - len(pictures))
        sheet = np.vstack([np.hstack(pictures[:columns]), np.hstack(pictures[columns:])])
        with _expendable("samples.png"), replacing(self._folder / "samples.png") as part:
            part.write_bytes(cv2.imencode(".png", sheet)[1].tobytes())
        if self._writer is not None:
            self._writer.add_image("samples", sheet[..., ::-1].copy(), step, dataformats="HWC")

    def close(self) -> None:
        """Close the bar and the event file, and draw the summary."""
        self._bar.close()
        with _expendable("event file"):
            if self._writer is not None:
                self._writer.close()
        with _expendable("summary.png"):
            if not self._quiet and self.history:
                draw_summary(self.history, self._folder)


@contextmanager
def _expendable(name: str) -> Iterator[None]:
    """Log an error in the block as a warning: no picture is worth a run, or hides why it ended."""
    try:
        yield
    except Exception as error:
        logger.warning("%s is not written: %s", name, reason(error))


def _read_history(path: Path) -> Iterator[dict[str, Any]]:
    """The entries of a history; a killed run may leave its last line incomplete."""
    for line in path.read_text(errors="replace").splitlines() if path.is_file() else ():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            logger.warning("%s ends in an incomplete line; the entries before it are kept", path)
            return


def _group(key: str) -> str:
    if key in LOSSES:
        return f"loss/{key}"
    return key if "/" in key else f"run/{key}"


def _sample(
    template: NDArray[np.float32],
    search: NDArray[np.float32],
    true: NDArray[np.float32],
    predicted: NDArray[np.float32],
) -> NDArray[np.uint8]:
    picture = np.ascontiguousarray(search.transpose(1, 2, 0).clip(0, 255).astype(np.uint8))
    corner = cv2.resize(template.transpose(1, 2, 0).clip(0, 255).astype(np.uint8), (63, 63))
    picture[:63, :63] = corner
    for box, color in ((true, _TRUE), (predicted, _PREDICTED)):
        if np.isfinite(box).all():
            x1, y1, x2, y2 = (round(float(v)) for v in box.clip(-999, 999))
            cv2.rectangle(picture, (x1, y1), (x2, y2), color, 1)
    return picture


def best_boxes(cls: Tensor, reg: Tensor, locations: Tensor) -> Tensor:
    """(B, 4) boxes x1, y1, x2, y2 predicted by the cells with the highest foreground score."""
    best = (cls[:, 1] - cls[:, 0]).flatten(1).argmax(1)
    rows = torch.arange(len(best), device=best.device)
    left, top, right, bottom = reg.flatten(2)[rows, :, best].float().unbind(1)
    x, y = locations[best].unbind(1)
    return torch.stack((x - left, y - top, x + right, y + bottom), 1)


class Meter:
    """Means of the losses, and the speed, since they were last taken."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._steps = 0
        self._waited = 0.0
        self._since = time.perf_counter()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time spent in the block as waiting for the loader."""
        begin = time.perf_counter()
        yield
        self._waited += time.perf_counter() - begin

    def add(self, losses: dict[str, Tensor], norm: Tensor) -> None:
        """Add the losses of a step."""
        for name, value in (*losses.items(), ("gradient", norm)):
            self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value.detach()
        self._steps += 1

    def take(self, batch: int, processes: Processes) -> dict[str, float]:
        """Means over all processes, pairs per second, and the share of time spent waiting."""
        names = sorted(self._sums, key=[*LOSSES, "gradient"].index)
        means = processes.average(torch.stack([self._sums[n] for n in names]) / self._steps)
        seconds = time.perf_counter() - self._since
        values = dict(zip(names, means.tolist(), strict=True))
        values |= {"pairs/s": self._steps * batch / seconds, "loader wait": self._waited / seconds}
        self._reset()
        return values


def draw_summary(history: list[dict[str, Any]], folder: Path) -> None:
    """Draw losses, rate and speed, validation and ``samples.png`` in one ``summary.png``."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8), layout="constrained")
    axes = figure.subplots(2, 2)
    for name in LOSSES:
        _plot(axes[0, 0], history, name)
    axes[0, 0].set(title="losses", xlabel="step", yscale="log")
    axes[0, 0].legend()
    _plot(axes[0, 1], history, "rate")
    axes[0, 1].set(title="learning rate; pairs a second (dotted)", xlabel="step")
    _plot(axes[0, 1].twinx(), history, "pairs/s", linestyle=":", color="gray")
    shown = {key for entry in history for key in entry if key.startswith(("overlap/", "tracking/"))}
    for name in sorted(shown):
        mean = name.startswith("tracking/")
        _plot(axes[1, 0], history, name, linewidth=2.5 if mean else 1, marker=".")
    axes[1, 0].set(title="tracking: means, and overlap by sequence", xlabel="step", ylim=(0, 1))
    if shown:
        axes[1, 0].legend(fontsize=7)
    axes[1, 1].axis("off")
    samples = read_image(folder / "samples.png")
    if samples is not None:
        axes[1, 1].imshow(samples[..., ::-1])
        axes[1, 1].set_title("pairs: true green, predicted red", fontsize=9)
    with replacing(folder / "summary.png") as part:
        figure.savefig(part, dpi=110)


def _plot(axis: Any, history: list[dict[str, Any]], name: str, **style: Any) -> None:
    points = [(entry["step"], entry[name]) for entry in history if name in entry]
    if points:
        axis.plot(*zip(*points, strict=True), label=name.rpartition("/")[2], **style)
