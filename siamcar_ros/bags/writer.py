"""Bags written without ROS, in the format that `ros2 bag`, RViz and Foxglove read.

The same messages give the same bytes: nothing of the clock or the machine enters the file, only the
folder's name does.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from types import TracebackType
from typing import Any

from rosbags.interfaces import (
    Connection,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from siamcar_ros.bags.messages import typestore
from siamcar_ros.bags.reader import BagError

STORAGES = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}
COMPRESSION_MODES = {
    "none": CompressionMode.NONE,
    "message": CompressionMode.MESSAGE,
    "file": CompressionMode.FILE,
    "chunk": CompressionMode.STORAGE,
}
_UNSET = QosTime(0, 0)
# What a playing publisher offers: reliable, so that nothing is lost on the way to a scorer.
_QOS = Qos(
    history=QosHistory.KEEP_LAST,
    depth=10,
    reliability=QosReliability.RELIABLE,
    durability=QosDurability.VOLATILE,
    deadline=_UNSET,
    lifespan=_UNSET,
    liveliness=QosLiveliness.AUTOMATIC,
    liveliness_lease_duration=_UNSET,
    avoid_ros_namespace_conventions=False,
)


class BagWriter:
    """A new rosbag2 folder, for a `with` statement; an exception leaves none."""

    def __init__(
        self, folder: str | Path, *, storage: str = "mcap", compression: str = "none"
    ) -> None:
        """Create the folder.

        Args:
            folder: must not exist.
            storage: "mcap" or "sqlite3".
            compression: "none", or zstd by "message", by "file", or by "chunk" (mcap only).

        Raises:
            FileExistsError: the folder is there.
            BagError: no such storage or compression, or the two do not go together.
        """
        folder = Path(folder)
        if folder.exists():
            raise FileExistsError(f"{folder} exists and is not overwritten")
        if storage not in STORAGES or compression not in COMPRESSION_MODES:
            raise BagError(
                f"storage {storage!r} with compression {compression!r}: expected one of"
                f" {', '.join(STORAGES)} and one of {', '.join(COMPRESSION_MODES)}"
            )
        if storage == "sqlite3" and compression == "chunk":
            raise BagError("compression by chunk is mcap's; with sqlite3 use 'message' or 'file'")
        self._writer = Writer(folder, version=8, storage_plugin=STORAGES[storage])
        self._writer.set_compression(COMPRESSION_MODES[compression], CompressionFormat.ZSTD)
        self._connections: dict[str, Connection] = {}

    def __enter__(self) -> BagWriter:
        self._writer.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.__exit__(kind, error, trace)
        if error is not None:
            shutil.rmtree(self._writer.path, ignore_errors=True)

    def add_topic(self, name: str, msgtype: str) -> None:
        """Declare a topic; the order of these calls is part of the file."""
        self._connections[name] = self._writer.add_connection(
            name, msgtype, typestore=typestore(), offered_qos_profiles=[_QOS]
        )

    def write(self, topic: str, message: Any, time: int) -> None:
        """Append a message as received at `time` (nanoseconds)."""
        connection = self._connections[topic]
        data = typestore().serialize_cdr(message, connection.msgtype)
        self._writer.write(connection, time, data)
