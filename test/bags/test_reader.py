"""What a bag is, which topics it has, and bags of other versions."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from recorded_bags import FRAMES, TOPIC, convert, record, storage_file
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.typesys import Stores, get_typestore

from siamcar_ros.bags.messages import IMAGE, detection_message, image_message
from siamcar_ros.bags.reader import Bag
from siamcar_ros.bags.recording import record_sequence
from siamcar_ros.bags.writer import BagWriter
from siamcar_ros.data.detections import detection_box, stamp_of
from siamcar_ros.data.image_messages import ImageDecoder


def test_topics_are_found_with_a_leading_slash_or_without(sequence: Path, tmp_path: Path) -> None:
    record_sequence(sequence, tmp_path / "bag", topic="image", ground_truth_topic="truth/")
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
        convert(record(sequence, bag), delay=10**10 * part)
        shutil.copy(storage_file(bag), folder / f"split_{1 - part}.mcap")
    with Bag(folder) as opened:
        times = [m.time for m in opened.messages(TOPIC)]
    assert len(times) == 2 * FRAMES
    assert times == sorted(times)


def test_what_is_no_bag_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no bag at"):
        Bag(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"it has no \.mcap or \.db3 file"):
        Bag(tmp_path / "empty")
    for name in ("noise.mcap", "noise.db3", "noise.mcap.zstd", "noise.bag"):
        (tmp_path / name).write_bytes(np.random.default_rng(0).bytes(5000))
        with pytest.raises(ValueError, match=r"noise.* cannot be read: "):
            Bag(tmp_path / name)
    for name in ("text.txt", "text.txt.zstd", "text.zstd"):
        (tmp_path / name).write_text("hello")
        with pytest.raises(ValueError, match=r"expected a folder, or a \.mcap"):
            Bag(tmp_path / name)


def test_a_missing_topic_names_those_that_are_there(sequence: Path, tmp_path: Path) -> None:
    with Bag(record(sequence, tmp_path / "bag")) as bag:
        with pytest.raises(
            ValueError, match=rf"has no topic /front; .*{TOPIC} \(sensor_msgs/msg/Image"
        ):
            bag.image_topic("/front")
        with pytest.raises(ValueError, match=r"/ground_truth .* holds vision_msgs/msg/Detection2D"):
            bag.image_topic("/ground_truth")
        with pytest.raises(ValueError, match="its Detection2D topics are: /ground_truth"):
            bag.detection_topic("/truth")
        assert bag.image_topic("camera/image_raw") == TOPIC


def test_without_a_name_the_only_image_topic_is_taken_and_others_are_listed(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "none") as writer:
        writer.write("/truth", detection_message(None, 5, "c", id="", class_id=""), 5)
    with Bag(tmp_path / "none") as bag, pytest.raises(ValueError, match=r"has no image topic$"):
        bag.image_topic(None)
    with BagWriter(tmp_path / "two") as writer:
        for topic in ("/left", "/right"):
            writer.write(topic, image_message(np.zeros((2, 2, 3), np.uint8), 5, "c"), 5)
    with (
        Bag(tmp_path / "two") as bag,
        pytest.raises(ValueError, match=r"choose one with --topic: /left .*, /right "),
    ):
        bag.image_topic(None)


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


def test_detections_of_older_vision_msgs_are_read() -> None:
    class Old:
        class bbox:
            class center:
                x, y = 50.0, 40.0

            size_x, size_y = 20.0, 10.0

    assert detection_box(Old) == (40.0, 35.0, 20.0, 10.0)
