"""The interface of all backends, and their registry."""

from __future__ import annotations

import importlib
import importlib.util
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from siamcar_ros.geometry import SEARCH_SIZE, TEMPLATE_SIZE

if TYPE_CHECKING:
    from siamcar_ros.model import SiamCAR
    from siamcar_ros.runtime.onnx_files import GraphFacts
    from siamcar_ros.runtime.source import Source

PRECISIONS = ("fp32", "bf16", "fp16", "int8")

Template = tuple[Any, ...]
"""A target's features, one four-dimensional array a level, in the backend's own form."""

Images = NDArray[Any]
"""(B, n, n, 3) uint8 BGR, or (B, 3, n, n) float32 BGR 0..255."""


class Maps(NamedTuple):
    """A network's outputs for B targets: raw logits, and distances in search pixels.

    Attributes:
        cls: (B, 2, S, S) logits, foreground at index 1.
        reg: (B, 4, S, S) distances l, t, r, b.
        cen: (B, 1, S, S) centerness logits.
    """

    cls: NDArray[np.float32]
    reg: NDArray[np.float32]
    cen: NDArray[np.float32]


class DeviceError(ValueError):
    """A device, backend or precision that is not available on this machine."""


@dataclass(frozen=True)
class Placement:
    """Where and how a network runs.

    Attributes:
        backend: a name of :data:`BACKENDS`.
        device: "cpu" or "cuda:N".
        precision: one of :data:`PRECISIONS`, of the arithmetic; inputs and maps are float32.
        reason: why it runs there, as a sentence for the user.
    """

    backend: str
    device: str
    precision: str
    reason: str


class Network(ABC):
    """A network with its weights on a device: the interface of all backends.

    Images are (B, n, n, 3) uint8 BGR, as cut from a frame, or (B, 3, n, n) float32 BGR 0..255.
    Templates and maps are new arrays, which later calls do not change. Calls from several threads
    run one after another, so the trackers of several cameras can share a network.

    Attributes:
        takes_pixels: True: images may be uint8.
        gives_features: whether :meth:`observe` works.
        name, score_size, offset, stride: as the model's; template_size, search_size: 127, 255.
        backend, device, precision, reason: as :class:`Placement`'s.
        calibration: what :class:`siamcar_ros.tracking.calibration.Calibration` is made of, None
            where none was fitted for these weights.
    """

    calibration: dict[str, dict[str, float]] | None = None
    takes_pixels = True
    gives_features = False
    template_size = TEMPLATE_SIZE
    search_size = SEARCH_SIZE

    def __init__(self, geometry: GraphFacts | SiamCAR, placement: Placement) -> None:
        self.name = geometry.name
        self.score_size = geometry.score_size
        self.offset = geometry.offset
        self.stride = geometry.stride
        self.backend = placement.backend
        self.device = placement.device
        self.precision = placement.precision
        self.reason = placement.reason
        self._lock = threading.Lock()

    def template(self, z: Images) -> Template:
        """The features of targets, which their tracks keep, in images of 127 x 127 pixels."""
        with self._lock:
            return self._template(z)

    def __call__(self, x: Images, template: Sequence[Any]) -> Maps:
        """The maps that locate the templates' targets in the search regions.

        Args:
            x: images of 255 x 255 pixels.
            template: from :meth:`template` or :meth:`join`, of batch 1 (for all) or B (one each).

        Raises:
            ValueError: the template's batch is neither 1 nor B.
        """
        self._check_batch(x, template)
        with self._lock:
            return Maps(*self._maps(x, template))

    def observe(self, x: Images, template: Sequence[Any]) -> tuple[Maps, NDArray[np.float32]]:
        """The maps, and the features from which the head computed them.

        Returns:
            the maps, and (B, C, S, S) features, cell for cell theirs: the levels' responses,
            reduced to the head's channels. In int8 they are as coarse as the head reads them.

        Raises:
            DeviceError: its graphs were exported by an earlier version, without features.
            ValueError: as :meth:`__call__`.
        """
        if not self.gives_features:
            raise DeviceError(
                f"{self!r} gives no features: its graphs were exported by an earlier version; run "
                "'siamcar export' again"
            )
        self._check_batch(x, template)
        with self._lock:
            *maps, features = self._maps(x, template, features=True)
        return Maps(*maps), features

    def join(self, templates: Sequence[Template]) -> Template:
        """The templates of several tracks as one batch, in their order."""
        return join_arrays(templates)

    def pixel_buffer(self, shape: Sequence[int], dtype: Any = np.uint8) -> NDArray[np.uint8]:
        """An array for crops, like `numpy.empty`, in the memory that this network reads fastest."""
        return np.empty(shape, dtype)

    def warm_up(self, batch: int = 1, calls: int = 3) -> None:
        """Run a few times on gray images, so that the first frame is as fast as later ones.

        That is `calls` times for each number of targets up to `batch`, with features if it has any.
        """
        z, x = (
            np.full((batch, size, size, 3), 128, np.uint8)
            for size in (self.template_size, self.search_size)
        )
        for targets in range(1, batch + 1):
            for _ in range(calls):
                template = self.template(z[:targets])
                self(x[:targets], template)
                if self.gives_features:
                    self.observe(x[:targets], template)

    def __repr__(self) -> str:
        return f"<{self.name} on {self.device} by {self.backend}, {self.precision}>"

    @abstractmethod
    def _template(self, z: Images) -> Template:
        """:meth:`template`, one caller at a time."""

    @abstractmethod
    def _maps(
        self, x: Images, template: Sequence[Any], features: bool = False
    ) -> Sequence[NDArray[np.float32]]:
        """The three maps, and the features if wanted; one caller at a time, the batches checked."""

    def _check_batch(self, x: Any, template: Sequence[Any]) -> None:
        batch, given = x.shape[0], template[0].shape[0]
        if given not in (1, batch):
            raise ValueError(
                f"{given} templates cannot be matched with {batch} search regions: "
                "give one template for all, or one for each"
            )


