"""What goes into a tracker and what comes out; the part of a network that it uses."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from siamcar_ros.geometry import Box, Image
from siamcar_ros.resources import shortened
from siamcar_ros.tracking.stored_image import CHANNELS, StoredImage

DECODERS: dict[str, Callable[..., Any]] = {}
"""The registered decoders by name; see :func:`siamcar_ros.tracking.decode.register_decoder`."""


class TargetError(ValueError):
    """A box or an image that cannot be tracked; the message says why. The track is unchanged."""


class Network(Protocol):
    """What a tracker uses of :class:`siamcar_ros.runtime.Network` or :class:`~.model.SiamCAR`.

    A network whose attribute ``takes_pixels`` is true is given numpy arrays, the uint8 crops
    (B, n, n, 3), and returns numpy arrays. Any other one is given PyTorch tensors, float32
    (B, 3, n, n) on the device that its attribute ``device`` or its parameters name. Inputs are
    valid during the call only. ``stride`` is 8 where it has no such attribute.
    """

    score_size: int
    offset: int

    def template(self, z: Any) -> Any:
        """The target's features from z (B, 3, 127, 127), BGR 0..255."""

    def __call__(self, x: Any, template: Any) -> tuple[Any, Any, Any]:
        """From x (B, 3, 255, 255): cls (B, 2, S, S), reg (B, 4, S, S), cen (B, 1, S, S)."""


class TrackState(Enum):
    """How certain a track is of its target."""

    TRACKING = "tracking"
    UNCERTAIN = "uncertain"
    LOST = "lost"


class TrackResult(NamedTuple):
    """Where the target is in one frame.

    Attributes:
        box: (x, y, w, h) in image pixels, 0-based, top-left, floats; may reach past the border.
            While the target is LOST, where it is expected.
        score: in [0, 1]: near the chance that the box overlaps the target by more than half, where
            the network is calibrated, else `raw_score`. While a LOST target is searched for, the
            box is the best place found; as it has not been accepted, its calibrated score is
            reduced to a quarter.
        state: what the scores up to this frame say of the track.
        raw_score: in [0, 1], the network's foreground probability; NaN where it is not known.
    """

    box: Box
    score: float
    state: TrackState
    raw_score: float = math.nan


