"""Sequences and videos become bags."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from recorded_bags import FRAMES, RATE, TOPIC, frame

from siamcar_ros.bags.messages import COMPRESSED_IMAGE
from siamcar_ros.bags.reader import Bag
from siamcar_ros.bags.recording import record_sequence
from siamcar_ros.data.detections import stamp_of


def test_jpegs_go_into_a_compressed_topic_as_they_are(sequence: Path, tmp_path: Path) -> None:
    folder = tmp_path / "jpegs"
    folder.mkdir()
    for i in range(3):
        cv2.imwrite(str(folder / f"{i}.jpg"), frame(sequence, i))
    (folder / "groundtruth.txt").write_text("1,2,3,4\n" * 3)
    recording = record_sequence(folder, tmp_path / "bag", compressed=True)
    assert (recording.frames, recording.boxes, recording.rate) == (3, 3, 30.0)
    with Bag(tmp_path / "bag") as bag:
        assert bag.topics[f"{TOPIC}/compressed"] == COMPRESSED_IMAGE
        for i, recorded in enumerate(bag.messages(f"{TOPIC}/compressed")):
            assert recorded.message is not None
            assert recorded.message.data.tobytes() == (folder / f"{i}.jpg").read_bytes()


def test_a_video_becomes_a_bag_at_its_own_rate(sequence: Path, tmp_path: Path) -> None:
    video = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"MJPG"), 12.5, (128, 96))
    assert writer.isOpened()
    for i in range(5):
        writer.write(frame(sequence, i))
    writer.release()
    (tmp_path / "boxes.txt").write_text("1 2 3 4\n5 6 7 8\n")
    recording = record_sequence(video, tmp_path / "bag", ground_truth=tmp_path / "boxes.txt")
    assert (recording.frames, recording.boxes, recording.rate) == (5, 2, 12.5)
    assert "boxes.txt: 2 rows for 5 images; no image from 3 on has a box" in recording.notes[0]
    with Bag(tmp_path / "bag") as bag:
        times = [m.time for m in bag.messages(TOPIC)]
    assert np.diff(times).tolist() == [80_000_000] * 4
    (tmp_path / "boxes.txt").write_text("1 2 3 4\n" * 6)
    recording = record_sequence(video, tmp_path / "other", ground_truth=tmp_path / "boxes.txt")
    assert "boxes.txt: 6 rows for 5 images; the rest is unused" in recording.notes[0]
    (tmp_path / "boxes.txt").rename(tmp_path / "clip.groundtruth.txt")
    assert record_sequence(video, tmp_path / "third").boxes == 5


def test_a_broken_frame_is_left_out_and_named(sequence: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sequence"
    shutil.copytree(sequence, folder)
    (folder / "00000004.png").write_bytes(b"no picture")
    recording = record_sequence(folder, tmp_path / "bag", rate=RATE)
    assert recording.frames == FRAMES - 1
    assert "frame 4 does not decode" in recording.notes[0]
    with Bag(tmp_path / "bag") as bag:
        stamps = [m.time - bag.start for m in bag.messages(TOPIC)]
    assert stamps[2:4] == [100_000_000, 200_000_000]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"topic": "bad topic"}, "'/bad topic' is not a topic name"),
        ({"ground_truth_topic": "/"}, "'/' is not a topic name"),
        ({"rate": 1e-300}, "rate must be from"),
    ],
)
def test_what_no_bag_can_hold_is_refused(
    sequence: Path, tmp_path: Path, given: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        record_sequence(sequence, tmp_path / "bag", **given)
    assert not (tmp_path / "bag").exists()


def test_nothing_is_left_of_a_recording_that_fails(tmp_path: Path) -> None:
    folder = tmp_path / "sequence"
    folder.mkdir()
    (folder / "1.png").write_bytes(b"no picture")
    (folder / "groundtruth.txt").write_text("1,2,3,4\n")
    with pytest.raises(ValueError, match="no frame of"):
        record_sequence(folder, tmp_path / "bag")
    assert not (tmp_path / "bag").exists()


def test_camera_info_travels_with_every_image(sequence: Path, tmp_path: Path) -> None:
    k = [100.0, 0, 64, 0, 101, 48, 0, 0, 1]
    calibration: dict = {
        "image_width": 128,
        "image_height": 96,
        "distortion_model": "plumb_bob",
        "camera_matrix": {"rows": 3, "cols": 3, "data": k},
        "distortion_coefficients": {"rows": 1, "cols": 5, "data": [0.1, 0, 0, 0, 0]},
        "rectification_matrix": {"rows": 3, "cols": 3, "data": [1, 0, 0, 0, 1, 0, 0, 0, 1]},
        "projection_matrix": {"rows": 3, "cols": 4, "data": [*k[:3], 0, *k[3:6], 0, *k[6:], 0]},
    }
    (tmp_path / "camera.yaml").write_text(yaml.safe_dump(calibration))
    record_sequence(sequence, tmp_path / "bag", camera_info=tmp_path / "camera.yaml")
    with Bag(tmp_path / "bag") as bag:
        infos = [m.message for m in bag.messages("/camera/camera_info")]
        stamps = [m.time for m in bag.messages(TOPIC)]
    assert [stamp_of(m) for m in infos] == stamps
    assert infos[-1] is not None
    assert infos[-1].k.tolist() == k
    del calibration["distortion_model"]  # as old calibrators leave it out
    (tmp_path / "camera.yaml").write_text(yaml.safe_dump(calibration | {"camera_model": "c"}))
    record_sequence(sequence, tmp_path / "old", camera_info=tmp_path / "camera.yaml")
    with Bag(tmp_path / "old") as bag:
        old = next(bag.messages("/camera/camera_info")).message
    assert old is not None
    assert old.distortion_model == "plumb_bob"
    (tmp_path / "camera.yaml").write_text("camera_matrix: 3")
    with pytest.raises(ValueError, match=r"is not a calibration .* KeyError.*distortion_coeff"):
        record_sequence(sequence, tmp_path / "other", camera_info=tmp_path / "camera.yaml")
    assert not (tmp_path / "other").exists()
