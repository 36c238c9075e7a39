"""Live scores: matched by stamp, what was in hand, drops, passes."""

from __future__ import annotations

import pytest

from siamcar_ros.evaluation.live import LiveScore, describe, spread

SECOND = 10**9
BOX, HALF = (10.0, 10.0, 20.0, 20.0), (10.0, 10.0, 10.0, 20.0)


def test_nothing_heard_is_nothing_scored() -> None:
    (one,) = LiveScore().summary()
    assert one == {
        "frames": 0,
        "answered": 0,
        "unanswered": 0,
        "detections": 0,
        "detections_per_second": None,
        "overlap_answered": None,
        "overlap_in_hand": None,
        "untouched_at_end": 0,
        "latency_ms": None,
    }


def test_a_perfect_but_late_tracker() -> None:
    """Each answer is right on its own image, and a frame old when the next true box comes."""
    score = LiveScore()
    for i in range(10):
        box = BOX if i % 2 else HALF
        score.add_truth(i * SECOND, box, float(i))
        score.add_detection(i * SECOND, box, i + 0.2)
    (one,) = score.summary()
    assert (one["frames"], one["answered"], one["unanswered"]) == (10, 10, 0)
    assert one["overlap_answered"] == 1.0
    assert one["overlap_in_hand"] == 0.5
    assert one["latency_ms"]["median"] == pytest.approx(200)
    assert one["detections_per_second"] == pytest.approx(1.0)


def test_drops_are_counted_from_the_first_answered_image_on() -> None:
    score = LiveScore()
    for i in range(20):
        score.add_truth(i * SECOND, BOX, float(i))
        if i >= 8 and i % 3 == 2:
            score.add_detection(i * SECOND, BOX, i + 0.5)
    (one,) = score.summary()
    assert (one["frames"], one["answered"], one["unanswered"]) == (12, 4, 8)


def test_answers_may_come_before_the_truth() -> None:
    score = LiveScore()
    score.add_detection(1 * SECOND, HALF, 1.0)
    score.add_truth(1 * SECOND, BOX, 1.1)
    (one,) = score.summary()
    assert (one["frames"], one["answered"]) == (1, 1)
    assert one["overlap_answered"] == 0.5
    assert one["latency_ms"]["median"] == pytest.approx(-100)


def test_frames_without_target_count_but_do_not_score() -> None:
    score = LiveScore()
    for i, box in enumerate([BOX, None, BOX]):
        score.add_truth(i * SECOND, box, float(i))
        score.add_detection(i * SECOND, BOX, i + 0.1)
    (one,) = score.summary()
    assert (one["frames"], one["answered"]) == (3, 3)
    assert one["overlap_answered"] == 1.0


@pytest.mark.parametrize("truths", [True, False])
def test_time_that_goes_back_begins_a_pass(truths: bool) -> None:
    score = LiveScore(time_jump=1.0)
    for _ in range(3):
        for i in range(100, 105):
            if truths:
                score.add_truth(i * SECOND, BOX, float(i))
            score.add_detection(i * SECOND, HALF, i + 0.1)
    passes = score.summary()
    assert len(passes) == 3
    for one in passes:
        assert one["detections"] == 5
        assert one["overlap_answered"] == (0.5 if truths else None)


def test_a_little_disorder_begins_no_pass() -> None:
    score = LiveScore(time_jump=1.0)
    for stamp in (10.0, 10.5, 9.8, 11.0):
        assert not score.add_truth(round(stamp * SECOND), BOX, stamp)
    assert score.add_truth(round(9.9 * SECOND), BOX, 12.0)


def test_answers_on_their_way_since_the_pass_before_are_left_out() -> None:
    score = LiveScore()
    for i in range(100, 110):
        score.add_truth(i * SECOND, BOX, float(i))
    assert score.add_truth(100 * SECOND, BOX, 110.0)
    score.add_detection(109 * SECOND, BOX, 110.1)
    score.add_detection(100 * SECOND, BOX, 110.2)
    first, second = score.summary()
    assert first["detections"] == 0
    assert (second["detections"], second["answered"]) == (1, 1)


def test_spread() -> None:
    assert spread([]) is None
    assert spread(range(101)) == {"median": 50.0, "p90": 90.0, "p99": 99.0, "max": 100.0}


def test_the_end_of_tracking_is_counted() -> None:
    score = LiveScore()
    far = (100.0, 100.0, 5.0, 5.0)
    for i in range(10):
        score.add_truth(i * SECOND, BOX, float(i))
        score.add_detection(i * SECOND, BOX if i < 6 else far, i + 0.1)
    assert score.summary()[0]["untouched_at_end"] == 3  # in hand, one frame late
    score.add_detection(10 * SECOND, BOX, 10.0)
    score.add_truth(10 * SECOND, BOX, 10.1)
    assert score.summary()[0]["untouched_at_end"] == 0


def test_frames_may_count_from_a_given_one_on() -> None:
    score = LiveScore()
    score.add_truth(1 * SECOND, BOX, 1.0)
    score.begin(1 * SECOND + 1)
    for i in range(2, 8):
        score.add_truth(i * SECOND, BOX, float(i))
    score.add_detection(5 * SECOND, BOX, 7.5)
    (one,) = score.summary()
    assert (one["frames"], one["answered"], one["unanswered"]) == (6, 1, 5)
    score.add_detection(1 * SECOND, BOX, 7.6)
    assert score.summary() == [one], "a target that was tracked before"


def test_a_pass_in_words() -> None:
    score = LiveScore()
    assert describe(score.summary()[0]) == ["no detection yet"]
    for i in range(3):
        score.add_truth(i * SECOND, None, float(i))
        score.add_detection(i * SECOND, BOX, i + 0.25)
    assert describe(score.summary()[0]) == [
        "3 frames, 3 answered (1.0 per second)",
        "latency 250.0 ms (median), 250.0 ms (99th percentile)",
        "overlap unknown: there are no true boxes",
    ]
    score.add_truth(3 * SECOND, HALF, 3.0)
    score.add_detection(3 * SECOND, HALF, 3.25)
    assert "overlap 1.000 on answered frames, 0.500 in hand" in describe(score.summary()[0])
