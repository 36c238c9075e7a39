"""The step that takes tracks from frame to frame, with one network."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from siamcar_ros.geometry import SEARCH_SIZE, TEMPLATE_SIZE, Box, Image, box_center, context_side
from siamcar_ros.runtime.network import Maps, join_arrays
from siamcar_ros.tracking.calibration import Calibration, observe
from siamcar_ros.tracking.candidate import Point
from siamcar_ros.tracking.crop import crop_square, mean_color
from siamcar_ros.tracking.decode import Grid, decode
from siamcar_ros.tracking.interface import (
    Network,
    TargetError,
    TrackerParams,
    checked_box,
    checked_image,
)
from siamcar_ros.tracking.motion import camera_shift, thumbnail
from siamcar_ros.tracking.online import OnlineModel
from siamcar_ros.tracking.search import COARSE, Region, elsewhere
from siamcar_ros.tracking.stored_image import StoredImage
from siamcar_ros.tracking.track import Sighting, Track

logger = logging.getLogger(__name__)


class TrackingEngine:
    """Starts tracks and advances them from frame to frame, with one network.

    It has buffers for `max_targets` crops and keeps no track.
    """

    def __init__(self, network: Network, max_targets: int) -> None:
        self.network = network
        self.timings = dict.fromkeys(("crop", "network", "decode"), 0.0)
        self._runner: Any = (
            network if getattr(network, "takes_pixels", False) else _adapted(network)
        )
        stride = getattr(network, "stride", 8)
        self._grid = Grid(network.score_size, stride)
        self._calibration = Calibration.of(getattr(network, "calibration", None))
        # The decoder reads a peak on the middle cell as no motion, so the last center belongs on
        # that cell's search pixel: 128 of 0..254 for the ResNets, one past the middle.
        self._reference_index = network.offset + stride * (network.score_size - 1) / 2
        self._crops = self._buffer(max_targets)

    def join(self, templates: Sequence[Any]) -> Any:
        """Templates of single targets as one batch."""
        return getattr(self._runner, "join", join_arrays)(templates)

    def start(
        self, image: Image | StoredImage, box: Sequence[float] | NDArray[Any], params: TrackerParams
    ) -> Track:
        """A track of the target in `box`."""
        image = checked_image(image)
        target = checked_box(box, image)
        padding, center, size = mean_color(image), box_center(target), target[2:]
        pixels = float(context_side(*size)) / TEMPLATE_SIZE

        def template(factor: float) -> Any:
            crop = np.empty((1, TEMPLATE_SIZE, TEMPLATE_SIZE, 3), np.uint8)
            middle = (TEMPLATE_SIZE - 1) / 2
            crop_square(image, center, factor * pixels, middle, padding, crop[0])
            return self._runner.template(crop)

        track = Track(template(1.0), padding, center, size)
        if params.redetect and params.search_regions:
            track = replace(track, coarse_template=template(COARSE))
        if not params.online:
            return track
        if not getattr(self._runner, "gives_features", False):
            name = getattr(self.network, "name", type(self.network).__name__)
            logger.warning("%s gives no features: no model of the target is learned", name)
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
        candidates: Sequence[Box] = (),
        motion: Sequence[Point | None] | None = None,
    ) -> list[Track]:
        """The tracks after `image`, found with one call of the network, and one or two more for
        each LOST one that is looked for in the whole frame.

        Args:
            image: the next frame.
            tracks: at most `max_targets`.
            template: their templates as one batch, in their order.
            params: for all of them.
            candidates: boxes (x, y, w, h) in which a LOST target is looked for in turn, image
                pixels.
            motion: by how many image pixels a sensor says that the camera has moved each target;
                None where it is not known.

        Raises:
            TargetError: the image cannot be tracked; a candidate or a motion is not finite.
            RuntimeError: the network's maps are of the wrong shape or not finite.
        """
        image = checked_image(image)
        self.timings = dict.fromkeys(self.timings, 0.0)
        frame_size = (image.shape[1], image.shape[0])
        measured = motion or [None] * len(tracks)
        given = [*candidates, *(moved for moved in measured if moved is not None)]
        if not all(math.isfinite(value) for each in given for value in each):
            raise TargetError("a candidate's box or the camera's motion is not finite")
        tracks = [
            track if moved is None else track.shifted(moved)
            for track, moved in zip(tracks, measured, strict=True)
        ]
        view: NDArray[np.uint8] | None = None
        shifts: list[Point | None] = [None] * len(tracks)
        if params.camera_motion:
            begin = perf_counter()
            view, shifts = _camera_shifts(image, tracks, measured)
            tracks = [
                track if shift is None else track.carried(shift)
                for track, shift in zip(tracks, shifts, strict=True)
            ]
            self.timings["crop"] += perf_counter() - begin
        regions = [track.region(frame_size, params) for track in tracks]
        seen = self._look(image, tracks, regions, template, params)
        advanced = [
            track.after(sighting, shift, view, frame_size, params)
            for track, sighting, shift in zip(tracks, seen, shifts, strict=True)
        ]
        for i, track in enumerate(advanced):
            if params.camera_motion and track.view is None and track.follows_camera:
                # It was TRACKING until now, so that no thumbnail may have been made.
                view = thumbnail(image) if view is None else view
                advanced[i] = track = replace(track, view=view)
            if params.search_regions and track.seeking(params) and track.candidate is None:
                advanced[i] = self._search(image, track, candidates, params)
        return advanced

    def _search(
        self,
        image: Image | StoredImage,
        track: Track,
        candidates: Sequence[Box],
        params: TrackerParams,
    ) -> Track:
        """The LOST track after a search of the regions whose turn it is.

        All regions but one are placed on candidates, if there are enough. A single region goes to a
        candidate and to the rest of the frame by turns.
        """
        budget, frames, turn = params.search_regions, track.lost_frames, track.offered
        at_candidates = min(len(candidates), budget - 1)
        if candidates and budget == 1:
            turn, at_candidates = divmod(turn, 2)
            frames //= 2
        regions = [
            Region(box_center(candidates[(turn * at_candidates + i) % len(candidates)]), 1.0)
            for i in range(at_candidates)
        ]
        frame_size, side = (image.shape[1], image.shape[0]), track.pixels_per_sample * SEARCH_SIZE
        regions += elsewhere(
            track.center,
            side,
            frame_size,
            frames * (budget - at_candidates),
            budget - at_candidates,
            coarse=track.coarse_template is not None,
        )
        fine = replace(params, window_influence=0.0, lr=1.0)
        # The model learned online knows the target at its usual scale only.
        coarse = replace(fine, online=False)
        seen = []
        for template, knobs in ((track.template, fine), (track.coarse_template, coarse)):
            part = [each for each in regions if each.coarse is (knobs is coarse)]
            if part:
                seen += self._look(image, [track] * len(part), part, template, knobs)
        rest = replace(track, offered=track.offered + bool(candidates))
        return rest.considering(seen, params)

    def _look(
        self,
        image: Image | StoredImage,
        tracks: Sequence[Track],
        regions: Sequence[Region],
        template: Any,
        params: TrackerParams,
    ) -> list[Sighting]:
        """What each region shows of its track's target."""
        begin, n = perf_counter(), len(regions)
        if n > len(self._crops):
            self._crops = self._buffer(n)
        crops = self._crops[:n]
        pixels = [
            track.pixels_per_sample * region.factor
            for track, region in zip(tracks, regions, strict=True)
        ]

        # One after another: a crop takes some tenths of a millisecond, in several short calls of
        # OpenCV, so that threads wait for the interpreter's lock rather than work.
        for track, region, per_sample, crop in zip(tracks, regions, pixels, crops, strict=True):
            index = self._reference_index
            crop_square(image, region.center, per_sample, index, track.padding, crop)
        cropped = perf_counter()
        models = [track.online if params.online else None for track in tracks]
        if any(models):
            maps, features = self._runner.observe(crops, template)
        else:
            maps, features = self._runner(crops, template), [None] * n
        maps = _checked(maps, n, self._grid.score_size)
        answered = perf_counter()
        responses = [
            None if model is None else model.respond(part)
            for model, part in zip(models, features, strict=True)
        ]
        size = np.array([track.shown.size for track in tracks])
        last = np.array([region.center for region in regions])
        scale = 1 / np.array(pixels)
        decoded = decode(self._grid, maps, size, scale, params)
        cell = (scale / self._grid.stride)[:, None]
        middle = (self._grid.score_size - 1) / 2
        cells = np.hstack((decoded.shift * cell + middle, decoded.size * cell)).tolist()
        confidence = [
            1.0 if model is None or response is None else model.confidence(response, box)
            for model, response, box in zip(models, responses, cells, strict=True)
        ]
        score, evidence = decoded.score, np.zeros((n, 0))
        if params.calibrated and self._calibration is not None:
            frame_size = (image.shape[1], image.shape[0])
            usual = np.array([track.usual_peak for track in tracks])
            evidence = observe(
                self._grid, maps, decoded, last, size, scale, usual, confidence, frame_size
            )
            learned = np.array([model is not None for model in models])
            score = self._calibration.chance(evidence, learned)
        columns = (
            (last + decoded.shift).tolist(),
            decoded.size.tolist(),
            score.tolist(),
            decoded.score.tolist(),
            map(tuple, evidence.tolist()),
            confidence,
            features,
            cells,
        )
        sightings = [Sighting(*row) for row in zip(*columns, strict=True)]
        end = perf_counter()
        for name, spent in (
            ("crop", cropped - begin),
            ("network", answered - cropped),
            ("decode", end - answered),
        ):
            self.timings[name] += spent
        return sightings

    def _buffer(self, n: int) -> NDArray[np.uint8]:
        allocate = getattr(self._runner, "pixel_buffer", np.empty)
        buffer: NDArray[np.uint8] = allocate((n, SEARCH_SIZE, SEARCH_SIZE, 3), np.uint8)
        return buffer


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


def _camera_shifts(
    image: Image | StoredImage, tracks: Sequence[Track], measured: Sequence[Point | None]
) -> tuple[NDArray[np.uint8] | None, list[Point | None]]:
    """The frame's thumbnail and, for each track, the camera's shift since the last frame.

    A shift is in image pixels, and (0, 0) where a sensor has `measured` it, as the track has been
    moved by that already. Either is None where no track needs it.
    """
    view = thumbnail(image) if any(track.wants_view for track in tracks) else None
    frame_size = (image.shape[1], image.shape[0])
    shifts: list[Point | None] = []
    known: dict[int, Point] = {}  # tracks often share the view of the last frame
    for track, moved in zip(tracks, measured, strict=True):
        before = track.view
        if not track.follows_camera:
            shifts.append(None)
        elif moved is not None or before is None or view is None:
            shifts.append((0.0, 0.0))
        else:
            if id(before) not in known:
                known[id(before)] = camera_shift(before, view, frame_size)
            shifts.append(known[id(before)])
    return view, shifts


def _adapted(network: Any) -> Any:
    from siamcar_ros.runtime.tensors import TensorAdapter

    return TensorAdapter(network)
