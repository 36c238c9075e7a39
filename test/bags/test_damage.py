"""Damaged bags are read as far as possible; for other damage the message names the tool."""

from __future__ import annotations

import re
import shutil
import sqlite3
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from recorded_bags import FRAMES, TOPIC, frame, record, storage_file

from siamcar_ros.bags.messages import DETECTION
from siamcar_ros.bags.reader import ZSTD_MAGIC, Bag
from siamcar_ros.data.image_messages import ImageDecoder


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
@pytest.mark.parametrize("compression", ["none", "message", "file", "storage"])
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


@pytest.mark.parametrize("compression", ["none", "storage"])
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
    with pytest.raises(ValueError, match=r"bag\.db3: .*`sqlite3 FILE \.recover`"):
        Bag(tmp_path / "bag")
    (tmp_path / "noise.mcap").write_bytes(np.random.default_rng(0).bytes(5000))
    with pytest.raises(ValueError, match="`mcap recover`"):
        Bag(tmp_path / "noise.mcap")


def test_a_log_that_was_not_merged_is_not_passed_over(sequence: Path, tmp_path: Path) -> None:
    """As the recorder of an SQLite bag leaves it when it is killed."""
    file = storage_file(record(sequence, tmp_path / "bag", "sqlite3"))
    with closing(sqlite3.connect(file)) as base:
        base.execute("PRAGMA journal_mode=WAL")
        base.execute("DELETE FROM messages WHERE id > 20")
        base.commit()
        with pytest.raises(ValueError, match="`sqlite3 FILE 'PRAGMA journal_mode=DELETE'` merges"):
            Bag(tmp_path / "bag")
    with closing(sqlite3.connect(file)) as base:
        base.execute("PRAGMA journal_mode=DELETE")
    with Bag(tmp_path / "bag") as bag:
        assert len(list(bag.messages(TOPIC))) < FRAMES


def test_the_readers_own_reason_is_given(sequence: Path, tmp_path: Path) -> None:
    mcap, sqlite = (
        storage_file(record(sequence, tmp_path / name, name)) for name in ("mcap", "sqlite3")
    )
    shutil.copy(mcap, tmp_path / "renamed.db3")
    with pytest.raises(ValueError, match=r"renamed\.db3: .*file is not a database"):
        Bag(tmp_path / "renamed.db3")
    shutil.copy(sqlite, tmp_path / "renamed.mcap")
    with pytest.raises(ValueError, match=r"renamed\.mcap: File magic is invalid"):
        Bag(tmp_path / "renamed.mcap")
    mcap.write_bytes(mcap.read_bytes().replace(b"ros2", b"ros1", 1))
    with pytest.raises(ValueError, match=r"mcap\.mcap: Profile is not ros2"):
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


def test_for_a_definition_that_the_recorder_did_not_find_the_message_has_the_remedy(
    sequence: Path, tmp_path: Path
) -> None:
    """As rosbag2 writes it for a type whose package is not installed."""
    folder = record(sequence, tmp_path / "bag", "sqlite3")
    with closing(sqlite3.connect(storage_file(folder))) as base:
        base.execute(
            f"UPDATE message_definitions SET encoding='unknown' WHERE topic_type='{DETECTION}'"
        )
        base.commit()
        with pytest.raises(ValueError, match="lacks a message definition") as refusal:
            Bag(folder)
        remedy = re.search(r'sqlite3 FILE "(.*)"`', str(refusal.value))
        assert remedy is not None
        base.execute(remedy[1])
        base.commit()
    with Bag(folder) as bag:
        for topic in (TOPIC, "/ground_truth"):
            assert [each.error for each in bag.messages(topic)] == [""] * FRAMES


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
