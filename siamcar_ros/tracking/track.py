"""One target's state, and the step that takes it from frame to frame.

A network holds no state. A :class:`Track` holds all of it, is immutable, and is replaced when a
frame is done, so any number of trackers can share a network, and a call that fails leaves its
tracks unchanged.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from siamcar_ros.geometry import (
    SEARCH_SIZE,
    TEMPLATE_SIZE,
    Image,
    box_around,
    box_center,
    context_side,
)
from siamcar_ros.runtime.network import Maps, join_arrays
from siamcar_ros.tracking.crop import crop_square, mean_color
from siamcar_ros.tracking.decode import Decoded, Grid, decode
from siamcar_ros.tracking.interface import (
    Network,
    TrackerParams,
    TrackResult,
    TrackState,
    checked_box,
    checked_image,
)
from siamcar_ros.tracking.online import OnlineModel, sure
from siamcar_ros.tracking.stored_image import StoredImage

logger = logging.getLogger(__name__)

_MIN_SIDE = 1.0  # image pixels; a followed box never gets smaller
# A LOST target is searched for in regions of these multiples of the usual side, one a frame, in
# turn. The usual one comes last: the target has just been missed there.
_SEARCH_FACTORS = (1.5, 2.0, 3.0, 1.0)


@dataclass(frozen=True)
class Track:
    """Everything that is known of one target.

    Attributes:
        template: the network's features of it.
        padding: BGR beyond the border: the mean of the frame on which it was started.
        center, size: of its box, image pixels.
        score, state: as in :class:`TrackResult`.
        low_frames: frames in a row, up to the last, scored below ``lost_below``.
        online: what has been learned of it; None where nothing is to be.
        confidence: that of `online` in the box, see :meth:`OnlineModel.confidence`.
    """

    template: Any
    padding: tuple[float, float, float]
    center: tuple[float, float]
    size: tuple[float, float]
    score: float = 1.0
    state: TrackState = TrackState.TRACKING
    low_frames: int = 0
    online: OnlineModel | None = None
    confidence: float = 1.0

    @property
    def result(self) -> TrackResult:
        """The public view of the track."""
        return TrackResult(box_around(self.center, self.size), self.score, self.state)

    def seeking(self, params: TrackerParams) -> bool:
        """Whether the next frame looks for the target rather than follows it."""
        return params.redetect and self.state is TrackState.LOST

    def pixels_per_sample(self, params: TrackerParams) -> float:
        """Image pixels per pixel of the next frame's search region."""
        pixels = float(context_side(*self.size)) / TEMPLATE_SIZE
        if self.seeking(params):
            frames = self.low_frames - params.lost_after
            pixels *= _SEARCH_FACTORS[frames % len(_SEARCH_FACTORS)]
        return pixels

    def moved(
        self,
        shift: Sequence[float],
        size: Sequence[float],
        score: float,
        frame_size: tuple[int, int],
        params: TrackerParams,
    ) -> Track:
        """The track after a frame.

        Args:
            shift: of the center, (x, y) image pixels.
            size: the new (w, h), image pixels.
            score: in [0, 1].
            frame_size: (width, height); the center stays inside, the box gets no larger.
            params: thresholds of the state.
        """
        (cx, cy), (w, h), (width, height) = self.center, size, frame_size
        low_frames = self.low_frames + 1 if score < params.lost_below else 0
        if self.seeking(params) and score < params.uncertain_below:
            held = (_clamped(cx, 0.0, width), _clamped(cy, 0.0, height))
            return replace(self, center=held, score=score, low_frames=self.low_frames + 1)
        if low_frames >= params.lost_after:
            state = TrackState.LOST
        elif score < params.uncertain_below:
            state = TrackState.UNCERTAIN
        else:
            state = TrackState.TRACKING
        return replace(
            self,
            center=(_clamped(cx + shift[0], 0.0, width), _clamped(cy + shift[1], 0.0, height)),
            size=(_clamped(w, _MIN_SIDE, width), _clamped(h, _MIN_SIDE, height)),
            score=score,
            state=state,
            low_frames=low_frames,
        )


