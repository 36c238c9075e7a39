"""What a tracker says of its target's presence, against cases counted by hand and VOT's toolkit."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from moving_square import SIZE, write_boxes, write_frames

from siamcar_ros.cli import main
from siamcar_ros.evaluation.comparison import compare
from siamcar_ros.evaluation.presence import (
    Presence,
    presence_measures,
    reliability,
    tracking_curve,
)
from siamcar_ros.evaluation.protocols import OTB, VOT_LT, score

NAN = float("nan")


def presence(overlap: list[float], score: list[float] | None = None, lost: Any = None) -> Presence:
    """A sequence; an overlap of -1 is an absent target."""
    values = np.array(overlap, float)
    scores = np.full(len(values), NAN) if score is None else np.array(score, float)
    told = None if lost is None else np.array(lost, bool)
    return Presence(np.maximum(values, 0), values < 0, scores, told)


def test_tracking_precision_recall_and_f_score_by_hand() -> None:
    one = presence([0.8, 0.6, -1, 0.0], [0.9, 0.5, 0.5, 0.1])
    assert tracking_curve([one]).tolist() == [
        [0.1, pytest.approx(1.4 / 4), pytest.approx(1.4 / 3)],  # all are reported
        [0.5, pytest.approx(1.4 / 3), pytest.approx(1.4 / 3)],  # but the last
        [0.9, pytest.approx(0.8), pytest.approx(0.8 / 3)],  # the first
    ]
    measures = presence_measures([one])
    assert measures["threshold"] == 0.5
    assert measures["f_score"] == pytest.approx(1.4 / 3)
    # A sequence that reports nothing at 0.5 and 0.9 has precision 1 and recall 0 there.
    other = presence([0.5], [0.2])
    assert tracking_curve([one, other])[2:] == pytest.approx(
        np.array([[0.5, (1.4 / 3 + 1) / 2, 1.4 / 6], [0.9, (0.8 + 1) / 2, 0.8 / 6]])
    )


def test_a_tracker_without_a_score_reports_every_frame() -> None:
    measures = presence_measures([presence([0.8, 0.4, -1])])
    assert measures["tracking_precision"] == pytest.approx(0.4)
    assert measures["tracking_recall"] == pytest.approx(0.6)
    for name in ("threshold", "calibration_error", "lost_precision", "lost_recall", "false_alarms"):
        assert np.isnan(measures[name])


def test_a_sequence_of_one_frame_has_nothing_to_say_of_presence() -> None:
    one = score([[1, 1, 5, 5]], [[1, 1, 5, 5]], OTB)
    assert one is not None
    assert one.measures["success"] == pytest.approx(20 / 21)
    assert one.measures["f_score"] == 0


def test_many_scores_are_thinned_to_quantiles() -> None:
    rng = np.random.default_rng(0)
    score = rng.random(5000)
    curve = tracking_curve([presence((score + rng.random(5000)).tolist(), score.tolist())])
    assert len(curve) == 1000
    assert (np.diff(curve[:, 0]) > 0).all()
    assert (curve[0, 0], curve[-1, 0]) == (score.min(), score.max())


def test_lost_is_compared_with_absent_or_missed() -> None:
    #          right, right, half, missed, absent, absent
    overlap = [0.9, 0.6, 0.3, 0.05, -1, -1]
    lost = [0, 1, 1, 1, 1, 0]
    measures = presence_measures([presence(overlap, None, lost)])
    assert measures["lost_precision"] == pytest.approx(2 / 4)
    assert measures["lost_recall"] == pytest.approx(2 / 3)
    assert measures["false_alarms"] == pytest.approx(1 / 2)
    assert (measures["false_finds"], measures["finds"]) == (1, 1)  # on nothing, in the last frame


def test_returns_are_found_by_box_and_state() -> None:
    overlap = [0.9, -1, -1, 0.2, 0.7, 0.8, -1, 0.9, -1, 0.3]
    measures = presence_measures([presence(overlap)])
    assert (measures["returns"], measures["returns_found"]) == (3, 2)
    assert measures["frames_to_find"] == pytest.approx((1 + 0) / 2)
    lost = [0, 1, 1, 1, 1, 0, 0, 1, 1, 1]
    measures = presence_measures([presence(overlap, None, lost)])
    assert (measures["returns_found"], measures["frames_to_find"]) == (1, 2)
    late = [-1.0] + [0.0] * 60 + [0.9]
    assert presence_measures([presence(late)])["returns_found"] == 0
    assert np.isnan(presence_measures([presence([0.5])])["returns_found"])


def test_calibration_error_by_hand() -> None:
    bins = reliability([presence([0.9, 0.4, -1, 0.6], [0.95, 0.95, 0.25, 1.0])])
    assert bins[9] == pytest.approx([3, 2.9 / 3, 2 / 3])
    assert bins[2] == pytest.approx([1, 0.25, 0])
    assert bins[:, 0].sum() == 4
    error = presence_measures([presence([0.9, 0.4, -1, 0.6], [0.95, 0.95, 0.25, 1.0])])
    assert error["calibration_error"] == pytest.approx((3 * 0.3 + 0.25) / 4)


def test_a_box_beyond_the_image_overlaps_nothing_in_vot() -> None:
    found = score([[0, 0, 50, 50], [-500, -500, 50, 50]], [[0, 0, 50, 50]] * 2, VOT_LT, size=SIZE)
    assert found is not None
    assert found.measures["tracking_recall"] == 0


def test_vot_toolkit_has_the_same_curve() -> None:
    longterm = pytest.importorskip("vot.analysis.longterm")
    from vot.region import Special
    from vot.region.shapes import Rectangle

    rng = np.random.default_rng(1)
    truth = np.column_stack((rng.integers(0, 40, (50, 2)), np.full((50, 2), 20))).astype(float)
    boxes, scores = truth + np.array([4, 2, 0, 0]), rng.random(50).round(2)
    boxes[::7, 0] += 300  # beyond the image
    boxes[1::7] -= (30, 30, 0, 0)  # partly or wholly to its left and above it
    truth[10:18] = NAN
    found = score(boxes, truth, VOT_LT, size=(100, 80), scores=scores)
    assert found is not None
    curve = tracking_curve([found.presence])
    groundtruth = [Special(0) if np.isnan(row).any() else Rectangle(*row) for row in truth[1:]]
    theirs = longterm.compute_tpr_curves(
        [Rectangle(*row) for row in boxes[1:]],
        scores[1:].tolist(),
        SimpleNamespace(groundtruth=lambda: groundtruth, size=(100, 80)),
        curve[:, 0].tolist(),
    )
    assert pytest.approx(np.array(theirs)) == curve[:, 1:].T


@pytest.fixture
def long_term(tmp_path: Path) -> Path:
    """A folder in VOT-LT's layout: two sequences, the square absent in frames 4 and 5."""
    root = tmp_path / "lt"
    for name in ("car1", "dog"):
        boxes = write_frames(root / name / "color", 9)
        boxes[3:5] = NAN
        write_boxes(root / name / "groundtruth.txt", boxes)
        for frame in (4, 5):
            path = str(root / name / "color" / f"{frame:08d}.jpg")
            cv2.imwrite(path, np.zeros((SIZE[1], SIZE[0], 3), np.uint8))
    (root / "dog" / "sequence").write_text("channels.color=color/%08d.jpg\nfps=25\nwidth=96\n")
    (root / "list.txt").write_text("car1\ndog\n")
    (root / "ignored").mkdir()
    return root


