from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from siamcar_ros.data import Sequence
from siamcar_ros.evaluation import Run, protocols
from siamcar_ros.evaluation.protocols import score, score_sequence, summarize

NAN = float("nan")


def sequence(boxes: Any, **facts: Any) -> Sequence:
    frames = tuple(Path(f"{i}.jpg") for i in range(len(boxes)))
    return Sequence("s", frames, np.array(boxes, float), **facts)


def run(boxes: Any, times: list[float] | None = None) -> Run:
    array = np.array(boxes, float)
    return Run(array, np.ones(len(boxes)), np.array(times or [0.1] * len(boxes)))


def test_folder_leaves_out_the_first_frame() -> None:
    truth = sequence([[0, 0, 10, 10]] * 3)
    result = score_sequence(truth, [run([[0, 0, 10, 10]] * 2 + [[5, 0, 10, 10]])], protocols.FOLDER)
    assert result is not None
    assert result.frames == 2
    assert result.measures["ao"] == pytest.approx((1 + 1 / 3) / 2)
    assert result.measures["sr50"] == 0.5
    assert np.isnan(result.overlaps[0])
    assert result.overlaps[1:] == pytest.approx([1, 1 / 3])


def test_success_rates_are_of_overlaps_above_a_half_and_three_quarters() -> None:
    boxes = [[0, 0, w, 10] for w in (10, 4.5, 5, 7, 7.5, 8)]  # overlaps 1, 0.45, 0.5 ... 0.8
    found = score(boxes, [[0, 0, 10, 10]] * 6)
    assert found is not None
    assert found.measures["sr50"] == 3 / 5
    assert found.measures["sr75"] == 1 / 5


def test_precision_is_of_errors_up_to_20_pixels() -> None:
    found = score([[x, 0, 10, 10] for x in (0, 20, 20.5)], [[0, 0, 10, 10]] * 3)
    assert found is not None
    assert found.measures["precision"] == 1 / 2


def test_vot_lt_cuts_what_a_box_has_beyond_the_image() -> None:
    truth = [[80, 0, 20, 10]] * 2
    found = score([truth[0], [80, 0, 40, 10]], truth, protocols.VOT_LT, size=(100, 50))
    assert found is not None
    assert found.measures["ao"] == 1


def test_otb_counts_an_absent_frame_as_missed_and_near() -> None:
    # Four frames: given, half overlap, absent, exact.
    truth = sequence([[1, 1, 10, 10], [1, 1, 10, 10], [NAN] * 4, [1, 1, 10, 10]])
    found = run([[9, 9, 1, 1], [1, 1, 5, 10], [80, 80, 10, 10], [1, 1, 10, 10]])
    result = score_sequence(truth, [found], protocols.OTB)
    assert result is not None
    assert result.frames == 4
    # Overlaps 1 (the first box is the true one), 0.5, -1, 1.
    assert result.success[0] == 0.75
    assert result.success[10] == 0.5
    assert result.measures["success"] == pytest.approx((10 * 0.75 + 10 * 0.5 + 0) / 21)
    # Errors 0, 2.5, -1, 0.
    assert result.precision[0] == 0.75
    assert result.measures["precision"] == 1


def test_otb_repeats_the_box_before_a_prediction_without_a_size() -> None:
    truth = sequence([[1, 1, 10, 10]] * 3)
    found = run([[1, 1, 10, 10], [1, 1, 5, 10], [NAN, 1, 0, 10]])
    result = score_sequence(truth, [found], protocols.OTB)
    assert result is not None
    assert result.overlaps == pytest.approx([1, 0.5, 0.5])


def test_otb_treats_a_true_box_at_or_beyond_the_border_as_absent() -> None:
    truth = sequence([[1, 1, 10, 10], [0, 5, 10, 10], [1, 1, 10, 10]])
    result = score_sequence(truth, [run(truth.boxes.tolist())], protocols.OTB)
    assert result is not None
    assert result.success[0] == pytest.approx(2 / 3)
    assert result.precision[0] == 1


def test_lasot_counts_an_absent_frame_as_missed_and_far() -> None:
    truth = sequence([[1, 1, 10, 10], [NAN] * 4, [1, 1, 10, 20]])
    found = run([[1, 1, 10, 10], [1, 1, 10, 10], [2, 5, 10, 20]])
    result = score_sequence(truth, [found], protocols.LASOT)
    assert result is not None
    assert result.precision[-1] == pytest.approx(2 / 3)
    assert result.success[0] == pytest.approx(2 / 3)
    # The third is off by 0.1 widths and 0.2 heights, 0.2236 together: past 0.2, within 0.23.
    assert result.measures["normalized"] == pytest.approx(1 / 3)
    assert result.normalized[23] == pytest.approx(2 / 3)


def test_lasot_repeats_through_frames_without_the_target() -> None:
    truth = sequence([[1, 1, 10, 10], [NAN] * 4, [1, 1, 10, 10]])
    found = run([[1, 1, 10, 10], [0, 0, 0, 0], [0, 0, 0, 0]])
    result = score_sequence(truth, [found], protocols.LASOT)
    assert result is not None
    assert result.overlaps[2] == 1


def test_got10k_cuts_boxes_and_skips_the_invisible() -> None:
    truth = sequence([[0, 0, 10, 10], [90, 0, 20, 10], [NAN] * 4, [0, 0, 10, 10]], size=(100, 50))
    found = run([[0, 0, 10, 10], [90, 0, 30, 10], [0, 0, 1, 1], [20, 20, 5, 5]])
    result = score_sequence(truth, [found], protocols.GOT10K)
    assert result is not None
    assert result.frames == 2
    assert result.measures["ao"] == pytest.approx(0.5)
    assert len(result.success) == 101


