"""The figures of a run, against numbers worked out by hand."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from siamcar_ros.demo.render import Clip, write_sequence
from siamcar_ros.demo.report import Record, describe, quarters, summarize, write_pictures
from siamcar_ros.demo.sources import open_source

MS = 1_000_000


def record() -> Record:
    """Five frames at 10 Hz; the target is given on the second, the fourth has no detection."""
    stamps = np.array([1000, 1100, 1200, 1300, 1400], np.int64) * MS
    arrivals = np.array([0, 1105, 1210, 0, 1430], np.int64) * MS
    nan = [np.nan] * 4
    boxes = np.array([nan, [0, 0, 10, 10], [10, 0, 10, 10], nan, [0, 0, 10, 20.0]])
    scores = np.array([np.nan, 0.9, 0.8, np.nan, 0.7])
    return Record(stamps, arrivals, boxes, scores, started=1, given=(0, 0, 10, 10))


def test_counts_latency_and_rate_leave_the_first_frame_out() -> None:
    summary = summarize(record(), None, [])
    assert (summary.frames, summary.detections, summary.missed) == (3, 2, 1)
    assert summary.latency_median == pytest.approx(20.0)
    assert summary.latency_p99 == pytest.approx(29.8)
    assert summary.rate == pytest.approx(1 / 0.220)
    assert summary.overlap is None


def test_a_frame_without_detection_is_scored_with_the_latest_box() -> None:
    truth = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [10, 0, 10, 10], [15, 0, 10, 10.0]])
    truth = np.vstack([truth, [[0, 0, 10, 10]]])
    summary = summarize(record(), truth, [("all", range(5)), ("none", range(1))])
    # frame 2 exact, frame 3 half a box beside the held one, frame 4 twice as tall
    assert summary.overlap == pytest.approx((1 + 1 / 3 + 1 / 2) / 3)
    assert summary.success == pytest.approx(1 / 3)
    assert summary.last_overlap == pytest.approx(1 / 2)
    assert [(name, n) for name, n, _ in summary.parts] == [("all", 3)]
    assert summary.parts[0][2] == pytest.approx(summary.overlap)


def test_the_end_of_the_following_is_told() -> None:
    count = 12
    stamps = np.arange(1, count + 1, dtype=np.int64) * MS
    boxes = np.tile([0, 0, 10, 10.0], (count, 1))
    run = Record(stamps, stamps + MS, boxes, np.ones(count), started=0, given=(0, 0, 10, 10))
    summary = summarize(run, boxes, [])
    assert summary.lost_from is None
    assert "to the end" in describe(summary, {})
    truth = boxes.copy()
    truth[4:, 0] = 100
    summary = summarize(run, truth, [])
    assert summary.lost_from == 4
    assert "lost from 4 on" in describe(summary, {})


def test_an_absent_target_is_not_scored() -> None:
    truth = np.full((5, 4), np.nan)
    truth[2] = [10, 0, 10, 10]
    summary = summarize(record(), truth, [])
    assert summary.overlap == pytest.approx(1.0)


def test_the_text_says_what_was_measured() -> None:
    text = describe(summarize(record(), None, []), {"received": 5, "dropped": 1})
    assert "median 20.0 ms" in text
    assert "received 5, dropped 1" in text
    assert "no true boxes" in text


def test_quarters_cover_everything() -> None:
    assert [i for _, span in quarters(10) for i in span] == list(range(10))


def test_pictures_are_written(tmp_path: Path) -> None:
    folder = write_sequence(Clip(frames=6), tmp_path / "clip")
    source = open_source(str(folder))
    stamps = np.arange(1, 7, dtype=np.int64)
    assert source.boxes is not None
    run = Record(stamps, stamps + 1, source.boxes, np.ones(6), 0, (0, 0, 1, 1))
    video, strip = write_pictures(source, run, tmp_path)
    film = cv2.VideoCapture(str(video))
    assert int(film.get(cv2.CAP_PROP_FRAME_COUNT)) == 6
    read, image = film.read()
    assert read
    assert image.shape == (480, 640, 3)
    picture = cv2.imread(str(strip))
    assert picture is not None
    assert picture.shape == (2 * 240, 3 * 320, 3)
    x, y, w, _ = source.boxes[0].round().astype(int)
    green = image[y : y + 2, x : x + w].astype(int)
    assert (green[..., 1] - green[..., 2] > 40).mean() > 0.2
