"""Reading bags without ROS: rosbag2 folders and single files, mcap and SQLite, raw or compressed
with zstd (by message, file or chunk), and ROS 1 bags.
"""

from __future__ import annotations

import shutil
import struct
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection

from siamcar_ros.bags.messages import COMPRESSED_IMAGE, DETECTION, IMAGE, typestore
from siamcar_ros.files import scratch_folder
from siamcar_ros.resources import read_yaml

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"

_MCAP_MAGIC = b"\x89MCAP0\r\n"
_NOTHING, _FOOTER, _DATA_END = 0x00, 0x02, 0x0F
# A footer that points to no summary: readers then scan the file.
_MCAP_END = struct.pack("<BQQQI", _FOOTER, 20, 0, 0, 0) + _MCAP_MAGIC
_STORAGE = (".mcap", ".db3")
_METADATA = "metadata.yaml"
_RECOVERY = {
    ".mcap": "if it is damaged, `mcap recover` saves what is readable",
    ".db3": "if it is damaged, `sqlite3 FILE .recover` saves what is readable",
    ".bag": "if it was cut off, `rosbag reindex` repairs it",
}


@dataclass(frozen=True)
class Recorded:
    """One message as recorded."""

    time: int  # when it was recorded, in nanoseconds
    message: Any | None  # None if it cannot be deserialized
    error: str = ""  # why not


class Bag:
    """An open bag, for a `with` statement.

    Messages are found in the storage files themselves, so a missing or edited metadata.yaml does
    no harm. A truncated file is read up to where it ends, which `notes` reports.

    Attributes:
        path: the bag's folder or file.
        start: time of the earliest message of any topic, in nanoseconds.
        end: time of the latest one.
        topics: topic name -> message type.
        notes: what is damaged or missing; complete only after all messages have been read.
    """

    def __init__(self, path: str | Path) -> None:
        """Open a rosbag2 folder, a .mcap or .db3 file (also with .zstd), or a ROS 1 .bag."""
        self.path = Path(path)
        self.notes: list[str] = []
        if not self.path.exists():
            raise FileNotFoundError(f"no bag at {self.path}")
        with ExitStack() as stack:
            files = self._files()
            self._check_metadata()
            folder = stack.enter_context(
                scratch_folder(Path(tempfile.gettempdir()), "siamcar_bag_")
            )
            readable = [usable for file in files if (usable := self._usable(file, folder))]
            if not readable:
                raise ValueError(f"bag {self.path} cannot be read: " + "; ".join(self.notes))
            self._reader = stack.enter_context(_Reader(readable, default_typestore=typestore()))
            if self._reader.message_count == 0:
                raise ValueError(f"bag {self.path} holds no readable message")
            self._cleanup = stack.pop_all()
        self.start = self._reader.start_time
        self.end = self._reader.end_time - 1
        self.topics = {c.topic: c.msgtype for c in self._reader.connections if c.msgcount}

    def __enter__(self) -> Bag:
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    def seconds(self, time: int) -> float:
        """Convert a time in nanoseconds to seconds since the bag's start."""
        return (time - self.start) / 1e9

    def image_topic(self, name: str | None) -> str:
        """Return the topic `name` if it holds images; without a name, the only one that does."""
        return self._topic(name, (IMAGE, COMPRESSED_IMAGE), "image")

    def detection_topic(self, name: str) -> str:
        """The same for a topic of vision_msgs/Detection2D."""
        return self._topic(name, (DETECTION,), "Detection2D")

    def count(self, topic: str) -> int:
        """Number of messages on the topic."""
        return sum(c.msgcount for c in self._connections(topic))

    def rate(self, topic: str) -> float:
        """Mean rate of a topic in Hz, within 1 and 240; 30 where there is none."""
        seconds, count = self.seconds(self.end), self.count(topic)
        return min(max((count - 1) / seconds, 1.0), 240.0) if seconds > 0 and count > 1 else 30.0

    def messages(self, topic: str) -> Iterator[Recorded]:
        """Iterate over the messages of one topic in the order of their times.

        A message that cannot be deserialized is yielded with its error. If the file becomes
        unreadable, the iteration ends there, and `notes` says why.
        """
        try:
            for connection, time, data in self._reader.messages(self._connections(topic)):
                yield self._deserialize(connection, time, data)
        except Exception as error:  # on corrupt bytes the parsers raise anything
            self.notes.append(f"{self.path.name}: {topic} cannot be read further: {error}")

    def _deserialize(self, connection: Connection, time: int, data: bytes) -> Recorded:
        try:
            # Only metadata.yaml says that messages are compressed. CDR never begins like this.
            raw = zstd.decompress(data) if data[:4] == ZSTD_MAGIC else data
            return Recorded(time, self._reader.deserialize(raw, connection.msgtype))
        except Exception as error:  # as above
            reason = error or type(error).__name__
            return Recorded(time, None, f"not a {connection.msgtype}: {reason}")

    def _connections(self, topic: str) -> list[Connection]:
        return [c for c in self._reader.connections if c.topic == topic]

    def _topic(self, name: str | None, types: tuple[str, ...], kind: str) -> str:
        fitting = {topic: msgtype for topic, msgtype in self.topics.items() if msgtype in types}
        listing = ", ".join(f"{topic} ({msgtype})" for topic, msgtype in sorted(fitting.items()))
        there_are = f"its {kind} topics are: {listing}" if fitting else f"it has no {kind} topic"
        if name is None:
            if len(fitting) == 1:
                return next(iter(fitting))
            if not fitting:
                raise ValueError(f"{self.path} has no {kind} topic")
            raise ValueError(
                f"{self.path} has several {kind} topics; choose one with --topic: {listing}"
            )
        # Recorders differ in the leading slash.
        alike = (topic for topic in self.topics if topic.strip("/") == name.strip("/"))
        name = next(alike, name)
        if name in fitting:
            return name
        if name in self.topics:
            raise ValueError(f"topic {name} of {self.path} holds {self.topics[name]}; {there_are}")
        raise ValueError(f"{self.path} has no topic {name}; {there_are}")

    def _files(self) -> list[Path]:
        if self.path.is_file():
            if Path(self.path.name.removesuffix(".zstd")).suffix not in (*_STORAGE, ".bag"):
                raise ValueError(
                    f"{self.path} is not a bag: expected a folder, or a .mcap, .db3 or .bag file"
                )
            return [self.path]
        files = sorted(self.path.iterdir())
        stored = [file for file in files if file.suffix in _STORAGE]
        packed = [f for f in files if f.suffix == ".zstd" and Path(f.stem).suffix in _STORAGE]
        stored += [file for file in packed if file.with_suffix("") not in stored]
        if not stored:
            raise ValueError(f"{self.path} is not a bag: it has no .mcap or .db3 file")
        return stored

    def _check_metadata(self) -> None:
        """Note it if metadata.yaml is missing or names files that are."""
        if self.path.is_file():
            return
        try:
            information = read_yaml(self.path / _METADATA)["rosbag2_bagfile_information"]
            names = [PurePath(name).name for name in information["relative_file_paths"]]
        except (OSError, ValueError, KeyError, TypeError):
            self.notes.append(
                f"{self.path.name} has no readable {_METADATA}; its files are read without it"
                " (`ros2 bag reindex` writes a new one)"
            )
            return
        for name in names:
            if not (self.path / name).exists():
                self.notes.append(f"{self.path.name}: {name}, which {_METADATA} names, is missing")

    def _usable(self, file: Path, folder: Path) -> Path | None:
        """The file, or a copy in `folder`, unpacked or completed; None if it cannot be read."""
        name = file.name
        if file.suffix == ".zstd":
            unpacked = folder / file.stem
            if not _decompress_file(file, unpacked):
                self.notes.append(f"{name} is cut off; it is read up to there")
            file = unpacked
        reason = _refusal(file)
        if reason is None:
            return file
        if file.suffix == ".mcap":
            for copy in _completed_copies(file, folder / f"completed_{file.name}"):
                if _refusal(copy) is None:
                    self.notes.append(f"{name} is cut off; it is read up to there")
                    return copy
        self.notes.append(f"{name}: {reason}")
        return None


