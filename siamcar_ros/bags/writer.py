"""Writing bags without ROS, as mcap, which `ros2 bag`, RViz and Foxglove read.

The same messages give the same bytes: apart from the folder's name nothing about the time or the
machine enters the files.
"""

from __future__ import annotations

from contextlib import ExitStack
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
from rosbags.rosbag2 import StoragePlugin, Writer

from siamcar_ros.bags.messages import typestore
from siamcar_ros.files import scratch_folder

# What a playing publisher offers. Without it, early releases of Jazzy refuse the bag.
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

    def __init__(self, folder: str | Path) -> None:
        """Name the bag's folder; FileExistsError if it exists."""
        self._folder = Path(folder)
        if self._folder.exists():
            raise FileExistsError(f"{folder} exists and is not overwritten")
        self._connections: dict[str, Connection] = {}

    def __enter__(self) -> BagWriter:
        parent = self._folder.absolute().parent
        parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            scratch = stack.enter_context(scratch_folder(parent, ".bag-"))
            self._writer = Writer(
                scratch / self._folder.name, version=8, storage_plugin=StoragePlugin.MCAP
            )
            self._writer.open()
            self._cleanup = stack.pop_all()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        with self._cleanup:
            self._writer.__exit__(kind, error, trace)
            if error is None:
                self._writer.path.rename(self._folder)

    def describe(self, key: str, value: str) -> None:
        """Note something about the bag in its metadata.yaml."""
        self._writer.set_custom_data(key, value)

    def write(self, topic: str, message: Any, time: int) -> None:
        """Append a message of rosbags, as received at `time` (nanoseconds).

        The first one on a topic declares it.
        """
        msgtype = message.__msgtype__
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(
                topic, msgtype, typestore=typestore(), offered_qos_profiles=[_QOS]
            )
        data = typestore().serialize_cdr(message, msgtype)
        self._writer.write(self._connections[topic], time, data)