def test_got10k_pools_frames_and_others_average_sequences() -> None:
    short = sequence([[1, 1, 10, 10]] * 2, size=(100, 80))
    long = sequence([[1, 1, 10, 10]] * 4, size=(100, 80))
    hit = score_sequence(short, [run([[1, 1, 10, 10]] * 2)], protocols.GOT10K)
    miss = score_sequence(long, [run([[1, 1, 10, 10]] + [[50, 50, 5, 5]] * 3)], protocols.GOT10K)
    assert hit is not None
    assert miss is not None
    both = {"short": hit, "long": miss}
    assert summarize("t", both, protocols.GOT10K).measures["ao"] == pytest.approx(1 / 4)
    assert summarize("t", both, protocols.FOLDER).measures["ao"] == pytest.approx(1 / 2)


def test_skipped_and_unannotated_frames_count_nowhere() -> None:
    annotated = np.array([True, True, True, False])
    truth = sequence([[1, 1, 10, 10]] * 3 + [[NAN] * 4], annotated=annotated)
    found = run(
        [[1, 1, 10, 10], [50, 50, 5, 5], [1, 1, 10, 10], [1, 1, 10, 10]], [0.1, NAN, 0.1, 0.1]
    )
    for protocol, frames in ((protocols.FOLDER, 1), (protocols.OTB, 2)):
        result = score_sequence(truth, [found], protocol)
        assert result is not None
        assert result.frames == frames
        assert result.measures["ao"] == 1


def test_rates_are_pooled_with_the_frames() -> None:
    """As in the GOT-10k toolkit: mean of 1 / t over all frames; for others, of sequences."""
    scores = {}
    for times in ([0.1] * 2, [0.01] * 8):
        boxes = [[1, 1, 10, 10]] * len(times)
        truth = sequence(boxes, size=(100, 80))
        result = score_sequence(truth, [run(boxes, times)], protocols.GOT10K)
        assert result is not None
        scores[str(len(times))] = result
    pooled = summarize("t", scores, protocols.GOT10K).measures["fps"]
    assert pooled == pytest.approx((2 * 10 + 8 * 100) / 10)
    assert summarize("t", scores, protocols.OTB).measures["fps"] == pytest.approx(55)


def test_a_protocol_that_clips_needs_the_size() -> None:
    with pytest.raises(ValueError, match="whose size is not known"):
        score([[1, 1, 2, 2]] * 2, [[1, 1, 2, 2]] * 2, protocols.GOT10K)


def test_arrays_are_scored_without_a_sequence() -> None:
    truth: Any = [[0, 0, 10, 10], [0, 0, 10, 10], [NAN] * 4, [0, 0, 10, 10]]
    boxes = [[0, 0, 10, 10], [5, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10]]
    found = score(boxes, truth)
    assert found is not None
    assert found.frames == 2
    assert found.measures["ao"] == pytest.approx((1 / 3 + 1) / 2)
    assert np.isnan(found.measures["fps"])
    assert np.isnan(found.overlaps).tolist() == [True, False, True, False]
    only = score(boxes, truth, counted=np.array([True, True, True, False]))
    assert only is not None
    assert only.measures["ao"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("shape", [(4, 4), (1, 4), (8,), (2, 3, 4), (2, 1, 2, 4)])
def test_boxes_that_do_not_fit_the_truth_are_refused(shape: tuple[int, ...]) -> None:
    """Twice as many boxes as frames are no two repetitions."""
    with pytest.raises(ValueError, match=r"expected truth \(N, 4\) and boxes"):
        score(np.ones(shape), np.ones((2, 4)))


def test_repetitions_are_pooled() -> None:
    truth = sequence([[1, 1, 10, 10]] * 2, size=(100, 80))
    runs = [run([[1, 1, 10, 10]] * 2), run([[1, 1, 10, 10], [50, 50, 5, 5]])]
    result = score_sequence(truth, runs, protocols.GOT10K)
    assert result is not None
    assert result.measures["ao"] == 0.5


def test_trackingnet_takes_the_area_under_the_normalized_curve() -> None:
    truth = sequence([[1, 1, 10, 10]] * 2)
    result = score_sequence(truth, [run([[1, 1, 10, 10], [3.5, 1, 10, 10]])], protocols.TRACKINGNET)
    assert result is not None
    # An error of 0 at all 51 thresholds, one of 0.25 from the 26th on.
    assert result.measures["normalized"] == pytest.approx((51 + 26) / 102)


def test_the_inflated_share_is_of_the_frames_with_the_target() -> None:
    truth = np.array([[100.0, 100, 40, 20]] * 4 + [[np.nan] * 4])
    swollen = [90.0, 90, 60, 40]
    found = score([truth[0], swollen, truth[0], swollen, swollen], truth)
    assert found is not None
    assert found.measures["inflated"] == pytest.approx(2 / 3)


def test_nothing_to_score() -> None:
    assert score(np.zeros((0, 4)), np.zeros((0, 4))) is None
    truth = sequence([[1, 1, 10, 10]])
    assert score_sequence(truth, [run([[1, 1, 10, 10]])], protocols.FOLDER) is None
    with pytest.raises(ValueError, match="no sequence was scored"):
        summarize("t", {}, protocols.FOLDER)
