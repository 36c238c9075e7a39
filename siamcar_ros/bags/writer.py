"""Writing bags without ROS, in the format that `ros2 bag`, RViz and Foxglove read.

The same messages give the same bytes: apart from the folder's name nothing about the time or the
machine enters the files.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
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
from siamcar_ros.files import scratch_folder

STORAGES = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}
COMPRESSION_MODES = {
    "none": CompressionMode.NONE,
    "message": CompressionMode.MESSAGE,
    "file": CompressionMode.FILE,
    "chunk": CompressionMode.STORAGE,
}
# What a playing publisher offers: reliable, so that nothing is lost on the way to a scorer.
_QOS = Qos(
    QosHistory.KEEP_LAST,
    10,
    QosReliability.RELIABLE,
    QosDurability.VOLATILE,
    deadline=QosTime(0, 0),
    lifespan=QosTime(0, 0),
    liveliness=QosLiveliness.AUTOMATIC,
    liveliness_lease_duration=QosTime(0, 0),
    avoid_ros_namespace_conventions=False,
)


class BagWriter:
    """A new rosbag2 folder, for a `with` statement.

    It is written beside its place and moved there at the end; an exception leaves nothing.
    """

    def __init__(
        self, folder: str | Path, *, storage: str = "mcap", compression: str = "none"
    ) -> None:
        """Check the arguments, keys of `STORAGES` and of `COMPRESSION_MODES` (zstd).

        Raises:
            FileExistsError: the folder exists.
            BagError: unknown storage or compression, or the two do not go together.
        """
        self._folder = Path(folder)
        if self._folder.exists():
            raise FileExistsError(f"{folder} exists and is not overwritten")
        if storage not in STORAGES or compression not in COMPRESSION_MODES:
            raise BagError(
                f"storage {storage!r} with compression {compression!r}: expected one of"
                f" {', '.join(STORAGES)} and one of {', '.join(COMPRESSION_MODES)}"
            )
        if storage == "sqlite3" and compression == "chunk":
            raise BagError("only mcap is compressed by chunk; with sqlite3 use 'message' or 'file'")
        self._storage, self._compression = STORAGES[storage], COMPRESSION_MODES[compression]
        self._connections: dict[str, Connection] = {}
        self._cleanup = ExitStack()

    def __enter__(self) -> BagWriter:
        parent = self._folder.absolute().parent
        parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack, _disk_errors(self._folder):
            scratch = stack.enter_context(scratch_folder(parent, ".bag-"))
            writer = Writer(scratch / self._folder.name, version=8, storage_plugin=self._storage)
            writer.set_compression(self._compression, CompressionFormat.ZSTD)
            writer.open()
            self._writer = writer
            self._cleanup = stack.pop_all()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        with self._cleanup, _disk_errors(self._folder):
            self._writer.__exit__(kind, error, trace)
            if error is None:
                self._writer.path.rename(self._folder)

    def describe(self, key: str, value: str) -> None:
        """Note something about the bag in its metadata.yaml."""
        self._writer.set_custom_data(key, value)

    def add_topic(self, name: str, msgtype: str) -> None:
        """Declare a topic; the order of these calls is part of the file."""
        with _disk_errors(self._folder):
            self._connections[name] = self._writer.add_connection(
                name, msgtype, typestore=typestore(), offered_qos_profiles=[_QOS]
            )

    def write(self, topic: str, message: Any, time: int) -> None:
        """Append a message as received at `time` (nanoseconds).

        Raises:
            OSError: the file cannot be written, for example because the disk is full.
        """
        connection = self._connections[topic]
        data = typestore().serialize_cdr(message, connection.msgtype)
        with _disk_errors(self._folder):
            self._writer.write(connection, time, data)


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Raise SQLite's errors as OSError."""
    try:
        yield
    except sqlite3.Error as error:
        raise OSError(f"{folder} cannot be written: {error}") from error