@dataclass(frozen=True)
class TrackerParams:
    """The knobs of a tracker.

    Attributes:
        decoder: one of :data:`DECODERS`: "upsampled" is the authors' code, "paper" is their
            Equation 9, "regressed" the code's place with the box regressed there; see
            :mod:`siamcar_ros.tracking.decode`.
        penalty_k: how strongly a change of size or aspect ratio lowers a cell's score, >= 0.
        window_influence: weight in [0, 1] of the cosine window, which favors small motion.
        lr: share in [0, 1] of a new size that a sure frame takes over. "paper" does not smooth.
        calibrated: judge by the calibrated score where the network has one.
        uncertain_below: score in [0, 1] below which a frame is UNCERTAIN.
        certain_above: score in [0, 1] from which an UNCERTAIN or LOST target counts as seen; a
            value below ``uncertain_below`` is raised to it.
        lost_below: score in [0, uncertain_below] below which a frame counts toward LOST: fully at a
            score of 0, half at half of ``lost_below``. A frame above it subtracts as much, and one
            that scores ``certain_above`` resets the count.
        lost_after: count, >= 1, at which a target is LOST; so it is after three times as many
            consecutive UNCERTAIN frames.
        found_above: score in [0, 1] required of a LOST target beyond the region around its expected
            place; no effect below ``certain_above``.
        found_after: number of frames, >= 1, that must show a LOST target before it is TRACKING.
        camera_motion: while a target is not seen, move its box by the camera's motion and by the
            target's own velocity.
        redetect: search for a LOST target around its expected place and, with ``search_regions``,
            in the whole frame.
        search_regions: number of further regions of each frame in which to search, >= 0.
        online: learn a model of each target while it is followed, from its start on; see
            :mod:`siamcar_ros.tracking.online`. It needs a network that gives features.
    """

    decoder: str = "upsampled"
    penalty_k: float = 0.04
    window_influence: float = 0.44
    lr: float = 0.33
    calibrated: bool = True
    uncertain_below: float = 0.5
    certain_above: float = 0.5
    lost_below: float = 0.25
    lost_after: int = 10
    found_above: float = 0.0
    found_after: int = 1
    camera_motion: bool = False
    redetect: bool = False
    search_regions: int = 0
    online: bool = False

    def __post_init__(self) -> None:
        if self.decoder not in DECODERS:
            known = ", ".join(DECODERS)
            raise ValueError(f"decoder is one of {known}, not {shortened(self.decoder)}")
        _require_number("penalty_k", self.penalty_k, 0.0, math.inf)
        for name in ("window_influence", "lr", "uncertain_below", "certain_above", "found_above"):
            _require_number(name, getattr(self, name), 0.0, 1.0)
        _require_number("lost_below", self.lost_below, 0.0, self.uncertain_below)
        for name, least in (("lost_after", 1), ("found_after", 1), ("search_regions", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise ValueError(f"{name} is a whole number, not {shortened(value)}")
            if value < least:
                raise ValueError(f"{name} is at least {least}, not {value}")
        for name in ("calibrated", "camera_motion", "redetect", "online"):
            if not isinstance(value := getattr(self, name), bool):
                raise ValueError(f"{name} is true or false, not {shortened(value)}")

    @property
    def certain(self) -> float:
        """The score from which an UNCERTAIN or LOST target counts as seen."""
        return max(self.certain_above, self.uncertain_below)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The names of all parameters."""
        return tuple(field.name for field in fields(cls))


def _require_number(name: str, value: object, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise ValueError(f"{name} is a number, not {shortened(value)}")
    if not (low <= value <= high and math.isfinite(value)):
        limits = f"at least {low}" if high == math.inf else f"in [{low}, {high}]"
        raise ValueError(f"{name} is {limits}, not {value}")


def checked_image(image: object) -> Image | StoredImage:
    """`image` if a tracker can use it.

    Raises:
        TargetError: it is not a uint8 array of one of the shapes of
            :data:`~siamcar_ros.geometry.Image`, or is empty; or a stored image's order is unknown
            or does not fit its shape.
    """
    if isinstance(image, StoredImage):
        channels = CHANNELS.get(image.order)
        if channels is None:
            raise TargetError(
                f"an image's order is one of {', '.join(CHANNELS)}, not {shortened(image.order)}"
            )
        shape = checked_image(image.array).shape
        if shape[2:] != channels:
            wanted = ", ".join(map(str, ("H", "W", *channels)))
            raise TargetError(f"an image of order {image.order!r} is ({wanted}), not {shape}")
        return image
    if not isinstance(image, np.ndarray):
        hint = "; did reading it fail?" if image is None else ""
        raise TargetError(f"an image is a numpy array, not {type(image).__name__}{hint}")
    if image.dtype != np.uint8:
        raise TargetError(f"an image is uint8, not {image.dtype}")
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)):
        raise TargetError(
            f"an image is (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), not {image.shape}"
        )
    if image.size == 0:
        raise TargetError(f"the image is empty: {image.shape}")
    return image


MIN_BOX_SIDE, MAX_BOX_SIDE = 1e-3, 1e6


def checked_box(box: Sequence[float] | NDArray[Any], image: Image | StoredImage) -> Box:
    """`box` as four floats if it is a target in `image`.

    Raises:
        TargetError: it is not four finite numbers, has no area, is vanishingly small or huge, or
            lies wholly outside.
    """
    try:
        values = np.asarray(box, np.float64)
    except (TypeError, ValueError) as error:
        raise TargetError(f"a box is four numbers x, y, w, h, not {shortened(box)}") from error
    if values.shape != (4,):
        raise TargetError(f"a box is four numbers x, y, w, h, not of shape {values.shape}")
    x, y, w, h = values.tolist()
    told = f"box x={x:g} y={y:g} w={w:g} h={h:g}"
    if not np.isfinite(values).all():
        raise TargetError(f"{told} is not finite")
    if w <= 0 or h <= 0:
        raise TargetError(f"{told} has no area: width and height must be positive")
    if min(w, h) < MIN_BOX_SIDE:
        raise TargetError(f"{told} is narrower than {MIN_BOX_SIDE:g} pixels")
    if max(w, h) > MAX_BOX_SIDE:
        raise TargetError(f"{told} is larger than {MAX_BOX_SIDE:g} pixels")
    height, width = image.shape[:2]
    if x >= width or y >= height or x + w <= 0 or y + h <= 0:
        raise TargetError(f"{told} lies wholly outside the {width}x{height} image")
    return x, y, w, h