def test_a_long_term_benchmark_is_run_scored_and_shown(long_term: Path, tmp_path: Path) -> None:
    arguments = ["--tracker", "moving_square:Hides", "--results", str(tmp_path)]
    assert main(["evaluate", "vot-lt", str(long_term), *arguments]) == 0
    folder = tmp_path / "VOT-LT" / "Hides"
    states = (folder / "states" / "dog_state.txt").read_text().split()
    assert states == ["tracking"] * 3 + ["lost"] * 3 + ["tracking"] * 3
    comparison = compare([folder])
    (tracker,) = comparison.trackers
    assert comparison.sequences["dog"].size == SIZE
    measures = tracker.measures
    # Of eight frames after the first, two are absent; at 0.9 five of the other six are reported.
    assert measures["tracking_precision"] == pytest.approx(1)
    assert measures["tracking_recall"] == pytest.approx(5 / 6)
    assert measures["f_score"] == pytest.approx(2 * (5 / 6) / (1 + 5 / 6))
    assert measures["lost_precision"] == pytest.approx(2 / 3)
    assert measures["lost_recall"] == 1
    assert measures["false_alarms"] == pytest.approx(1 / 6)
    assert (measures["returns"], measures["returns_found"]) == (2, 2)
    assert (measures["frames_to_find"], measures["false_finds"], measures["finds"]) == (1, 0, 2)
    assert measures["calibration_error"] == pytest.approx((5 * 0.1 + 3 * abs(0.1 - 1 / 3)) / 8)
    assert main(["report", str(folder), "--output", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "The target is absent in 4 frames." in page
    assert "2 of 2" in page
    (folder / "states" / "dog_state.txt").write_text("lost\n" * 3)  # of other frames
    assert compare([folder]).runs["Hides"]["dog"].states == ()