class TrackingEngine:
    """Starts tracks and advances them from frame to frame, with one network.

    It has buffers for `max_targets` crops and keeps no track.
    """

    def __init__(self, network: Network, max_targets: int) -> None:
        self.network = network
        self.timings = dict.fromkeys(("crop", "network", "decode"), 0.0)
        pixels = getattr(network, "takes_pixels", False)
        self._runner: Any = network if pixels else _adapted(network)
        stride = getattr(network, "stride", 8)
        self._grid = Grid(network.score_size, stride)
        # The decoder reads a peak on the middle cell as no motion, so the last center belongs on
        # that cell's search pixel: 128 of 0..254 for the ResNets, one past the middle.
        self._reference_index = network.offset + stride * (network.score_size - 1) / 2
        shape = (max_targets, SEARCH_SIZE, SEARCH_SIZE, 3)
        allocate = getattr(self._runner, "pixel_buffer", np.empty)
        self._crops: NDArray[np.uint8] = allocate(shape, np.uint8)
        self._pool = ThreadPoolExecutor(min(max_targets, os.cpu_count() or 1), "crop")

    def join(self, templates: Sequence[Any]) -> Any:
        """Templates of single targets as one batch."""
        return getattr(self._runner, "join", join_arrays)(templates)

    def start(
        self,
        image: Image | StoredImage,
        box: Sequence[float] | NDArray[Any],
        params: TrackerParams,
    ) -> Track:
        """A track of the target in `box`.

        Raises:
            TargetError: the image or the box cannot be tracked.
        """
        image = checked_image(image)
        target = checked_box(box, image)
        padding, center, size = mean_color(image), box_center(target), target[2:]
        crop = np.empty((1, TEMPLATE_SIZE, TEMPLATE_SIZE, 3), np.uint8)
        pixels = float(context_side(*size)) / TEMPLATE_SIZE
        crop_square(image, center, pixels, (TEMPLATE_SIZE - 1) / 2, padding, crop[0])
        track = Track(self._runner.template(crop), padding, center, size)
        if not params.online:
            return track
        if not getattr(self._runner, "gives_features", False):
            logger.warning("%r gives no features: no model of the target is learned", self.network)
            return track
        region = self._crops[:1]
        crop_square(image, center, pixels, self._reference_index, padding, region[0])
        _, features = self._runner.observe(region, track.template)
        cell, middle = pixels * self._grid.stride, (self._grid.score_size - 1) / 2
        cells = (middle, middle, size[0] / cell, size[1] / cell)
        return replace(track, online=OnlineModel.start(features[0], cells))

    def advance(
        self,
        image: Image | StoredImage,
        tracks: Sequence[Track],
        template: Any,
        params: TrackerParams,
    ) -> list[Track]:
        """The tracks after `image`, found with one call of the network.

        Args:
            image: the next frame.
            tracks: at most `max_targets`.
            template: their templates as one batch, in their order.
            params: for all of them.

        Raises:
            TargetError: the image cannot be tracked.
            RuntimeError: the network's maps are of the wrong shape or not finite.
        """
        begin = perf_counter()
        image = checked_image(image)
        n = len(tracks)
        crops = self._crops[:n]
        pixels = [track.pixels_per_sample(params) for track in tracks]

        def cut(track: Track, per_sample: float, crop: NDArray[np.uint8]) -> None:
            index = self._reference_index
            crop_square(image, track.center, per_sample, index, track.padding, crop)

        # OpenCV releases the interpreter's lock: crops are cut in parallel where cores are idle.
        list((self._pool.map if n > 1 else map)(cut, tracks, pixels, crops))
        cropped = perf_counter()
        models = [track.online for track in tracks] if params.online else []
        if any(models):
            maps, features = self._runner.observe(crops, template)
        else:
            maps, features = self._runner(crops, template), []
        maps = _checked(maps, n, self._grid.score_size)
        answered = perf_counter()
        size = np.array([track.size for track in tracks])
        decoded = decode(self._grid, maps, size, 1 / np.array(pixels), params)
        frame_size = (image.shape[1], image.shape[0])
        advanced = [
            track.moved(shift, size, score, frame_size, params)
            for track, shift, size, score in zip(tracks, *_as_lists(decoded), strict=True)
        ]
        if len(features):
            advanced = [*map(self._judged, tracks, advanced, features, pixels)]
        end = perf_counter()
        self.timings = {
            "crop": cropped - begin,
            "network": answered - cropped,
            "decode": end - answered,
        }
        return advanced

    def _judged(self, before: Track, track: Track, features: Any, per_sample: float) -> Track:
        """The track with what its online model says of it, taught where both are sure."""
        if (model := track.online) is None:
            return track
        cell, middle = per_sample * self._grid.stride, (self._grid.score_size - 1) / 2
        x, y = np.subtract(track.center, before.center) / cell + middle
        box = (x, y, track.size[0] / cell, track.size[1] / cell)
        confidence = model.confidence(model.respond(features), box)
        if track.state is TrackState.TRACKING and sure(track.score, confidence):
            model = model.learn(features, box)
        return replace(track, online=model, confidence=confidence)


def _checked(maps: Sequence[Any], batch: int, score_size: int) -> Maps:
    """The three maps, if they are what they should be."""
    arrays = Maps(*maps)
    for name, part, channels in zip(Maps._fields, arrays, (2, 4, 1), strict=True):
        expected = (batch, channels, score_size, score_size)
        if part.shape != expected:
            raise RuntimeError(f"the network's {name} map is {part.shape}, expected {expected}")
        # One value that is not finite spoils the sum. A distance may overflow where no target is,
        # but it is a number.
        spoilt = math.isnan(part.min()) if name == "reg" else not math.isfinite(part.sum())
        if spoilt:
            raise RuntimeError(
                f"the network's {name} map is not finite: check its weights and precision"
            )
    return arrays


def _as_lists(decoded: Decoded) -> tuple[list[list[float]], list[list[float]], list[float]]:
    return decoded.shift.tolist(), decoded.size.tolist(), decoded.score.tolist()


def _adapted(network: Any) -> Any:
    from siamcar_ros.runtime.tensors import TensorAdapter

    return TensorAdapter(network)


def _clamped(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)
