"""Bags recorded from the `sequence` of test/bags/conftest.py."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
from rosbags.rosbag2 import CompressionFormat, CompressionMode, Reader, StoragePlugin, Writer

from siamcar_ros.bags.messages import typestore
from siamcar_ros.bags.recording import record_sequence

FRAMES, SIZE, RATE = 24, (96, 128), 20.0
TOPIC = "/camera/image_raw"


def frame(sequence: Path, index: int) -> np.ndarray:
    image = cv2.imread(str(sequence / f"{index + 1:08d}.png"))
    assert image is not None
    return image


def record(sequence: Path, bag: Path, storage: str = "mcap", compression: str = "none") -> Path:
    """The sequence as a bag; other storages and zstd as another recorder writes them."""
    record_sequence(sequence, bag, rate=RATE)
    if (storage, compression) != ("mcap", "none"):
        convert(bag, StoragePlugin[storage.upper()], CompressionMode[compression.upper()])
    return bag


def convert(
    bag: Path,
    storage: StoragePlugin = StoragePlugin.MCAP,
    compression: CompressionMode = CompressionMode.NONE,
    *,
    delay: int = 0,
) -> None:
    """Write a bag again, in another form or with other times of recording."""
    plain = bag.rename(bag.with_name(f"plain_{bag.name}"))
    writer = Writer(bag, version=8, storage_plugin=storage)
    writer.set_compression(compression, CompressionFormat.ZSTD)
    with Reader(plain) as reader, writer:
        topics = {
            c.id: writer.add_connection(c.topic, c.msgtype, typestore=typestore())
            for c in reader.connections
        }
        for connection, time, data in reader.messages():
            writer.write(topics[connection.id], time + delay, data)
    shutil.rmtree(plain)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def storage_file(bag: Path) -> Path:
    return next(p for p in bag.iterdir() if p.name != "metadata.yaml")
