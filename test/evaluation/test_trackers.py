from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from moving_square import square_boxes, write_boxes, write_frames
from references import reference

from siamcar_ros.data import read_sequence
from siamcar_ros.evaluation import metrics, run_sequence
from siamcar_ros.evaluation.protocols import FOLDER, score_sequence
from siamcar_ros.evaluation.trackers import BASELINES, OpenCVTracker, TrackerSpec
from siamcar_ros.tracking import TargetError

needs_contrib = pytest.mark.skipif(
    not hasattr(cv2, "TrackerKCF_create"), reason="this OpenCV has no KCF and CSRT (contrib has)"
)


def test_mil_follows_the_square(tmp_path: Path) -> None:
    write_boxes(tmp_path / "groundtruth.txt", write_frames(tmp_path, 6))
    run = run_sequence(TrackerSpec("MIL", "mil").build(), read_sequence(tmp_path))
    # MIL draws its samples at random, seeded by the time of day.
    assert np.median(metrics.iou(run.boxes, square_boxes(6))) > 0.25
    assert np.isnan(run.scores[1:]).all()


class Loses:
    """An OpenCV tracker that finds the target once."""

    def __init__(self) -> None:
        self.updates = 0

    def init(self, image: object, box: tuple[int, ...]) -> None:
        assert box == (3, 4, 1, 2)

    def update(self, image: object) -> tuple[bool, tuple[int, int, int, int]]:
        self.updates += 1
        return (self.updates == 1), (self.updates, 5, 6, 7)

    def getTrackingScore(self) -> float:
        return 0.9 / self.updates


def test_opencv_tracker_keeps_the_last_box_when_it_misses() -> None:
    image = np.zeros((20, 20, 3), np.uint8)
    tracker = OpenCVTracker(Loses)
    tracker.init(image, (3.4, 3.6, 0.2, 2.4))  # whole pixels, at least one
    assert tracker.update(image) == ((1, 5, 6, 7), 0.9, "tracking")
    assert tracker.update(image) == ((1, 5, 6, 7), 0.45, "lost")


@pytest.mark.parametrize(
    ("box", "pixels"),
    [
        ((-5.2, 6, 20, 30), (0, 6, 15, 14)),
        ((15, -3, 9, 9), (15, 0, 5, 6)),
        ((-0.4, 19.8, 0.5, 3), (0, 19, 1, 1)),
    ],
)
def test_opencv_trackers_start_on_what_is_in_the_image(
    box: tuple[float, float, float, float], pixels: tuple[int, int, int, int]
) -> None:
    given = []
    started = SimpleNamespace(init=lambda image, box: given.append(box))
    OpenCVTracker(lambda: started).init(np.zeros((20, 20, 3), np.uint8), box)
    assert given == [pixels]


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ((5, 5, 0, 5), "has no area"),
        ((50, 5, 5, 5), "wholly outside"),
        ((np.nan, 5, 5, 5), "is not finite"),
        ((-8, 2, 10, 9), "2x9 pixels in the image are too few for MIL"),
        ((0, 0, 20, 20), "OpenCV cannot start on the box"),
    ],
)
def test_a_box_that_mil_cannot_start_on_is_refused(
    box: tuple[float, float, float, float], reason: str
) -> None:
    tracker = TrackerSpec("MIL", "mil").build()
    with pytest.raises(TargetError, match=reason):
        tracker.init(np.zeros((20, 20, 3), np.uint8), box)


def test_ones_own_tracker_is_found_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by the installed command, whose path does not begin with that folder."""
    (tmp_path / "lying_here.py").write_text("make = dict")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(filter(None, sys.path)))
    tracker: object = TrackerSpec("mine", "lying_here:make").build()
    assert tracker == {}


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (TrackerSpec("N", "nano"), r"NanoTrack needs 2 model files \(backbone.onnx head.onnx\)"),
        (TrackerSpec("N", "nano", files=("no", "such")), "no file no"),
        (TrackerSpec("M", "mil", files=("x",)), "needs 0 model files"),
        (TrackerSpec("X", "boosting"), "no tracker 'boosting'; baselines: csrt, kcf"),
        (TrackerSpec("X", "os:no_such"), "cannot import the tracker"),
    ],
)
def test_what_cannot_be_built_is_told(spec: TrackerSpec, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        spec.build()


def test_opencv_without_a_tracker_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(cv2, "TrackerCSRT_create", raising=False)
    with pytest.raises(ValueError, match="opencv-contrib-python-headless"):
        TrackerSpec("CSRT", "csrt").build()


def test_baselines_name_their_files() -> None:
    assert {name for name, baseline in BASELINES.items() if baseline.files} == {"nano", "vit"}


@needs_contrib
@pytest.mark.parametrize(
    ("name", "frames", "ao"), [("car-shadow", 40, 0.547), ("Crossing", 120, 0.082)]
)
def test_kcf_scores_what_is_published_beside_the_sequences(
    name: str, frames: int, ao: float
) -> None:
    sequence = read_sequence(reference(f"sequences/{name}"))
    assert len(sequence) == frames
    run = run_sequence(TrackerSpec("KCF", "kcf").build(), sequence)
    score = score_sequence(sequence, [run], FOLDER)
    assert score is not None
    assert score.measures["ao"] == pytest.approx(ao, abs=0.005)
