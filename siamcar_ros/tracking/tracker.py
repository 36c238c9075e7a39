"""Trackers: :class:`SiamCarTracker` of one target, :class:`MultiTracker` of several."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray

from siamcar_ros.geometry import Box, Image
from siamcar_ros.runtime import load_network
from siamcar_ros.tracking.config import read_config
from siamcar_ros.tracking.engine import TrackingEngine
from siamcar_ros.tracking.interface import (
    Network,
    TargetError,
    TrackerParams,
    TrackResult,
)
from siamcar_ros.tracking.stored_image import StoredImage
from siamcar_ros.tracking.track import Track

_Self = TypeVar("_Self", bound="_Tracker")


class _Tracker:
    """What both trackers share: network, parameters, timings, construction from a configuration."""

    def __init__(
        self, network: Network, params: TrackerParams | None = None, *, max_targets: int = 1
    ) -> None:
        self.params = params or TrackerParams()
        self._engine = TrackingEngine(network, max_targets)

    @classmethod
    def from_config(
        cls: type[_Self],
        config: str | Path,
        weights: str | Path | None = None,
        device: str = "auto",
        backend: str = "auto",
        precision: str = "auto",
        threads: int | None = None,
        **knobs: Any,
    ) -> _Self:
        """Build the network and the tracker that a configuration names.

        Args:
            config: a shipped one ("compact", "resnet50", ...) or the path of a YAML file.
            weights: a file to use in place of the configuration's.
            device: as for :func:`siamcar_ros.runtime.load_network`.
            backend: likewise.
            precision: likewise.
            threads: likewise.
            knobs: fields of :class:`TrackerParams` that replace the configuration's.

        Raises:
            ValueError: an unknown configuration, key or parameter (the message lists the known
                ones), or a device, backend or precision that is not available.
            FileNotFoundError: a file does not exist.
        """
        read = read_config(config, weights, knobs)
        network = load_network(
            read.network, device=device, backend=backend, precision=precision, threads=threads
        )
        return cls(network, read.params)

    @property
    def network(self) -> Network:
        """The network, which other trackers may share."""
        return self._engine.network

    @property
    def timings(self) -> dict[str, float]:
        """Seconds that the last update spent in "crop", "network" (with transfers) and "decode"."""
        return dict(self._engine.timings)


class SiamCarTracker(_Tracker):
    """Follows one target.

    Example:
        >>> tracker = SiamCarTracker.from_config("compact")
        >>> tracker.init(first_image, (412, 230, 60, 80))
        >>> box = tracker.update(next_image).box

    Attributes:
        params: a :class:`TrackerParams`; another one may be set between two frames.
    """

    _track: Track | None = None

    def __init__(self, network: Network, params: TrackerParams | None = None) -> None:
        super().__init__(network, params)

    def init(self, image: Image | StoredImage, box: Sequence[float] | NDArray[Any]) -> None:
        """Start on a target; the one followed before is forgotten.

        Args:
            image: uint8, (H, W, 3) BGR, (H, W, 4) BGRA, (H, W) or (H, W, 1) gray; any strides;
                or a :class:`~siamcar_ros.tracking.stored_image.StoredImage`.
            box: (x, y, w, h), image pixels, 0-based, top-left; may reach past the border.

        Raises:
            TargetError: the image or the box cannot be tracked; a former target still is.
        """
        self._track = self._engine.start(image, box, self.params)

    def update(
        self, image: Image | StoredImage, candidates: Sequence[Box] | None = None
    ) -> TrackResult:
        """Find the target in the next frame.

        Args:
            image: as for :meth:`init`.
            candidates: boxes (x, y, w, h) in this frame, a detector's perhaps, in which a LOST
                target is looked for, too; image pixels. It needs ``redetect``, and
                ``search_regions`` says how many are looked at in a frame: all but one of the
                regions, the candidates in turn.

        Raises:
            TargetError: there is no target, or the image cannot be tracked.
            RuntimeError: the network gave maps that are not finite or have the wrong shape.
                After either, the track is as it was before the call.
        """
        if self._track is None:
            raise TargetError("there is no target to follow: call init(image, box) first")
        (self._track,) = self._engine.advance(
            image, (self._track,), self._track.template, self.params, candidates or ()
        )
        return self._track.result

    @property
    def evidence(self) -> tuple[float, ...]:
        """What the last frame showed, in the order of :data:`~.calibration.EVIDENCE`.

        It is empty after :meth:`init`, and where the score is not calibrated.
        """
        return self._track.evidence if self._track else ()

    def stop(self) -> None:
        """Forget the target."""
        self._track = None

    @property
    def active(self) -> bool:
        """Whether there is a target to follow."""
        return self._track is not None

    @property
    def result(self) -> TrackResult:
        """The last frame's result, after :meth:`init` the given box.

        Raises:
            TargetError: there is no target.
        """
        if self._track is None:
            raise TargetError("there is no target to follow: call init(image, box) first")
        return self._track.result


class MultiTracker(_Tracker):
    """Follows several targets in the same frames, with one call of the network for all of them.

    Each target is followed as a :class:`SiamCarTracker` would, whatever the others do.
    """

    def __init__(
        self, network: Network, params: TrackerParams | None = None, max_targets: int = 8
    ) -> None:
        if max_targets < 1:
            raise ValueError(f"max_targets is at least 1, not {max_targets}")
        super().__init__(network, params, max_targets=max_targets)
        self.max_targets = max_targets
        self._tracks: dict[str, Track] = {}
        # The ids of the last call and their templates in one batch, which seldom changes.
        self._batch: tuple[tuple[str, ...], Any] = (), None

    def add(self, image: Image | StoredImage, box: Sequence[float] | NDArray[Any], id: str) -> None:
        """Start on another target; one of the same `id` is replaced.

        Args:
            image: as for :meth:`SiamCarTracker.init`.
            box: as for :meth:`SiamCarTracker.init`.
            id: a name for the target.

        Raises:
            TargetError: the image or the box cannot be tracked, or there are `max_targets` targets
                already. The other targets are unaffected.
        """
        if id not in self._tracks and len(self._tracks) >= self.max_targets:
            raise TargetError(
                f"{self.max_targets} targets are followed already: remove one, or raise max_targets"
            )
        self._tracks[id] = self._engine.start(image, box, self.params)
        self._batch = (), None

    def remove(self, id: str) -> None:
        """Forget one target.

        Raises:
            TargetError: no target has that id.
        """
        self._track(id)
        del self._tracks[id]
        self._batch = (), None

    def update(
        self,
        image: Image | StoredImage,
        ids: Iterable[str] | None = None,
        candidates: Sequence[Box] | None = None,
        *,
        motion: Mapping[str, tuple[float, float]] | None = None,
    ) -> dict[str, TrackResult]:
        """Find the targets in the next frame.

        Args:
            image: as for :meth:`SiamCarTracker.init`.
            ids: the targets to look for, all by default; the others stay as they are.
            candidates: as for :meth:`SiamCarTracker.update`.
            motion: by id, (dx, dy) image pixels by which the camera's own motion, as a sensor
                measured it, has moved a target since the last frame; it is looked for there.

        Returns:
            the results by id; empty when there is no target to look for.

        Raises:
            TargetError, RuntimeError: as :meth:`SiamCarTracker.update`, or an id is not known;
                all tracks are as they were.
        """
        wanted = tuple(self._tracks) if ids is None else tuple(dict.fromkeys(ids))
        tracks = [self._track(id) for id in wanted]
        if not tracks:
            return {}
        if wanted != self._batch[0]:
            self._batch = wanted, self._engine.join([track.template for track in tracks])
        measured = [motion.get(id) for id in wanted] if motion else None
        advanced = self._engine.advance(
            image, tracks, self._batch[1], self.params, candidates or (), measured
        )
        self._tracks.update(zip(wanted, advanced, strict=True))
        return {id: track.result for id, track in zip(wanted, advanced, strict=True)}

    def result(self, id: str) -> TrackResult:
        """The last frame's result of one target, after :meth:`add` the given box.

        Raises:
            TargetError: no target has that id.
        """
        return self._track(id).result

    def stop(self) -> None:
        """Forget all targets."""
        self._tracks = {}
        self._batch = (), None

    @property
    def ids(self) -> tuple[str, ...]:
        """The targets, in the order in which they were added."""
        return tuple(self._tracks)

    @property
    def active(self) -> bool:
        """Whether there is any target to follow."""
        return bool(self._tracks)

    def __len__(self) -> int:
        return len(self._tracks)

    def _track(self, id: str) -> Track:
        if id not in self._tracks:
            known = ", ".join(map(repr, self._tracks)) or "none"
            raise TargetError(f"no target has the id {id!r}; there are: {known}")
        return self._tracks[id]
