"""What goes into a tracker and what comes out; the part of a network that it uses."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from siamcar_ros.geometry import Box, Image
from siamcar_ros.options import check_choice, setting
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
            While the target is LOST, where something that may be it is being looked at, or else
            where it is expected.
        score: in [0, 1]: near the chance that the box overlaps the target by more than half, where
            the network is calibrated, else `raw_score`. The calibrated score of a LOST target is
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
    """The knobs of a tracker; each one's metadata says what it does and which values it takes.

    They are parameters of the node, too.

    Raises:
        ValueError: a value is of the wrong type or out of range; the message names it.
    """

    decoder: str = setting("upsampled", "How the box is decoded from the maps.", choices=DECODERS)
    penalty_k: float = setting(
        0.04, "Penalty on changes of the box's size and aspect ratio.", range=(0.0, 10.0)
    )
    window_influence: float = setting(
        0.44, "Weight of the cosine window that favors small motion.", range=(0.0, 1.0)
    )
    lr: float = setting(
        0.33,
        "Share of a new size that is adopted in one frame; the decoder paper adopts all of it.",
        range=(0.0, 1.0),
    )
    calibrated: bool = setting(True, "Judge by the calibrated score, if the network has one.")
    uncertain_below: float = setting(
        0.5, "Score below which a frame is UNCERTAIN.", range=(0.0, 1.0)
    )
    certain_above: float = setting(
        0.5,
        "Score from which an UNCERTAIN or LOST target counts as seen; at least uncertain_below.",
        range=(0.0, 1.0),
    )
    lost_below: float = setting(
        0.25,
        "Score below which a frame counts towards LOST, the more the lower it is; at most "
        "uncertain_below. A frame above it lowers the count likewise, and one that scores "
        "certain_above resets it.",
        range=(0.0, 1.0),
    )
    lost_after: int = setting(
        10,
        "Number of frames with a score of 0 after which a target is LOST; three times as many "
        "consecutive UNCERTAIN frames have the same effect.",
        range=(1, 100000),
    )
    found_above: float = setting(
        0.0,
        "Score required of a LOST target beyond the region around its expected place; no effect "
        "below certain_above.",
        range=(0.0, 1.0),
    )
    found_after: int = setting(
        1, "Number of frames that must show a LOST target before it is TRACKING.", range=(1, 1000)
    )
    camera_motion: bool = setting(
        False,
        "While a target is not seen, move its box by the camera's motion and by its own velocity.",
    )
    redetect: bool = setting(False, "Search for a LOST target around its expected place.")
    search_regions: int = setting(
        0,
        "Regions of each image, besides the one around its expected place, in which a LOST target "
        "is searched for, so that the whole image is covered in turn.",
        range=(0, 1000),
    )
    online: bool = setting(
        False,
        "Learn a model of each target while it is followed, from its start on, if the network "
        "gives features.",
    )

    def __post_init__(self) -> None:
        for each in fields(TrackerParams):
            _check_knob(each.name, getattr(self, each.name), type(each.default), each.metadata)
        if self.lost_below > self.uncertain_below:
            raise ValueError(
                f"lost_below {self.lost_below:g} must not exceed uncertain_below "
                f"{self.uncertain_below:g}: set both at once (set_parameters_atomically), or "
                "lower lost_below before uncertain_below, or raise uncertain_below before it"
            )

    @property
    def certain(self) -> float:
        """The score from which an UNCERTAIN or LOST target counts as seen."""
        return max(self.certain_above, self.uncertain_below)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The names of all parameters."""
        return tuple(field.name for field in fields(cls))


def _check_knob(name: str, value: object, kind: type, meta: Mapping[str, Any]) -> None:
    if kind is str:
        check_choice(name, value, meta["choices"])
    elif kind is bool:
        if not isinstance(value, bool):
            raise ValueError(f"{name} is true or false, not {shortened(value)}")
    else:
        numbers = (int,) if kind is int else (int, float, np.integer, np.floating)
        if isinstance(value, bool) or not isinstance(value, numbers):
            what = "a whole number" if kind is int else "a number"
            raise ValueError(f"{name} is {what}, not {shortened(value)}")
        low, high = meta["range"]
        if not low <= value <= high:
            raise ValueError(f"{name} must be from {low:g} to {high:g}, not {value}")


def checked_image(image: object) -> Image | StoredImage:
    """`image` if a tracker can use it; TargetError says why not."""
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
    """`box` as four floats if it is a target in `image`; TargetError says why not."""
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
