"""Bags written and read back: storages, compressions, damage, and what a sequence becomes."""

from __future__ import annotations

import re
import shutil
import sqlite3
import struct
import subprocess
import sys
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from rosbags.interfaces import ConnectionExtRosbag2
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore

from siamcar_ros.bags.messages import (
    COMPRESSED_IMAGE,
    DETECTION,
    IMAGE,
    detection_message,
    typestore,
)
from siamcar_ros.bags.reader import Bag, BagError
from siamcar_ros.bags.recording import FIRST_STAMP, RecordOptions, record_sequence
from siamcar_ros.bags.repair import ZSTD_MAGIC
from siamcar_ros.bags.writer import BagWriter
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
FRAMES, SIZE, RATE = 24, (96, 128), 20.0
TOPIC = "/camera/image_raw"
STORAGE_MODES = [
    ("mcap", "none"),
    ("mcap", "message"),
    ("mcap", "file"),
    ("mcap", "chunk"),
    ("sqlite3", "none"),
    ("sqlite3", "message"),
    ("sqlite3", "file"),
]


@pytest.fixture(scope="module")
def sequence(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A noisy ground with a bright square that moves; absent in frame 10 (counted from 0)."""
    folder = tmp_path_factory.mktemp("sequence")
    rng = np.random.default_rng(3)
    rows = []
    for i in range(FRAMES):
        image = rng.integers(0, 90, (*SIZE, 3), np.uint8)
        x, y = 10 + 3 * i, 20 + i
        image[y : y + 18, x : x + 14] = (250, 240, 255)
        assert cv2.imwrite(str(folder / f"{i + 1:08d}.png"), image)
        rows.append("nan,nan,nan,nan" if i == 10 else f"{x},{y},14,18")
    (folder / "groundtruth.txt").write_text("\n".join(rows) + "\n")
    return folder


def frame(sequence: Path, index: int) -> np.ndarray:
    image = cv2.imread(str(sequence / f"{index + 1:08d}.png"))
    assert image is not None
    return image


def record(sequence: Path, bag: Path, storage: str = "mcap", compression: str = "none") -> Path:
    options = RecordOptions(rate=RATE, storage=storage, compression=compression)
    record_sequence(sequence, bag, options)
    return bag


def contents(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def storage_file(bag: Path) -> Path:
    return next(p for p in bag.iterdir() if p.name != "metadata.yaml")


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
        assert bag.start == round(FIRST_STAMP * 1e9)
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


@pytest.mark.parametrize(("storage", "compression"), STORAGE_MODES)
def test_the_same_sequence_gives_the_same_bytes(
    sequence: Path, tmp_path: Path, storage: str, compression: str
) -> None:
    first = record(sequence, tmp_path / "a" / "bag", storage, compression)
    second = record(sequence, tmp_path / "b" / "bag", storage, compression)
    assert contents(first) == contents(second)


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_message_that_does_not_decompress_is_the_only_one_lost(
    sequence: Path, tmp_path: Path, storage: str
) -> None:
    file = storage_file(record(sequence, tmp_path / "bag", storage, "message"))
    data = bytearray(file.read_bytes())
    starts = [m.start() for m in re.finditer(re.escape(ZSTD_MAGIC), data)]
    image = [a for a, b in pairwise([*starts, len(data)]) if b - a > 5000][5]
    data[image + 4 : image + 12] = bytes(8)
    file.write_bytes(data)
    with Bag(tmp_path / "bag") as bag:
        images = list(bag.messages(TOPIC))
        assert bag.notes == []
    assert len(images) == FRAMES
    (lost,) = (m for m in images if m.message is None)
    assert "sensor_msgs/msg/Image" in lost.error


def test_a_lost_index_is_made_up_for(sequence: Path, tmp_path: Path) -> None:
    bag_path = record(sequence, tmp_path / "bag", compression="message")
    (bag_path / "metadata.yaml").unlink()
    with Bag(bag_path) as bag:
        images = list(bag.messages(TOPIC))
        assert "metadata" in bag.notes[0]
    assert [m.message is not None for m in images] == [True] * FRAMES


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `sequence`, of pictures that fill several of mcap's chunks."""
    folder = tmp_path_factory.mktemp("large")
    rng = np.random.default_rng(3)
    for i in range(FRAMES):
        image = rng.integers(0, 256, (240, 320, 3), np.uint8)
        assert cv2.imwrite(str(folder / f"{i + 1:08d}.png"), image)
    (folder / "groundtruth.txt").write_text(FRAMES * "1,2,30,40\n")
    return folder


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("compression", ["none", "message", "file", "chunk"])
def test_a_cut_off_bag_is_read_up_to_the_cut(
    large: Path, tmp_path: Path, compression: str, kept: float
) -> None:
    file = storage_file(record(large, tmp_path / "bag", "mcap", compression))
    file.write_bytes(file.read_bytes()[: int(kept * file.stat().st_size)])
    with Bag(tmp_path / "bag") as bag:
        images = [m for m in bag.messages(TOPIC) if m.message is not None]
        assert "is cut off; it is read up to there" in bag.notes[0]
    # Every image that is wholly there, less those that share a chunk with the cut.
    assert kept * FRAMES - 7 <= len(images) <= kept * FRAMES + 2
    for i, image in enumerate(images):
        assert (ImageDecoder().decode(image.message) == frame(large, i)).all()


@pytest.mark.parametrize("compression", ["none", "chunk"])
def test_zeros_where_nothing_was_written_cost_no_chunk_but_the_torn_one(
    large: Path, tmp_path: Path, compression: str
) -> None:
    """As a preallocated file, or a file system after a loss of power, leaves it."""
    file = storage_file(record(large, tmp_path / "bag", "mcap", compression))
    whole = file.read_bytes()
    kept = len(whole) * 6 // 10
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(whole[:kept])
    with Bag(cut) as bag:
        expected = len(list(bag.messages(TOPIC)))
    cut.write_bytes(whole[:kept] + bytes(2 * len(whole)))
    with Bag(cut) as bag:
        assert len(list(bag.messages(TOPIC))) == expected > 0


@pytest.mark.parametrize("kept", [0.3, 0.95])
def test_for_other_damage_the_tool_that_helps_is_named(
    large: Path, tmp_path: Path, kept: float
) -> None:
    file = storage_file(record(large, tmp_path / "bag", "sqlite3"))
    file.write_bytes(file.read_bytes()[: int(kept * file.stat().st_size)])
    with pytest.raises(BagError, match=r"bag\.db3: .*`sqlite3 FILE \.recover`"):
        Bag(tmp_path / "bag")
    (tmp_path / "noise.mcap").write_bytes(np.random.default_rng(0).bytes(5000))
    with pytest.raises(BagError, match="`mcap recover`"):
        Bag(tmp_path / "noise.mcap")


@pytest.mark.parametrize("with_metadata", [True, False])
def test_the_write_ahead_log_of_a_recorder_that_was_killed_is_read(
    sequence: Path, tmp_path: Path, with_metadata: bool
) -> None:
    whole = storage_file(record(sequence, tmp_path / "whole", "sqlite3"))
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    work = tmp_path / "work.db3"
    shutil.copy(whole, work)
    with closing(sqlite3.connect(work)) as base:
        base.execute("PRAGMA journal_mode=WAL")
        base.execute("PRAGMA wal_autocheckpoint=0")
        rows = base.execute("SELECT * FROM messages WHERE id > 20 ORDER BY id").fetchall()
        base.execute("DELETE FROM messages WHERE id > 20")
        base.commit()
        base.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        base.executemany("INSERT INTO messages VALUES (?, ?, ?, ?)", rows)
        base.commit()
        for suffix in ("", "-wal", "-shm"):  # as they are while the recorder runs
            shutil.copy(f"{work}{suffix}", crashed / f"{whole.name}{suffix}")
    if with_metadata:
        shutil.copy(whole.with_name("metadata.yaml"), crashed)
    before = contents(crashed)
    with Bag(crashed) as bag:
        assert len(list(bag.messages(TOPIC))) == FRAMES
    with Bag(crashed / whole.name) as bag:
        assert len(list(bag.messages(TOPIC))) == FRAMES
    assert contents(crashed) == before


def without_schemas(file: Path) -> None:
    """Give every channel of an uncompressed mcap file schema id 0, and remove the summary."""
    data = file.read_bytes()
    kept, position = bytearray(data[:8]), 8
    while position < len(data) - 8:
        kind, length = struct.unpack_from("<BQ", data, position)
        record = bytearray(data[position : position + 9 + length])
        position += 9 + length
        if kind == 0x06:  # a chunk: its records instead
            (name,) = struct.unpack_from("<I", record, 9 + 28)
            inner = record[9 + 32 + name + 8 :]
            data = data[:position] + bytes(inner) + data[position:]
        elif kind == 0x04:
            kept += record[:11] + bytes(2) + record[13:]
        elif kind in (0x01, 0x05):
            kept += record
        elif kind == 0x0F:
            break
    kept += struct.pack("<BQQQI", 0x02, 20, 0, 0, 0) + data[:8]
    file.write_bytes(kept)


def test_types_that_only_the_metadata_names_are_taken_from_there(
    sequence: Path, tmp_path: Path
) -> None:
    folder = record(sequence, tmp_path / "bag")
    without_schemas(storage_file(folder))
    with Bag(folder) as bag:
        images = [m.message for m in bag.messages(bag.image_topic(None))]
    assert len(images) == FRAMES
    assert (ImageDecoder().decode(images[3]) == frame(sequence, 3)).all()


def test_the_readers_own_reason_is_given(sequence: Path, tmp_path: Path) -> None:
    mcap, sqlite = (
        storage_file(record(sequence, tmp_path / name, name)) for name in ("mcap", "sqlite3")
    )
    shutil.copy(mcap, tmp_path / "renamed.db3")
    with pytest.raises(BagError, match=r"renamed\.db3: .*file is not a database"):
        Bag(tmp_path / "renamed.db3")
    shutil.copy(sqlite, tmp_path / "renamed.mcap")
    with pytest.raises(BagError, match=r"renamed\.mcap: File magic is invalid"):
        Bag(tmp_path / "renamed.mcap")
    mcap.write_bytes(mcap.read_bytes().replace(b"ros2", b"ros1", 1))
    with pytest.raises(BagError, match=r"mcap\.mcap: Profile is not ros2"):
        Bag(tmp_path / "mcap")


def test_a_file_that_the_metadata_names_and_that_is_missing_is_noted(
    sequence: Path, tmp_path: Path
) -> None:
    folder = record(sequence, tmp_path / "bag")
    text = (folder / "metadata.yaml").read_text()
    renamed = folder / "kept_0.mcap"
    storage_file(folder).rename(renamed)
    with Bag(folder) as bag:
        assert len(list(bag.messages(TOPIC))) == FRAMES
        assert "bag.mcap, which metadata.yaml names, is missing" in bag.notes[0]
    assert text == (folder / "metadata.yaml").read_text()


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_full_disk_is_an_os_error_and_leaves_no_bag(tmp_path: Path, storage: str) -> None:
    """The limit on a file's size fails as a full disk does, in a process of its own."""
    code = f"""
import resource
import numpy as np
from siamcar_ros.bags.messages import IMAGE, image_message
from siamcar_ros.bags.writer import BagWriter
resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, resource.RLIM_INFINITY))
try:
    with BagWriter({str(tmp_path / "bag")!r}, storage={storage!r}) as writer:
        writer.add_topic("/image", IMAGE)
        for i in range(40):
            writer.write("/image", image_message(np.zeros((240, 320, 3), np.uint8), i, ""), i)
except OSError as error:
    print("refused:", error)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "refused:" in ran.stdout, ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_writer_left_is_cleared_by_the_next(tmp_path: Path) -> None:
    code = f"""
import os, signal
from siamcar_ros.bags.writer import BagWriter
with BagWriter({str(tmp_path / "bag")!r}):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    assert len(list(tmp_path.glob(".bag-*"))) == 1
    with BagWriter(tmp_path / "own") as running, BagWriter(tmp_path / "bag"):
        assert len(list(tmp_path.glob(".bag-*"))) == 2, "those in use stay"
        running.add_topic("/truth", DETECTION)
    assert {path.name for path in tmp_path.iterdir()} == {"own", "bag"}


def test_definitions_that_were_not_found_spoil_no_others(sequence: Path, tmp_path: Path) -> None:
    """As rosbag2 writes them for a type whose package is not installed."""
    folder = record(sequence, tmp_path / "bag", "sqlite3")
    with closing(sqlite3.connect(storage_file(folder))) as base:
        base.execute(
            "INSERT INTO message_definitions (topic_type, encoding, encoded_message_definition,"
            " type_description_hash) VALUES ('mine/msg/Odd', 'unknown', '', '')"
        )
        base.execute(
            "INSERT INTO topics (name, type, serialization_format, offered_qos_profiles,"
            " type_description_hash) VALUES ('/odd', 'mine/msg/Odd', 'cdr', '', '')"
        )
        base.commit()
    with Bag(storage_file(folder)) as bag:
        assert len([each for each in bag.messages(TOPIC) if each.message is not None]) == FRAMES


def test_a_definition_that_does_not_parse_spoils_no_others(sequence: Path, tmp_path: Path) -> None:
    folder = record(sequence, tmp_path / "bag", "sqlite3")
    with closing(sqlite3.connect(storage_file(folder))) as base:
        base.execute(
            "UPDATE message_definitions SET encoded_message_definition='no such thing {'"
            f" WHERE topic_type='{DETECTION}'"
        )
        base.commit()
    with Bag(folder) as bag:
        assert len([each for each in bag.messages(TOPIC) if each.message is not None]) == FRAMES


def test_qos_that_was_edited_hides_no_images(sequence: Path, tmp_path: Path) -> None:
    folder = record(sequence, tmp_path / "bag", "sqlite3")
    metadata = yaml.safe_load((folder / "metadata.yaml").read_text())
    for entry in metadata["rosbag2_bagfile_information"]["topics_with_message_count"]:
        entry["topic_metadata"]["offered_qos_profiles"] = ""
    (folder / "metadata.yaml").write_text(yaml.safe_dump(metadata))
    with Bag(folder) as bag:
        assert len(list(bag.messages(TOPIC))) == FRAMES


def test_topics_are_found_with_a_leading_slash_or_without(sequence: Path, tmp_path: Path) -> None:
    options = RecordOptions(topic="image", ground_truth_topic="truth/")
    record_sequence(sequence, tmp_path / "bag", options)
    with Bag(tmp_path / "bag") as bag:
        assert set(bag.topics) == {"/image", "/truth"}
        assert bag.image_topic("image") == bag.image_topic("/image") == "/image"
        bag.topics = {"image": IMAGE}  # as some recorders write them
        assert bag.image_topic("/image") == "image"


def test_a_bag_of_several_files_is_one(sequence: Path, tmp_path: Path) -> None:
    """As `ros2 bag record --max-bag-duration` splits it, its index lost."""
    folder = tmp_path / "split"
    folder.mkdir()
    for part in range(2):
        bag = tmp_path / f"part_{part}"
        options = RecordOptions(rate=RATE, first_stamp=FIRST_STAMP + 10 * part)
        record_sequence(sequence, bag, options)
        shutil.copy(storage_file(bag), folder / f"split_{1 - part}.mcap")
    with Bag(folder) as opened:
        times = [m.time for m in opened.messages(TOPIC)]
    assert len(times) == 2 * FRAMES
    assert times == sorted(times)


def test_what_is_no_bag_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no bag at"):
        Bag(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BagError, match=r"it has no \.mcap or \.db3 file"):
        Bag(tmp_path / "empty")
    for name in ("noise.mcap", "noise.db3", "noise.mcap.zstd", "noise.bag"):
        (tmp_path / name).write_bytes(np.random.default_rng(0).bytes(5000))
        with pytest.raises(BagError, match="noise"):
            Bag(tmp_path / name)
    (tmp_path / "text.txt").write_text("hello")
    with pytest.raises(BagError, match=r"expected a folder, or a \.mcap"):
        Bag(tmp_path / "text.txt")


def test_a_missing_topic_names_those_that_are_there(sequence: Path, tmp_path: Path) -> None:
    with Bag(record(sequence, tmp_path / "bag")) as bag:
        with pytest.raises(
            BagError, match=rf"has no topic /front; .*{TOPIC} \(sensor_msgs/msg/Image"
        ):
            bag.image_topic("/front")
        with pytest.raises(BagError, match=r"/ground_truth .* holds vision_msgs/msg/Detection2D"):
            bag.image_topic("/ground_truth")
        with pytest.raises(BagError, match="its Detection2D topics are: /ground_truth"):
            bag.detection_topic("/truth")
        assert bag.image_topic("camera/image_raw") == TOPIC


def test_a_choice_of_image_topics_is_not_made_silently(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag") as writer:
        for topic in ("/left", "/right"):
            writer.add_topic(topic, DETECTION)
            writer.write(topic, detection_message(None, 5, "c", id="", class_id=""), 5)
    with Bag(tmp_path / "bag") as bag, pytest.raises(BagError, match="it has no image topic"):
        bag.image_topic(None)


def test_jpegs_go_into_a_compressed_topic_as_they_are(sequence: Path, tmp_path: Path) -> None:
    folder = tmp_path / "jpegs"
    folder.mkdir()
    for i in range(3):
        cv2.imwrite(str(folder / f"{i}.jpg"), frame(sequence, i))
    (folder / "groundtruth.txt").write_text("1,2,3,4\n" * 3)
    recording = record_sequence(folder, tmp_path / "bag", RecordOptions(compressed=True))
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
    with Bag(tmp_path / "bag") as bag:
        times = [m.time for m in bag.messages(TOPIC)]
    assert np.diff(times).tolist() == [80_000_000] * 4


def test_a_broken_frame_is_left_out_and_named(sequence: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sequence"
    shutil.copytree(sequence, folder)
    (folder / "00000004.png").write_bytes(b"no picture")
    recording = record_sequence(folder, tmp_path / "bag", RecordOptions(rate=RATE))
    assert recording.frames == FRAMES - 1
    assert "frame 4 does not decode" in recording.notes[0]
    with Bag(tmp_path / "bag") as bag:
        stamps = [m.time - bag.start for m in bag.messages(TOPIC)]
    assert stamps[2:4] == [100_000_000, 200_000_000]


def test_nothing_is_left_of_a_recording_that_fails(tmp_path: Path) -> None:
    folder = tmp_path / "sequence"
    folder.mkdir()
    (folder / "1.png").write_bytes(b"no picture")
    (folder / "groundtruth.txt").write_text("1,2,3,4\n")
    with pytest.raises(BagError, match="no frame of"):
        record_sequence(folder, tmp_path / "bag")
    assert not (tmp_path / "bag").exists()


def test_ros_1_bags_are_read(tmp_path: Path) -> None:
    store = get_typestore(Stores.ROS1_NOETIC)
    types = store.types
    pixels = np.arange(24, dtype=np.uint8)
    with Ros1Writer(tmp_path / "old.bag") as writer:
        connection = writer.add_connection(TOPIC, IMAGE, typestore=store)
        for i in range(3):
            header = types["std_msgs/msg/Header"](
                seq=i, stamp=types["builtin_interfaces/msg/Time"](5, i), frame_id="camera"
            )
            message = types[IMAGE](header, 2, 4, "bgr8", 0, 12, pixels)
            writer.write(connection, i, store.serialize_ros1(message, IMAGE))
    with Bag(tmp_path / "old.bag") as bag:
        images = [m.message for m in bag.messages(bag.image_topic(None))]
    assert [stamp_of(m) for m in images] == [5 * 10**9 + i for i in range(3)]
    assert (ImageDecoder().decode(images[0]).ravel() == pixels).all()


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
    with pytest.raises(BagError, match="is not a camera calibration: it lacks distortion_coeff"):
        record_sequence(sequence, tmp_path / "other", camera_info=tmp_path / "camera.yaml")
    assert not (tmp_path / "other").exists()


def test_a_bag_is_never_overwritten(sequence: Path, tmp_path: Path) -> None:
    record(sequence, tmp_path / "bag")
    before = contents(tmp_path / "bag")
    with pytest.raises(FileExistsError, match="not overwritten"):
        record(sequence, tmp_path / "bag")
    assert contents(tmp_path / "bag") == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 0.0}, "rate"),
        ({"rate": float("nan")}, "rate"),
        ({"first_stamp": -1.0}, "first stamp"),
        ({"storage": "tape"}, "storage 'tape'"),
        ({"storage": "sqlite3", "compression": "chunk"}, "chunk"),
    ],
)
def test_options_that_make_no_bag_are_refused(
    sequence: Path, tmp_path: Path, options: dict, message: str
) -> None:
    with pytest.raises(BagError, match=message):
        record_sequence(sequence, tmp_path / "bag", RecordOptions(**options))
    assert not (tmp_path / "bag").exists()


def test_players_are_offered_reliable_publishers(sequence: Path, tmp_path: Path) -> None:
    with Reader(record(sequence, tmp_path / "bag")) as reader:
        for connection in reader.connections:
            assert isinstance(connection.ext, ConnectionExtRosbag2)
            (qos,) = connection.ext.offered_qos_profiles
            assert qos.reliability.name == "RELIABLE"


def test_detections_of_older_vision_msgs_are_read() -> None:
    class Old:
        class bbox:
            class center:
                x, y = 50.0, 40.0

            size_x, size_y = 20.0, 10.0

    assert detection_box(Old) == (40.0, 35.0, 20.0, 10.0)