class _Reader(AnyReader):
    """An AnyReader that tolerates bad message definitions.

    AnyReader refuses the whole bag if a single definition does not parse, even of a topic that is
    never read. Here the types of `messages.py` stay readable.
    """

    def _open(self) -> None:
        try:
            super()._open()
        except Exception:
            if not self.is2 or not all(getattr(r, "is_open", False) for r in self.readers):
                raise
            self.connections = [c for reader in self.readers for c in reader.connections]
            self.typestore = typestore()
        if self.is2:  # a bag may define some types only
            known = typestore().fielddefs
            missing = known.keys() - self.typestore.fielddefs.keys()
            self.typestore.register({name: known[name] for name in missing})


def _refusal(file: Path) -> str | None:
    """Why a storage file cannot be opened; None if it can."""
    logs = (file.with_name(file.name + suffix) for suffix in ("-wal", "-journal"))
    if any(log.exists() and log.stat().st_size for log in logs):
        return "its recorder was killed; `sqlite3 FILE 'PRAGMA journal_mode=DELETE'` merges its log"
    try:
        with _Reader([file], default_typestore=typestore()):
            return None
    except Exception as error:  # as in messages()
        if error.args == ("unknown",):  # rosbag2's, where a type's package was not installed
            return (
                'it lacks a message definition; `sqlite3 FILE "DELETE FROM message_definitions '
                "WHERE encoding = 'unknown'\"` makes it readable"
            )
        return f"{error or type(error).__name__} ({_RECOVERY[file.suffix]})"


def _decompress_file(source: Path, target: Path) -> bool:
    """Decompress a zstd file as far as possible; return False if it is truncated."""
    with source.open("rb") as packed, target.open("wb") as out:
        try:
            with zstd.open(packed, "rb") as stream:
                shutil.copyfileobj(stream, out)
        except (EOFError, zstd.ZstdError):
            return False
    return True


def _completed_copies(source: Path, target: Path) -> Iterator[Path]:
    """Write an mcap file that was cut off to `target`, with an end; the longest copy comes first.

    The last record may be a chunk that was only partly written, so a second copy omits it.
    """
    shutil.copyfile(source, target)
    for end in _record_ends(source)[:-3:-1]:
        with target.open("r+b") as out:
            out.truncate(end)
            out.seek(end)
            out.write(_MCAP_END)
        yield target


def _record_ends(path: Path) -> list[int]:
    """The end of each whole record of an mcap file, up to its summary."""
    ends: list[int] = []
    size, position = path.stat().st_size, len(_MCAP_MAGIC)
    with path.open("rb") as file:
        if file.read(position) != _MCAP_MAGIC:
            return ends
        while position + 9 <= size:
            file.seek(position)
            kind, length = struct.unpack("<BQ", file.read(9))
            position += 9 + length
            if kind == _NOTHING:  # allocated and never written, as may be the record before
                return ends[:-1]
            if position > size or kind in (_DATA_END, _FOOTER):
                break
            ends.append(position)
    return ends
