"""Bags written and read back: storages, compressions, what a writer leaves when it fails."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from recorded_bags import FRAMES, RATE, TOPIC, contents, frame, record, storage_file
from rosbags.interfaces import ConnectionExtRosbag2
from rosbags.rosbag2 import Reader

from siamcar_ros.bags.messages import DETECTION, IMAGE, typestore
from siamcar_ros.bags.reader import Bag
from siamcar_ros.bags.recording import FIRST_STAMP, record_sequence
from siamcar_ros.data.detections import detection_box, stamp_of
from siamcar_ros.data.image_messages import ImageDecoder

# vision_msgs 4.1.1 as released
VISION_HASHES = {
    "Point2D": "eab0e83f44ab4de92ceaf76dd7d0e7638f2bdd1d16ffbe16c7a136c48e407247",
    "Pose2D": "b0b5d1d7b4c20dd4fcde3ed1d4b289a919290572007d67a97043814db25d3648",
    "BoundingBox2D": "008eacbb0cf8f26e83795547bed013eec3675485ef386ec056d80eaaf1c1ce2f",
    "ObjectHypothesis": "51da43cec11c01957a64d1e05a24acd18aae7745ec30b74348ad5f6d634f7f90",
    "ObjectHypothesisWithPose": "41c12344c0396c48b81df12467c192d99b2a0eb1463c5c37194e4223251c80bc",
    "Detection2D": "0d12b69df5c593b3455b7346fac8205437a7d4bcb09b9e0e0b2dde787ded38ea",
    "Detection2DArray": "214274120007f4a683866481336b70310268cfa107aebe9d594a6acf75bda968",
}
STORAGE_MODES = [
    ("mcap", "none"),
    ("mcap", "message"),
    ("mcap", "file"),
    ("mcap", "storage"),
    ("sqlite3", "none"),
    ("sqlite3", "message"),
    ("sqlite3", "file"),
]


@pytest.mark.parametrize(("name", "digest"), VISION_HASHES.items())
def test_vision_msgs_are_the_released_ones(name: str, digest: str) -> None:
    assert typestore().hash_rihs01(f"vision_msgs/msg/{name}") == f"RIHS01_{digest}"


@pytest.mark.parametrize(("storage", "compression"), STORAGE_MODES)
def test_a_recorded_sequence_reads_back_whole(
    sequence: Path, tmp_path: Path, storage: str, compression: str
) -> None:
    bag_path = record(sequence, tmp_path / "bag", storage, compression)
    with Bag(bag_path) as bag:
        assert bag.topics == {TOPIC: IMAGE, "/ground_truth": DETECTION}
        assert bag.start == FIRST_STAMP
        assert bag.end == bag.start + round((FRAMES - 1) * 1e9 / RATE)
        images = list(bag.messages(bag.image_topic(None)))
        truths = list(bag.messages("/ground_truth"))
        assert bag.notes == []
    assert len(images) == len(truths) == FRAMES
    for i, (image, truth) in enumerate(zip(images, truths, strict=True)):
        assert image.message is not None
        assert truth.message is not None
        assert stamp_of(image.message) == stamp_of(truth.message) == image.time == truth.time
        assert image.message.header.frame_id == "camera"
        assert (ImageDecoder().decode(image.message) == frame(sequence, i)).all()
        expected = None if i == 10 else (10.0 + 3 * i, 20.0 + i, 14.0, 18.0)
        assert detection_box(truth.message) == expected
        assert len(truth.message.results) == (i != 10)


@pytest.mark.parametrize(("storage", "compression"), STORAGE_MODES)
def test_the_storage_file_alone_is_enough(
    sequence: Path, tmp_path: Path, storage: str, compression: str
) -> None:
    file = storage_file(record(sequence, tmp_path / "bag", storage, compression))
    alone = tmp_path / file.name
    shutil.copy(file, alone)
    with Bag(alone) as bag:
        images = list(bag.messages(TOPIC))
        assert bag.notes == []
    assert len(images) == FRAMES
    assert images[7].message is not None
    assert (ImageDecoder().decode(images[7].message) == frame(sequence, 7)).all()


def test_the_same_sequence_gives_the_same_bytes(sequence: Path, tmp_path: Path) -> None:
    first = record(sequence, tmp_path / "a" / "bag")
    second = record(sequence, tmp_path / "b" / "bag")
    assert contents(first) == contents(second)


def test_a_full_disk_is_an_os_error_and_leaves_no_bag(tmp_path: Path) -> None:
    """The limit on a file's size fails as a full disk does, in a process of its own."""
    code = f"""
import resource
import numpy as np
from siamcar_ros.bags.messages import image_message
from siamcar_ros.bags.writer import BagWriter
resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, resource.RLIM_INFINITY))
try:
    with BagWriter({str(tmp_path / "bag")!r}) as writer:
        for i in range(40):
            writer.write("/image", image_message(np.zeros((240, 320, 3), np.uint8), i, ""), i)
except OSError as error:
    print("refused:", error)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "refused:" in ran.stdout, ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_bag_is_never_overwritten(sequence: Path, tmp_path: Path) -> None:
    record(sequence, tmp_path / "bag")
    before = contents(tmp_path / "bag")
    with pytest.raises(FileExistsError, match="not overwritten"):
        record(sequence, tmp_path / "bag")
    assert contents(tmp_path / "bag") == before


@pytest.mark.parametrize("rate", [0.0, float("nan")])
def test_rates_that_make_no_bag_are_refused(sequence: Path, tmp_path: Path, rate: float) -> None:
    with pytest.raises(ValueError, match="rate must be from"):
        record_sequence(sequence, tmp_path / "bag", rate=rate)
    assert not (tmp_path / "bag").exists()


def test_players_are_offered_reliable_publishers(sequence: Path, tmp_path: Path) -> None:
    with Reader(record(sequence, tmp_path / "bag")) as reader:
        for connection in reader.connections:
            assert isinstance(connection.ext, ConnectionExtRosbag2)
            (qos,) = connection.ext.offered_qos_profiles
            assert qos.reliability.name == "RELIABLE"
