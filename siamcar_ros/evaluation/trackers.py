"""Descriptions of trackers, which are sent to workers and built there."""

from __future__ import annotations

import importlib
import json
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import cv2

from siamcar_ros.evaluation.one_pass import Tracker
from siamcar_ros.files import sha256
from siamcar_ros.geometry import Box, Image
from siamcar_ros.runtime import Network, find_placement, load_network
from siamcar_ros.tracking import SiamCarTracker, TargetError, TrackerParams, read_config
from siamcar_ros.tracking.interface import checked_box


class Baseline(NamedTuple):
    """One of OpenCV's trackers."""

    title: str
    opencv_class: str
    files: Mapping[str, str] = {}  # its model files, by OpenCV's parameters that name them


BASELINES: dict[str, Baseline] = {
    "csrt": Baseline("CSRT", "TrackerCSRT"),
    "kcf": Baseline("KCF", "TrackerKCF"),
    "mil": Baseline("MIL", "TrackerMIL"),
    "nano": Baseline(
        "NanoTrack", "TrackerNano", {"backbone": "backbone.onnx", "neckhead": "head.onnx"}
    ),
    "vit": Baseline("ViT", "TrackerVit", {"net": "model.onnx"}),
}


@dataclass(frozen=True)
class TrackerSpec:
    """The description of a tracker."""

    title: str  # its name in result folders, tables and plots
    kind: str = "siamcar"  # a key of `BASELINES`; or "module:callable", which returns a tracker
    # SiamCAR's, as for `siamcar_ros.runtime.load_network`
    network: str = "compact"
    weights: str | None = None
    device: str = "auto"
    backend: str = "auto"
    precision: str = "auto"
    settings: dict[str, Any] = field(default_factory=dict)  # that replace the network file's
    files: tuple[str, ...] = ()  # a baseline's model files

    def build(self, device: str | None = None, threads: int | None = None) -> Tracker:
        """Build the tracker, on another `device` if given, with at most `threads` on a CPU."""
        if self.kind == "siamcar":
            return SiamCarTracker(*self.load_network(device, threads))
        if self.kind in BASELINES:
            return OpenCVTracker(_opencv(BASELINES[self.kind], self.files))
        module, colon, name = self.kind.partition(":")
        if not colon:
            raise ValueError(
                f"no tracker {self.kind!r}; baselines: {', '.join(BASELINES)}; "
                "your own: module:callable"
            )
        if (here := str(Path.cwd())) not in sys.path:  # as `python -m` does
            sys.path.insert(0, here)
        try:
            factory = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError, TypeError) as error:
            raise ValueError(f"cannot import the tracker {self.kind!r}: {error}") from error
        tracker: Tracker = factory()
        return tracker

    def load_network(
        self, device: str | None = None, threads: int | None = None
    ) -> tuple[Network, TrackerParams]:
        """Load SiamCAR's network and parameters; arguments are those of `build`."""
        config = read_config(self.network, self.weights, self.settings)
        network = load_network(
            config.network,
            config.weights,
            device=device or self.device,
            backend=self.backend,
            precision=self.precision,
            threads=threads,
        )
        network.warm_up()
        return network, config.params

    def facts(self) -> dict[str, Any]:
        """What the boxes depend on, for `run.json`.

        "auto" is replaced by what it means on this machine. Files are told by their names and
        SHA-256, so it does not matter how their paths are written.
        """
        facts: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        facts["weights"] = self.weights and Path(self.weights).name
        facts["files"] = [Path(file).name for file in self.files]
        if self.kind == "siamcar":
            config = read_config(self.network, self.weights, self.settings)
            facts["settings"] = asdict(config.params)
            if config.weights is not None:
                placement, int8_graph = find_placement(
                    config.network,
                    config.weights,
                    device=self.device,
                    backend=self.backend,
                    precision=self.precision,
                )
                facts["weights_sha256"] = sha256(config.weights)
                facts["device"] = placement.device.partition(":")[0]
                facts["backend"], facts["precision"] = placement.backend, placement.precision
                if int8_graph is not None:
                    facts["int8_sha256"] = sha256(int8_graph)
        elif self.kind in BASELINES:
            _check_files(BASELINES[self.kind], self.files)
            facts["files_sha256"] = [sha256(Path(file)) for file in self.files]
        return facts


class OpenCVResult(NamedTuple):
    """The result of one of OpenCV's trackers; the score is NaN where it has none."""

    box: Box
    score: float
    state: str


class OpenCVTracker:
    """Adapts an OpenCV tracker to the two methods.

    OpenCV's trackers take whole pixels and return no box on a miss: the last one is repeated, with
    state "lost". `create` makes a new `cv2.Tracker`, one for each target.
    """

    def __init__(self, create: Callable[[], Any]) -> None:
        self._create = create
        self._tracker: Any = None
        self._box: Box = (0.0, 0.0, 0.0, 0.0)

    def init(self, image: Image, box: Box) -> None:
        """Start on the target in `box`; raises TargetError where the tracker refuses it."""
        x, y, w, h = checked_box(box, image)
        height, width = image.shape[:2]
        left, top = min(max(round(x), 0), width - 1), min(max(round(y), 0), height - 1)
        w = min(max(round(x) + round(w), left + 1), width) - left
        h = min(max(round(y) + round(h), top + 1), height) - top
        tracker = self._create()
        if isinstance(tracker, cv2.TrackerMIL) and (min(w, h) < 3 or w * h < 18):
            raise TargetError(f"{w}x{h} pixels in the image are too few for MIL")  # it would hang
        try:
            tracker.init(image, (left, top, w, h))
        except cv2.error as error:
            raise TargetError(f"OpenCV cannot start on the box {box}: {error.err}") from error
        self._tracker, self._box = tracker, box

    def update(self, image: Image) -> OpenCVResult:
        """Find the target in the next frame."""
        found, box = self._tracker.update(image)
        if found:
            x, y, w, h = box
            self._box = (float(x), float(y), float(w), float(h))
        # Older releases have no score for any tracker, newer ones -1 for those without.
        score = float(getattr(self._tracker, "getTrackingScore", lambda: -1.0)())
        known = score if score >= 0 else math.nan
        return OpenCVResult(self._box, known, "tracking" if found else "lost")


def _check_files(baseline: Baseline, files: tuple[str, ...]) -> None:
    if len(files) != len(baseline.files):
        raise ValueError(
            f"{baseline.title} needs {len(baseline.files)} model files "
            f"({' '.join(baseline.files.values()) or 'none'}), got {len(files)}"
        )
    for file in files:
        if not Path(file).is_file():
            raise ValueError(f"{baseline.title}: no file {file}")


def _opencv(baseline: Baseline, files: tuple[str, ...]) -> Callable[[], Any]:
    _check_files(baseline, files)
    create: Callable[..., Any] | None = getattr(cv2, f"{baseline.opencv_class}_create", None)
    if create is None:
        raise ValueError(
            f"this OpenCV ({cv2.__version__}) has no {baseline.title}; "
            "install opencv-contrib-python-headless in place of other OpenCV packages"
        )
    if not files:
        return create
    parameters = getattr(cv2, f"{baseline.opencv_class}_Params")()
    for name, file in zip(baseline.files, files, strict=True):
        setattr(parameters, name, file)
    return lambda: create(parameters)
