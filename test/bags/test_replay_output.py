"""What `siamcar replay` writes: the new bag, the texts, the report, the sequence."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from replayed_bag import FRAMES, PERIOD, START, TOPIC, TRUTH, BrightestSquare, make_bag, true_box

from siamcar_ros.bags.reader import Bag
from siamcar_ros.cli import main
from siamcar_ros.data.annotations import read_boxes
from siamcar_ros.data.detections import detection_box, stamp_of
from siamcar_ros.data.sequences import read_sequence
from siamcar_ros.data.video import VideoReader


@pytest.mark.usefixtures("fixed_tracker")
@pytest.mark.parametrize("has_av", [True, False])
@pytest.mark.slow
def test_the_same_bag_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_av: bool
) -> None:
    if has_av:
        pytest.importorskip("av", reason="PyAV comes with the extra 'video'")
    else:
        monkeypatch.setitem(sys.modules, "av", None)
    bag = make_bag(tmp_path / "bag", broken=(7,))
    made, videos = [], []
    for name in ("a", "b"):
        out = tmp_path / name
        arguments = ["replay", str(bag), "--ground-truth-topic", TRUTH]
        assert main([*arguments, "--output", str(out)]) == 0
        files = {p.relative_to(out).as_posix(): p for p in out.rglob("*") if p.is_file()}
        assert set(files) >= {"bag/metadata.yaml", "replay.mp4", "boxes.txt", "frames.csv"}
        assert "report/report.html" in files
        videos.append([image for _, image in VideoReader(files.pop("replay.mp4"))])
        timed = [k for k in files if k == "timing.json" or k.startswith("report/")]
        made.append({k: p.read_bytes() for k, p in files.items() if k not in timed})
    assert made[0] == made[1]
    np.testing.assert_array_equal(videos[0], videos[1])
    assert (b"replay.mp4 is MPEG-4 Part 2" in made[0]["report.json"]) is not has_av


def check_tracks(tracks: list[Any]) -> None:
    """One target a message, which moves by (3, 1) pixels in each twentieth of a second."""
    assert [stamp_of(m) for m in tracks] == [START + i * PERIOD for i in range(4, FRAMES)]
    assert {(m.image_width, m.image_height, len(m.tracks)) for m in tracks} == {(128, 96, 1)}
    first, third, lost, last = (tracks[i].tracks[0] for i in (0, 2, 3, -1))
    assert (first.id, first.state, first.score) == ("target", 1, 1.0)
    assert math.isnan(first.velocity.x)
    assert (third.velocity.x, third.velocity.y) == pytest.approx((60, 20))
    assert (lost.state, lost.seconds_lost) == (3, pytest.approx(0.05))
    assert (last.state, last.seconds_lost) == (1, 0)


def check_drawings(drawings: list[Any]) -> None:
    """The true box in white and the tracker's box, labeled, in the color of its state."""
    counts = [(len(m.points), len(m.texts)) for m in drawings]
    assert counts == [(1 if i == 9 else 2, 1) for i in range(4, FRAMES)]
    truth, found = drawings[3].points
    x, y, w, h = true_box(7)
    corners = [(x, y), (x + w, y), (x + w, y + h), (x, y + h)]
    assert [(p.x, p.y) for p in found.points] == corners == [(p.x, p.y) for p in truth.points]
    assert (truth.outline_color.g, truth.outline_color.b) == (1, 1)
    assert found.outline_color.r > 2 * found.outline_color.g
    assert [drawings[i].texts[0].text for i in (3, 4)] == ["target 0.90 lost", "target 0.90"]


