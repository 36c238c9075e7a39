"""One target's state, and how a frame changes it.

A network holds no state. A :class:`Track` holds all of it, is immutable, and is replaced when a
frame is done, so any number of trackers can share a network, and a call that fails leaves its
tracks unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from siamcar_ros.geometry import SEARCH_SIZE, TEMPLATE_SIZE, box_around, context_side
from siamcar_ros.tracking.candidate import Candidate, LookAlike, Point, added
from siamcar_ros.tracking.interface import TrackerParams, TrackResult, TrackState
from siamcar_ros.tracking.online import OnlineModel, sure
from siamcar_ros.tracking.search import NEAR_FACTOR, Region, near

_MIN_SIDE = 1.0  # image pixels; a followed box never gets smaller
_KEEP = 0.9  # share of the usual peak that is kept per frame
_KEEP_SCORE = 0.97  # the same for the mean score
_KEEP_SPEED = 0.97  # the same for the velocity of a target that is not seen
_PERIOD = 6  # frames from one measurement of a TRACKING target's velocity to the next
_KEEP_VELOCITY = 0.8  # share of the velocity that is kept per measurement
_FASTEST = 0.5  # limit of the velocity, in box sides per frame
_CLOSE = 0.5  # box sides from a look-alike within which a place is taken for it
_LOST_SHARE = 0.25  # of the calibrated score: LOST boxes scored 0.42 in the mean were right in 11 %
_WORSE = 2.5  # times the usual chance of being wrong: the most for a target that is found again
_WORSE_MOVING = 8.0  # the same for a candidate that moves as the target did
_LONG = 3  # times ``lost_after``: frames in a row after which an UNCERTAIN target is LOST
_UNSEEN = 0.5  # of ``lost_below``: with a lower score the box goes where it is expected
_PATIENCE = 6  # frames that a candidate may take beyond those that confirm it


class Sighting(NamedTuple):
    """Where a frame shows one target.

    Attributes:
        center, size: of the box, image pixels.
        score, raw_score: as in :class:`TrackResult`.
        evidence: as in :func:`~siamcar_ros.tracking.calibration.observe`, if it was asked for.
        confidence: of the model learned online in the box; 1 without one.
        features: (C, S, S) for that model, None without one.
        cells: the box on the score grid, as that model wants it.
    """

    center: Point
    size: Point
    score: float
    raw_score: float
    evidence: tuple[float, ...] = ()
    confidence: float = 1.0
    features: NDArray[np.float32] | None = None
    cells: tuple[float, ...] = ()


@dataclass(frozen=True)
class Track:
    """Everything that is known of one target.

    Attributes:
        template: the network's features of it.
        padding: BGR beyond the border: the mean of the frame on which it was started.
        center, size: of its box, image pixels; of a LOST target, where it is expected.
        score, raw_score, state: as in :class:`TrackResult`.
        doubt: what frames scored below ``lost_below`` add up to, see :class:`TrackerParams`.
        unsure_frames: frames in a row, up to the last, in which it was not TRACKING.
        lost_frames: frames since the target was LOST, 0 while it is not.
        offered: frames since then that came with a detector's boxes.
        high_frames: frames in a row, up to the last, scored at least ``certain_above``.
        frames: number of frames since the start.
        velocity: image pixels per frame, without the camera's motion.
        followed: number of measurements from which the velocity was learned.
        usual_score, usual_peak: running means of the score and of the peak while the target is
            TRACKING; NaN where they are not known.
        evidence, confidence: as in the last :class:`Sighting`.
        candidate: what is looked at while the target is LOST.
        look_alikes: candidates that were wrong.
        coarse_template: the network's features of a wider cutout, to search large frames with;
            None if it was started without a search of the whole frame.
        online: the model learned of it; None if none is learned.
        view: a small gray copy of the last frame, (h, 160) uint8, to compare the next one with;
            None where that is not needed.
    """

    template: Any
    padding: tuple[float, float, float]
    center: Point
    size: Point
    score: float = 1.0
    raw_score: float = 1.0
    state: TrackState = TrackState.TRACKING
    doubt: float = 0.0
    unsure_frames: int = 0
    lost_frames: int = 0
    offered: int = 0
    high_frames: int = 0
    frames: int = 0
    velocity: Point = (0.0, 0.0)
    followed: int = 0
    usual_score: float = math.nan
    usual_peak: float = math.nan
    evidence: tuple[float, ...] = ()
    confidence: float = 1.0
    candidate: Candidate | None = None
    look_alikes: tuple[LookAlike, ...] = ()
    coarse_template: Any = None
    online: OnlineModel | None = None
    view: NDArray[np.uint8] | None = field(default=None, repr=False, compare=False)

    @property
    def result(self) -> TrackResult:
        """The public view of the track."""
        box = box_around(self.shown.center, self.shown.size)
        score = self.score
        if self.evidence and self.state is TrackState.LOST:
            score *= _LOST_SHARE
        return TrackResult(box, score, self.state, self.raw_score)

    @property
    def shown(self) -> Track | Candidate:
        """What is looked at: the candidate, if there is one."""
        return self if self.candidate is None else self.candidate

    @property
    def pixels_per_sample(self) -> float:
        """Image pixels per pixel of a search region of the usual size."""
        return float(context_side(*self.shown.size)) / TEMPLATE_SIZE

    @property
    def side(self) -> float:
        """Of a square as large as the box, image pixels."""
        return math.sqrt(self.size[0] * self.size[1])

    def seeking(self, params: TrackerParams) -> bool:
        """Whether the next frame looks for the target rather than follows it."""
        return params.redetect and self.state is TrackState.LOST

    def region(self, frame_size: tuple[int, int], params: TrackerParams) -> Region:
        """Where the next frame is searched first."""
        if not self.seeking(params):
            return Region(self.center, 1.0)
        if self.candidate is not None:
            return Region(self.candidate.center, 1.0)
        return near(_within(self.center, frame_size), self.lost_frames)

    def shifted(self, motion: Point) -> Track:
        """The track with its places moved by (dx, dy) image pixels, as the camera turns."""
        return replace(
            self,
            center=added(self.center, motion),
            candidate=self.candidate and self.candidate.shifted(motion),
            look_alikes=tuple(each.shifted(motion) for each in self.look_alikes),
        )

    @property
    def follows_camera(self) -> bool:
        """Whether the camera's motion from the last frame to the next has to be measured.

        It has to in every frame for what the network does not follow: a target that is not
        TRACKING, and look-alikes. Otherwise only the velocity depends on it.
        """
        unfollowed = self.state is not TrackState.TRACKING or bool(self.look_alikes)
        return unfollowed or _measures_velocity(self.frames)

    @property
    def wants_view(self) -> bool:
        """Whether the next frame will be compared with the last one or with the one after it."""
        return self.follows_camera or _measures_velocity(self.frames + 1)

    def carried(self, shift: Point) -> Track:
        """The track where the next frame is expected to show it.

        `shift` is the camera's, (x, y) in image pixels.
        """
        if self.state is TrackState.TRACKING:
            look_alikes = tuple(each.shifted(shift) for each in self.look_alikes)
            return replace(self, look_alikes=look_alikes)
        moved = self.shifted(shift)
        vx, vy = self.velocity
        return replace(
            moved,
            center=added(moved.center, self.velocity),
            velocity=(_KEEP_SPEED * vx, _KEEP_SPEED * vy),
        )

    def after(
        self,
        seen: Sighting,
        shift: Point | None,
        view: NDArray[np.uint8] | None,
        frame_size: tuple[int, int],
        params: TrackerParams,
    ) -> Track:
        """The track after a frame.

        Args:
            seen: in its region.
            shift: the camera's, image pixels; None where it was not measured.
            view: the frame's :func:`~siamcar_ros.tracking.motion.thumbnail`, if it was made.
            frame_size: (width, height); the center stays inside, the box gets no larger.
            params: thresholds of the state.
        """
        width, height = frame_size
        w, h = seen.size
        seen = seen._replace(
            center=_within(seen.center, frame_size),
            size=(_clamped(w, _MIN_SIDE, width), _clamped(h, _MIN_SIDE, height)),
        )
        high_frames = self.high_frames + 1 if seen.score >= self._certain(params) else 0
        reach = frame_size if params.camera_motion else (0, 0)
        seeking = self.seeking(params)
        state, doubt, unsure_frames = self.state, self.doubt, self.unsure_frames
        if not seeking:
            state, doubt, unsure_frames = self._judged(seen.score, high_frames, params)
        rest = replace(
            self,
            center=_within(self.center, frame_size, reach),
            score=seen.score,
            raw_score=seen.raw_score,
            evidence=seen.evidence,
            confidence=seen.confidence,
            high_frames=high_frames,
            state=state,
            doubt=doubt,
            unsure_frames=unsure_frames,
            frames=self.frames + 1,
            view=view,
        )
        if seeking:
            return rest._sought(seen, params)
        if params.camera_motion and seen.score < _UNSEEN * params.lost_below:
            return rest
        return rest._moved(seen, shift if _measures_velocity(self.frames) else None)

    def _judged(
        self, score: float, high_frames: int, params: TrackerParams
    ) -> tuple[TrackState, float, int]:
        """State, doubt and unsure frames after a frame in which the target was followed."""
        if high_frames:
            doubt = 0.0
        elif params.lost_below > 0:
            doubt = max(self.doubt + 1 - score / params.lost_below, 0.0)
        else:
            doubt = self.doubt
        still_lost = self.state is TrackState.LOST and high_frames < params.found_after
        followed = self.state is TrackState.TRACKING or high_frames > 0
        sure = followed and score >= params.uncertain_below
        unsure_frames = 0 if sure else self.unsure_frames + 1
        too_long = params.lost_below > 0 and unsure_frames > _LONG * params.lost_after
        if still_lost or too_long or doubt >= params.lost_after:
            state = TrackState.LOST
        else:
            state = TrackState.TRACKING if sure else TrackState.UNCERTAIN
        return state, doubt, unsure_frames

    def _certain(self, params: TrackerParams) -> float:
        """The score from which a frame shows the target for certain."""
        certain = params.certain
        if self.state is not TrackState.LOST:
            return certain
        worse, candidate = _WORSE, self.candidate
        if candidate is not None and candidate.moves_like(self.velocity):
            worse = _WORSE_MOVING
        elif candidate is not None and candidate.elsewhere:
            certain = max(certain, params.found_above)
        if not math.isnan(self.usual_score):
            certain = max(certain, 1 - worse * (1 - self.usual_score))
        return certain

    def _moved(self, seen: Sighting, shift: Point | None) -> Track:
        """The track at the place that was seen.

        While it is TRACKING, the usual score and peak are learned and, if the camera's shift is
        given, the velocity.
        """
        if self.state is not TrackState.TRACKING:
            return replace(self, center=seen.center, size=seen.size)
        velocity = self.velocity if shift is None else self._velocity(seen.center, shift)
        score = seen.score if math.isnan(self.usual_score) else self.usual_score
        usual = self.usual_peak
        if seen.evidence:
            peak = seen.evidence[0]
            usual = peak if math.isnan(usual) else _KEEP * usual + (1 - _KEEP) * peak
        online, features = self.online, seen.features
        if online and features is not None and sure(seen.score, seen.confidence):
            online = online.learn(features, seen.cells)
        return replace(
            self,
            center=seen.center,
            size=seen.size,
            online=online,
            velocity=velocity,
            followed=self.followed + (shift is not None),
            usual_score=_KEEP_SCORE * score + (1 - _KEEP_SCORE) * seen.score,
            usual_peak=usual,
        )

    def _velocity(self, center: Point, shift: Point) -> Point:
        """The velocity, in image pixels per frame, after a step to `center`.

        `shift` is how far the camera moved the picture meanwhile, image pixels.
        """
        step = (center[0] - self.center[0] - shift[0], center[1] - self.center[1] - shift[1])
        fastest = _FASTEST * self.side
        kept = min(_KEEP_VELOCITY, self.followed / (self.followed + 1))  # the mean, to begin with
        vx, vy = (
            _clamped(kept * old + (1 - kept) * new, -fastest, fastest)
            for old, new in zip(self.velocity, step, strict=True)
        )
        return vx, vy

    def _sought(self, seen: Sighting, params: TrackerParams) -> Track:
        """After a frame in which the LOST target was looked for in its region."""
        look_alikes = tuple(
            each._replace(frames=each.frames - 1) for each in self.look_alikes if each.frames > 1
        )
        rest = replace(self, lost_frames=self.lost_frames + 1, look_alikes=look_alikes)
        if self.candidate is None:
            rest = rest.considering([seen], params, confirmed=int(self.high_frames > 0))
            confirmed = rest.candidate.confirmed if rest.candidate else 0
        else:
            confirmed = self.candidate.confirmed + (self.high_frames > 0)
        if confirmed >= params.found_after:
            return replace(
                rest,
                center=seen.center,
                size=seen.size,
                velocity=(0.0, 0.0),
                followed=0,
                state=TrackState.TRACKING,
                doubt=0.0,
                unsure_frames=0,
                lost_frames=0,
                offered=0,
                candidate=None,
            )
        if self.candidate is None:
            return rest
        frames = self.candidate.frames + 1
        if seen.score < params.lost_below or frames > params.found_after + _PATIENCE:
            wrong = LookAlike(self.candidate.center)
            return replace(rest, candidate=None, look_alikes=(*look_alikes, wrong))
        looked_at = self.candidate._replace(
            center=seen.center, size=seen.size, confirmed=confirmed, frames=frames
        )
        return replace(rest, candidate=looked_at)

    def considering(
        self, seen: Sequence[Sighting], params: TrackerParams, confirmed: int = 0
    ) -> Track:
        """The track with the best of some sightings as its candidate, if one is worth a look.

        Args:
            seen: in one or more regions.
            params: thresholds of the state.
            confirmed: number of frames that have shown it for certain.
        """
        close = _CLOSE * self.side
        seen = [each for each in seen if each.score >= _UNSEEN * params.lost_below]
        look_alikes, new = [], list(seen)
        for known in self.look_alikes:
            again = [each for each in seen if math.dist(each.center, known.center) <= close]
            new = [each for each in new if math.dist(each.center, known.center) > close]
            look_alikes.append(known._replace(center=again[0].center) if again else known)
        rest = replace(self, look_alikes=tuple(look_alikes))
        if not new:
            return rest
        best = max(new, key=lambda each: each.score)
        reach = NEAR_FACTOR * self.pixels_per_sample * SEARCH_SIZE / 2
        away = max(abs(a - b) for a, b in zip(best.center, self.center, strict=True))
        found = Candidate(best.center, best.size, best.center, confirmed, elsewhere=away > reach)
        return replace(rest, candidate=found)


def _measures_velocity(frames: int) -> bool:
    """Whether the velocity of a target is measured in the frame after its first `frames`."""
    return frames % _PERIOD == _PERIOD - 1


def _within(place: Point, frame_size: tuple[int, int], reach: tuple[int, int] = (0, 0)) -> Point:
    """The place, or the nearest one in a frame with so much around it."""
    x, y = (
        _clamped(value, -beyond, side + beyond)
        for value, side, beyond in zip(place, frame_size, reach, strict=True)
    )
    return x, y


def _clamped(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)
