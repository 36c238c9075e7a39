"""The networks, trackers and frames that are measured."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from siamcar_ros.geometry import Box, Image, context_side
from siamcar_ros.model import SiamCAR, build_model
from siamcar_ros.networks import read_network_config
from siamcar_ros.runtime import DeviceError, Network, find_source, load_network
from siamcar_ros.runtime.cache import cache_folder
from siamcar_ros.runtime.graphs import example_inputs
from siamcar_ros.runtime.quantize import Pair, quantize
from siamcar_ros.runtime.select import installed_abilities
from siamcar_ros.runtime.source import GRAPH_VERSION, model_source
from siamcar_ros.speed import backends as speed
from siamcar_ros.tracking import TrackerParams, read_config
from siamcar_ros.tracking.crop import crop_square, mean_color

_CALIBRATION_PAIRS = 24


class Film(speed.Film):
    """The film that ships, in any size, and as the pairs of crops that a network is shown.

    Args:
        frames: how many.
        size: (width, height) of the frames; 640x480 by default. In a larger frame the film fills a
            corner, so that the target keeps its size and place; a smaller one is scaled.
    """

    def __init__(self, frames: int = 16, size: tuple[int, int] | None = None) -> None:
        super().__init__(frames)
        if size is not None:
            resized = [_resized(i, b, size) for i, b in zip(self.images, self.boxes, strict=True)]
            self.images, self.boxes = map(list, zip(*resized, strict=True))

    def pairs(self, offset: int, score_size: int) -> list[Pair]:
        """Crops as a tracker makes them: the target of the first frame, and each other frame."""
        anchor = offset + 8 * (score_size - 1) / 2
        x, y, w, h = self.boxes[0]
        z = _planes(self.images[0], (x + w / 2, y + h / 2), context_side(w, h), 63.0, 127)
        pairs = []
        for i in range(1, len(self.images)):
            x, y, w, h = self.boxes[i - 1]
            center = (x + w / 2, y + h / 2)
            pairs.append((z, _planes(self.images[i], center, context_side(w, h), anchor, 255)))
        return pairs


def _resized(image: Image, box: Box, size: tuple[int, int]) -> tuple[Image, Box]:
    height, width = image.shape[:2]
    large = np.asarray(cv2.resize(image, size), np.uint8)
    if size[0] >= width and size[1] >= height:
        large[:height, :width] = image
        return large, box
    x, y, w, h = box
    across, down = size[0] / width, size[1] / height
    return large, (x * across, y * down, w * across, h * down)


def _planes(
    image: Image, center: tuple[float, float], side: float, anchor: float, size: int
) -> NDArray[np.float32]:
    crop = np.empty((size, size, 3), np.uint8)
    crop_square(image, center, side / SiamCAR.template_size, anchor, mean_color(image), crop)
    return np.ascontiguousarray(crop.transpose(2, 0, 1)[None], np.float32)


def model_of(name: str, weights: Path | None = None) -> tuple[SiamCAR, TrackerParams, str]:
    """A network, its tracker's parameters, and a note on its weights.

    Without weights it gets random ones, whose arithmetic takes the same time.

    Raises:
        ValueError, FileNotFoundError: as :func:`siamcar_ros.tracking.read_config`.
    """
    config = read_config(name, weights)
    if config.weights is None:
        note = "random weights (the time does not depend on them)"
        return random_model(name), config.params, note
    model = find_source(config.network).model()
    return model, config.params, f"weights {config.weights.name}"


def random_model(name: str) -> SiamCAR:
    """A network in evaluation mode, with the same random weights every time.

    Activations are of order 1, and each residual is smaller than what it is added to, as in a
    trained network; otherwise rounding errors would grow from block to block.
    """
    torch.manual_seed(0)
    model = build_model(name).train()
    for part in model.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = None  # the running statistics are plain means
        last = getattr(part, "bn3", None) or getattr(part, "bn2", None)
        if last is not None:
            last.weight.data.fill_(0.3)
    with torch.no_grad():
        z, x = example_inputs(model, 2)
        model(x, model.template(z))
    return model.eval()


def variants(
    model: SiamCAR, device: str, film: Film, threads: int
) -> tuple[dict[str, Network], list[str]]:
    """The model on every backend and in every precision that is installed.

    Returns:
        the networks by "backend precision", and a line on each that did not start.
    """
    networks, left_out = {}, []
    for backend, precision in installed_abilities(device.partition(":")[0]):
        label = f"{backend} {precision}"
        try:
            graph = int8_graph(model, film) if precision == "int8" else None
            network = load_network(
                model,
                device=device,
                backend=backend,
                precision=precision,
                threads=threads,
                weights=graph,
            )
            network.warm_up(calls=1)
            networks[label] = network
        except DeviceError as error:
            left_out.append(f"{label} left out: {error}")
    return networks, left_out


def calibration_of(name: str) -> dict[str, dict[str, float]] | None:
    """The calibration of the score that ships with a network's weights; None if none ships."""
    config = read_network_config(name)
    return None if config.weights is None else find_source(config).calibration()


def int8_graph(model: SiamCAR, film: Film) -> Path:
    """The model's search graph in int8, calibrated on the film and kept in the user's cache.

    Raises:
        DeviceError: ``onnx``, ``onnxruntime`` or ``onnxscript`` is not installed.
    """
    source = model_source(model)
    path = cache_folder("int8") / f"{source.fingerprint}-{GRAPH_VERSION}.search.int8.onnx"
    if not path.is_file():
        pairs = film.pairs(model.offset, model.score_size)[:_CALIBRATION_PAIRS]
        quantize(source.graphs(), pairs, path)
    return path


class StillNetwork:
    """A network that answers at once, so that only the tracker's own time is left."""

    stride = 8
    device = "cpu"

    def __init__(self, model: SiamCAR) -> None:
        self.score_size, self.offset = model.score_size, model.offset
        s = self.score_size
        y, x = np.indices((s, s)) - s // 2
        bump = 8 * np.exp(-(x**2 + y**2) / 8) - 4
        self.maps = tuple(
            torch.from_numpy(part.astype(np.float32))
            for part in (
                np.stack((-bump, bump))[None],
                np.full((1, 4, s, s), 32.0),
                bump[None, None],
            )
        )

    def eval(self) -> StillNetwork:
        """Return itself."""
        return self

    def parameters(self) -> Iterator[torch.Tensor]:
        """Yield one tensor, whose device is the network's."""
        yield self.maps[0]

    def template(self, z: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return a dummy template."""
        return (z.new_zeros(1, 1, 1, 1),)

    def __call__(self, x: torch.Tensor, template: Any) -> tuple[torch.Tensor, ...]:
        """Return the maps of a target that does not move."""
        return self.maps