@pytest.mark.usefixtures("fixed_tracker")
@pytest.mark.parametrize("overlay", ["compressed", "raw", "none"])
def test_the_new_bag_holds_detections_truth_and_overlay(tmp_path: Path, overlay: str) -> None:
    bag_path, out = make_bag(tmp_path / "bag", absent=(9,)), tmp_path / "out"
    arguments = ["replay", str(bag_path), "--init", "22,24,14,18@0.2"]
    arguments += ["--ground-truth-topic", TRUTH, "--output", str(out), "--overlay", overlay]
    arguments += ["--no-report"]
    assert main(arguments) == 0
    with Bag(out / "bag") as bag:
        detections = [m.message for m in bag.messages("/siamcar/detection")]
        truths = [m.message for m in bag.messages("/siamcar/ground_truth")]
        times = [m.time for m in bag.messages("/siamcar/detection")]
        images = list(bag.messages(bag.image_topic("/siamcar/image/compressed")))
        topic = "/siamcar/overlay" + ("" if overlay == "raw" else "/compressed")
        overlays = [] if overlay == "none" else list(bag.messages(bag.image_topic(topic)))
        tracks = [m.message for m in bag.messages("/siamcar/tracks")]
        drawings = [m.message for m in bag.messages("/siamcar/annotations")]
    tracked = range(4, FRAMES)
    assert times == [START + i * PERIOD for i in tracked]
    assert [stamp_of(m) for m in detections] == times
    assert [detection_box(m) for m in detections] == [true_box(i) for i in tracked]
    assert [detection_box(m) for m in truths] == [true_box(i) for i in tracked if i != 9]
    assert {(m.id, m.header.frame_id) for m in detections if m} == {("target", "cam")}
    # A lost target keeps its last box, and nothing is seen in it.
    assert [len(m.results) for m in detections if m][:5] == [1, 1, 1, 0, 1]
    assert detections[4] is not None
    assert detections[4].results[0].hypothesis.score == 0.9
    assert len(overlays) == (0 if overlay == "none" else len(tracked))
    assert [stamp_of(each.message) for each in images] == times
    check_tracks(tracks)
    check_drawings(drawings)
    link = yaml.safe_load((out / "bag" / "metadata.yaml").read_text())
    assert link["rosbag2_bagfile_information"]["custom_data"] == {
        "source_bag": str(bag_path),
        "source_topic": TOPIC,
    }
    capture = cv2.VideoCapture(str(out / "replay.mp4"))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == len(tracked)
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(20.0)


@pytest.mark.usefixtures("fixed_tracker")
def test_the_text_results_and_the_report_agree(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag_path, out = make_bag(tmp_path / "bag", broken=(7,)), tmp_path / "out"
    arguments = ["replay", str(bag_path), "--topic", TOPIC, "--ground-truth-topic", TRUTH]
    assert main([*arguments, "--output", str(out), "--no-video"]) == 0
    printed = capsys.readouterr().out
    report = json.loads((out / "report.json").read_text())
    assert (report["images"], report["tracked"], report["scored"]) == (20, 18, 18)
    assert report["score"] == {
        "average_overlap": 1.0,
        "success_50": 1.0,
        "success_75": 1.0,
        "precision_20": 1.0,
    }
    assert [(s["image"], s["seconds"]) for s in report["skipped"]] == [(7, 0.35)]
    assert "sepia8" in report["skipped"][0]["error"]
    assert "skipped image 7 at 0.350 s" in printed
    boxes = read_boxes(out / "boxes.txt")
    assert np.flatnonzero(np.isnan(boxes[:, 0])).tolist() == [7]
    assert boxes[12].tolist() == list(true_box(12))
    assert len((out / "frames.csv").read_text().splitlines()) == FRAMES + 1
    assert not (out / "replay.mp4").exists()
    page = json.loads((out / "report" / "report.json").read_text())
    assert page["trackers"]["Brightest"]["measures"]["ao"] == 1.0
    assert not (out / "sequence").exists()
    assert json.loads((out / "timing.json").read_text())["frames_per_second"] > 0


@pytest.mark.usefixtures("fixed_tracker")
def test_the_tracked_images_are_kept_as_a_sequence_on_request(tmp_path: Path) -> None:
    bag_path, out = make_bag(tmp_path / "bag", broken=(7,), absent=(9,)), tmp_path / "out"
    arguments = ["replay", str(bag_path), "--init", "@0.2", "--ground-truth-topic", TRUTH]
    assert main([*arguments, "--output", str(out), "--keep-sequence", "--no-report"]) == 0
    sequence = read_sequence(out / "sequence" / "bag")
    tracked = [i for i in range(4, FRAMES) if i != 7]
    assert len(sequence) == len(tracked)
    for path, row, i in zip(sequence.frames, sequence.boxes, tracked, strict=True):
        expected = (np.nan,) * 4 if i == 9 else true_box(i)
        np.testing.assert_allclose(row, expected)
        image = cv2.imread(str(path))
        assert image is not None
        assert BrightestSquare().update(image).box == true_box(i)
    assert not (out / "report").exists()
