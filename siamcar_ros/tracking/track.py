"""One target's state, and the step that takes it from frame to frame.

A network holds no state; a :class:`Track` holds all of it, is never changed, and is replaced when a
frame is done. So any number of trackers share a network, and a call that fails leaves its tracks
as they were.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from siamcar_ros.geometry import Image
from siamcar_ros.tracking.crop import (
    SEARCH_SIZE,
    TEMPLATE_SIZE,
    crop_square,
    mean_colour,
    template_side,
    to_planes,
)
from siamcar_ros.tracking.decode import STRIDE, Decoded, Decoder, Maps
from siamcar_ros.tracking.interface import (
    Network,
    TrackerParams,
    TrackResult,
    TrackState,
    checked_box,
    checked_image,
)
from siamcar_ros.tracking.stored_image import StoredImage

_MIN_SIDE = 1.0  # image pixels; a followed box never gets smaller
# A LOST target is sought in regions so many times the usual side, one a frame, over and over. In
# the usual one it has just been missed.
_SEARCH_FACTORS = (1.5, 2.0, 3.0, 1.0)


@dataclass(frozen=True)
class Track:
    """All that is known of one target.

    Attributes:
        template: the network's features of it.
        padding: BGR beyond the border: the mean of the frame it was started on.
        centre, size: of its box, image pixels; the centre of (x, y, w, h) is (x + w/2, y + h/2).
        score, state: as in :class:`TrackResult`.
        low_frames: frames in a row, up to the last, scored below ``lost_below``.
    """

    template: Any
    padding: tuple[float, float, float]
    centre: tuple[float, float]
    size: tuple[float, float]
    score: float = 1.0
    state: TrackState = TrackState.TRACKING
    low_frames: int = 0

    @property
    def result(self) -> TrackResult:
        """The track as its user sees it."""
        (cx, cy), (w, h) = self.centre, self.size
        return TrackResult((cx - w / 2, cy - h / 2, w, h), self.score, self.state)

    def seeking(self, params: TrackerParams) -> bool:
        """Whether the next frame looks for the target rather than follows it."""
        return params.redetect and self.state is TrackState.LOST

    def search_step(self, params: TrackerParams) -> float:
        """Image pixels per pixel of the next frame's search region."""
        step = template_side(*self.size) / TEMPLATE_SIZE
        if self.seeking(params):
            frames = self.low_frames - params.lost_after
            step *= _SEARCH_FACTORS[frames % len(_SEARCH_FACTORS)]
        return step

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
            shift: of the centre, (x, y) image pixels.
            size: the new (w, h), image pixels.
            score: in [0, 1].
            frame_size: (width, height); the centre stays inside, the box gets no larger.
            params: thresholds of the state.
        """
        (cx, cy), (w, h), (width, height) = self.centre, size, frame_size
        low_frames = self.low_frames + 1 if score < params.lost_below else 0
        if self.seeking(params) and score < params.uncertain_below:
            held = (_clamped(cx, 0.0, width), _clamped(cy, 0.0, height))
            return replace(self, centre=held, score=score, low_frames=self.low_frames + 1)
        if low_frames >= params.lost_after:
            state = TrackState.LOST
        elif score < params.uncertain_below:
            state = TrackState.UNCERTAIN
        else:
            state = TrackState.TRACKING
        return replace(
            self,
            centre=(_clamped(cx + shift[0], 0.0, width), _clamped(cy + shift[1], 0.0, height)),
            size=(_clamped(w, _MIN_SIDE, width), _clamped(h, _MIN_SIDE, height)),
            score=score,
            state=state,
            low_frames=low_frames,
        )


class Follower:
    """Starts tracks and takes them through frames, on one network.

    It keeps buffers for `max_targets` crops and no track.
    """

    def __init__(self, network: Network, max_targets: int) -> None:
        self.network = network
        self.timings = dict.fromkeys(("crop", "network", "decode"), 0.0)
        self._decoder = Decoder(network.score_size)
        self._device = _device_of(network)
        self._takes_pixels = bool(getattr(network, "takes_pixels", False))
        # The decoder reads a peak on the middle cell as no motion, so the last centre belongs on
        # that cell's search pixel: 128 of 0..254 for the ResNets, one past the middle.
        self._anchor = network.offset + STRIDE * (network.score_size - 1) / 2
        shape = (max_targets, SEARCH_SIZE, SEARCH_SIZE, 3)
        self._crops = torch.empty(
            shape, dtype=torch.uint8, pin_memory=self._device.type == "cuda"
        ).numpy()
        self._planes = np.empty((max_targets, 3, SEARCH_SIZE, SEARCH_SIZE), np.float32)
        self._pool = ThreadPoolExecutor(min(max_targets, os.cpu_count() or 1), "crop")

    def start(self, image: Image | StoredImage, box: Sequence[float] | NDArray[Any]) -> Track:
        """A track of the target in `box`.

        Raises:
            TargetError: the image or the box is not one to track.
        """
        image = checked_image(image)
        x, y, w, h = checked_box(box, image)
        padding = mean_colour(image)
        centre = (x + w / 2, y + h / 2)
        crop = np.empty((1, TEMPLATE_SIZE, TEMPLATE_SIZE, 3), np.uint8)
        step = template_side(w, h) / TEMPLATE_SIZE
        crop_square(image, centre, step, (TEMPLATE_SIZE - 1) / 2, padding, crop[0])
        planes = np.empty((1, 3, TEMPLATE_SIZE, TEMPLATE_SIZE), np.float32)
        with torch.inference_mode():
            template = self.network.template(self._uploaded(crop, planes))
        return Track(template, padding, centre, (w, h))

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
            TargetError: the image is not one to track.
            RuntimeError: the network's maps are of the wrong shape or not finite.
        """
        begin = perf_counter()
        image = checked_image(image)
        n = len(tracks)
        crops = self._crops[:n]
        steps = [track.search_step(params) for track in tracks]

        def cut(track: Track, step: float, crop: NDArray[np.uint8]) -> None:
            crop_square(image, track.centre, step, self._anchor, track.padding, crop)

        # OpenCV lets go of the interpreter's lock: crops run side by side on idle cores.
        list((self._pool.map if n > 1 else map)(cut, tracks, steps, crops))
        with torch.inference_mode():
            x = self._uploaded(crops, self._planes[:n])
            cropped = perf_counter()
            maps = _on_host(self.network(x, template), n, self._decoder.score_size)
        answered = perf_counter()
        size = np.array([track.size for track in tracks])
        decoded = self._decoder(maps, size, 1 / np.array(steps), params)
        frame_size = (image.shape[1], image.shape[0])
        advanced = [
            track.moved(shift, size, score, frame_size, params)
            for track, shift, size, score in zip(tracks, *_as_lists(decoded), strict=True)
        ]
        end = perf_counter()
        self.timings = {
            "crop": cropped - begin,
            "network": answered - cropped,
            "decode": end - answered,
        }
        return advanced

    def _uploaded(self, crops: NDArray[np.uint8], planes: NDArray[np.float32]) -> torch.Tensor:
        """(B, n, n, 3) uint8 on the device, as (B, 3, n, n) float32 unless the network takes it so.

        To a device the bytes travel as they are, a quarter of the floats; `planes` is the CPU's
        buffer. The copy need not be waited for: a search region's buffer is written again after
        its maps have come, and a template's, which is not pinned, is read before the call returns.
        """
        if self._device.type == "cpu" and not self._takes_pixels:
            to_planes(crops, planes)
            return torch.from_numpy(planes)
        pixels = torch.from_numpy(crops).to(self._device, non_blocking=True)
        if self._takes_pixels:
            return pixels
        return pixels.permute(0, 3, 1, 2).float()


def _device_of(network: Network) -> torch.device:
    device = getattr(network, "device", None)
    if device is None and isinstance(network, torch.nn.Module):
        device = next(network.parameters(), torch.empty(0)).device
    return torch.device(device or "cpu")


def _on_host(maps: Sequence[Any], batch: int, score_size: int) -> Maps:
    """The three maps as numpy arrays; from another device they come in one copy."""
    cls, reg, cen = maps
    if isinstance(cls, torch.Tensor) and cls.device.type != "cpu":
        joined = torch.cat((cls, reg, cen), 1).float().cpu().numpy()
        cls, reg, cen = joined[:, :2], joined[:, 2:6], joined[:, 6:]
    arrays = Maps(*(_array(part) for part in (cls, reg, cen)))
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


def _array(part: Any) -> NDArray[np.float32]:
    if isinstance(part, torch.Tensor):
        part = part.detach().float().numpy()
    return np.asarray(part, np.float32)


def _as_lists(decoded: Decoded) -> tuple[list[list[float]], list[list[float]], list[float]]:
    return decoded.shift.tolist(), decoded.size.tolist(), decoded.score.tolist()


def _clamped(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)