class OneByOneNetwork(Network):
    """A network whose graphs take one target at a time.

    On a CPU a batch is no faster than its parts, and fixed shapes are faster than variable ones.
    """

    def __init__(self, geometry: GraphFacts | SiamCAR, placement: Placement) -> None:
        super().__init__(geometry, placement)
        self._shown: Template = ()
        self._targets: list[Template] = []

    @abstractmethod
    def _template_of(self, z: Images) -> Template:
        """The template of one image of either form, as new arrays."""

    @abstractmethod
    def _maps_of(
        self, x: Images, template: Template, features: bool
    ) -> Sequence[NDArray[np.float32]]:
        """:meth:`_maps` of one image; `template` is the same object while it does not change."""

    def _template(self, z: Images) -> Template:
        return join_arrays([self._template_of(z[i : i + 1]) for i in range(len(z))])

    def _maps(
        self, x: Images, template: Sequence[Any], features: bool = False
    ) -> Sequence[NDArray[np.float32]]:
        given = tuple(template)  # the same object if it is a tuple
        if given is not self._shown:
            self._shown = given
            self._targets = [
                tuple(np.ascontiguousarray(level[i : i + 1]) for level in given)
                for i in range(len(given[0]))
            ]
        targets = self._targets if len(self._targets) > 1 else self._targets * len(x)
        return join_arrays(
            [self._maps_of(x[i : i + 1], target, features) for i, target in enumerate(targets)]
        )


def join_arrays(parts: Sequence[Sequence[Any]]) -> tuple[Any, ...]:
    """Templates or maps of single targets as one batch."""
    if len(parts) == 1:
        return tuple(parts[0])
    return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))


def as_planes(images: Images) -> NDArray[np.float32]:
    """Images of either form as (B, 3, n, n) float32, contiguous."""
    if images.dtype != np.uint8:
        return np.ascontiguousarray(images, np.float32)
    return np.asarray(cv2.dnn.blobFromImages(list(images)), np.float32)


@dataclass(frozen=True)
class Backend:
    """A way to run a network.

    Attributes:
        name: for the argument `backend` of :func:`load_network`.
        build: makes a :class:`Network` of its source, a placement and a number of CPU threads
            (None for the backend's own choice).
        packages: the Python packages that it needs.
        precisions: its precisions, by kind of device ("cpu" or "cuda").
        speed: of the backends that can run a network, the one with the highest value is chosen.
    """

    name: str
    build: Callable[[Source, Placement, int | None], Network]
    packages: tuple[str, ...]
    precisions: dict[str, tuple[str, ...]]
    speed: int

    @property
    def installed(self) -> bool:
        """Whether its packages are installed."""
        return all(map(is_installed, self.packages))


BACKENDS: dict[str, Backend] = {}
"""The registered backends by name."""

_Build = TypeVar("_Build", bound=Callable[..., Network])


def register_backend(
    name: str,
    *,
    packages: Sequence[str] = (),
    cpu: Sequence[str] = (),
    cuda: Sequence[str] = (),
    speed: int = 0,
) -> Callable[[_Build], _Build]:
    """Register a class or function as a backend; see :class:`Backend` for the arguments.

    Raises:
        ValueError: the name is taken, or a precision is not one of :data:`PRECISIONS`.
    """
    unknown = {*cpu, *cuda} - {*PRECISIONS}
    if name in BACKENDS or unknown:
        why = f"knows no precision {', '.join(unknown)}" if unknown else "is registered already"
        raise ValueError(f"the backend {name!r} {why}")
    kinds = {kind: tuple(has) for kind, has in (("cpu", cpu), ("cuda", cuda)) if has}

    def register(build: _Build) -> _Build:
        BACKENDS[name] = Backend(name, build, tuple(packages), kinds, speed)
        return build

    return register


def is_installed(package: str) -> bool:
    """Whether a package can be imported, without importing it."""
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def import_or_refuse(module: str, purpose: str, extra: str) -> Any:
    """Import an optional library; DeviceError without it, with the `extra` that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DeviceError(
            f"{purpose} needs the Python package {module!r} ({error}): "
            f"pip install 'siamcar_ros[{extra}]' (in a checkout: pip install '.[{extra}]')"
        ) from error
