"""What every backend offers, and the errors of choosing one."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from siamcar_ros.model import SiamCAR

BACKENDS = ("torch", "cudagraph", "onnxruntime", "openvino")
PRECISIONS = ("fp32", "bf16", "fp16", "int8")

Template = tuple[Tensor, ...]
Maps = tuple[Tensor, Tensor, Tensor]


class DeviceError(ValueError):
    """A device, backend or precision that was asked for and is not to be had here."""


@dataclass(frozen=True)
class Geometry:
    """What a tracker must know of a network's maps; see :class:`siamcar_ros.model.SiamCAR`."""

    name: str
    score_size: int
    offset: int

    @classmethod
    def of(cls, model: SiamCAR) -> Geometry:
        """The geometry of a network."""
        return cls(model.name, model.score_size, model.offset)


@dataclass(frozen=True)
class Placement:
    """Where and how a network runs.

    Attributes:
        backend: one of :data:`BACKENDS`.
        device: "cpu" or "cuda:N".
        precision: one of :data:`PRECISIONS`, of the arithmetic; inputs and maps are float32.
        reason: why it runs there, in words for a person.
    """

    backend: str
    device: str
    precision: str
    reason: str


class Network(ABC):
    """A network with its weights on a device: the model's contract, whatever runs it.

    Templates and maps are new tensors that no later call changes. Calls from several threads are
    taken one after another, so that trackers of several cameras can share one network.

    Images may be given in either of two forms: (B, 3, n, n) float32 BGR 0..255, as the model takes
    them, or (B, n, n, 3) uint8 BGR, as they are cut from a frame, which spares the conversion. They
    may be on the CPU: the network uploads them, without waiting where the memory is pinned, and has
    read them when its maps are there. Maps may be on the CPU or on :attr:`device`.

    Attributes:
        takes_pixels: True, that images may be uint8.
        name, score_size, offset, stride, template_size, search_size: as the model's.
        backend, device, precision, reason: as :class:`Placement`'s.
    """

    takes_pixels = True
    stride = SiamCAR.stride
    template_size = SiamCAR.template_size
    search_size = SiamCAR.search_size

    def __init__(self, geometry: Geometry, placement: Placement) -> None:
        self.name = geometry.name
        self.score_size = geometry.score_size
        self.offset = geometry.offset
        self.backend = placement.backend
        self.device = placement.device
        self.precision = placement.precision
        self.reason = placement.reason
        self._lock = threading.Lock()

    def template(self, z: Tensor) -> Template:
        """The target's features, to be kept by the track.

        Args:
            z: (B, 3, 127, 127) float32 or (B, 127, 127, 3) uint8.

        Returns:
            four-dimensional tensors, one a level, whose form is the backend's own; the templates
            of several tracks are joined by ``torch.cat`` on dim 0, level by level.
        """
        with self._lock, torch.inference_mode():
            return self._template(z)

    def __call__(self, x: Tensor, template: Sequence[Tensor]) -> Maps:
        """Where in each search region its template's target is.

        Args:
            x: (B, 3, 255, 255) float32 or (B, 255, 255, 3) uint8.
            template: from :meth:`template`, of batch 1 (for all) or B (one for each).

        Returns:
            cls (B, 2, S, S), reg (B, 4, S, S), cen (B, 1, S, S), float32, as the model's.

        Raises:
            ValueError: the template's batch is neither 1 nor B.
        """
        batch, given = x.shape[0], template[0].shape[0]
        if given not in (1, batch):
            raise ValueError(
                f"{given} templates cannot be matched with {batch} search regions: "
                "give one template for all, or one for each"
            )
        with self._lock, torch.inference_mode():
            return self._maps(x, template)

    def warm_up(self, batch: int = 1, calls: int = 3) -> None:
        """Run a few times on grey images, so that the first frame is as fast as the others.

        Args:
            batch: the largest number of targets at once; smaller ones are warmed, too.
            calls: times each.
        """
        z, x = (
            torch.full((batch, size, size, 3), 128, dtype=torch.uint8, device=self.device)
            for size in (self.template_size, self.search_size)
        )
        for targets in range(1, batch + 1):
            for _ in range(calls):
                self(x[:targets], self.template(z[:targets]))[0].cpu()

    def __repr__(self) -> str:
        return f"<{self.name} on {self.device} by {self.backend}, {self.precision}>"

    @abstractmethod
    def _template(self, z: Tensor) -> Template:
        """:meth:`template`, one caller at a time, without gradients."""

    @abstractmethod
    def _maps(self, x: Tensor, template: Sequence[Tensor]) -> Maps:
        """:meth:`__call__`, one caller at a time, without gradients, batches checked."""


def as_planes(images: Tensor) -> Tensor:
    """Images of either form as (B, 3, n, n): pixels as a view of another shape, still uint8."""
    return images.permute(0, 3, 1, 2) if images.dtype == torch.uint8 else images


def import_or_refuse(module: str, backend: str, extra: str) -> Any:
    """A backend's library.

    Raises:
        DeviceError: it is not installed.
    """
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DeviceError(
            f"the {backend} backend needs the Python package {module!r} ({error}): "
            f"pip install '.[{extra}]' in the checkout, or choose backend 'torch'"
        ) from error
