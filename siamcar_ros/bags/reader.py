"""Bags read frame by frame, without ROS: rosbag2 folders and single files, mcap and SQLite, raw or
zstd-compressed (by message, by file or by chunk), and ROS 1 bags.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection

from siamcar_ros.bags.messages import COMPRESSED_IMAGE, DETECTION, IMAGE, typestore
from siamcar_ros.bags.salvage import ZSTD_MAGIC, decompress_file, salvage

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

IMAGE_TYPES = (IMAGE, COMPRESSED_IMAGE)
_STORAGE = (".mcap", ".db3")


_OURS = (*IMAGE_TYPES, DETECTION)


class _Reader(AnyReader):
    """Knows our types in any ROS 2 bag, whatever is wrong with the definitions of others.

    rosbags itself refuses a bag for one definition that is missing or does not parse.
    """

    def _open(self) -> None:
        known = typestore().fielddefs
        try:
            super()._open()
        except Exception:
            connections = [c for reader in self.readers for c in reader.connections]
            if not (self.is2 and any(c.msgtype in _OURS for c in connections)):
                raise
            self.connections, self.typestore = connections, typestore()
            return
        if self.is2:
            missing = set(known) - set(self.typestore.fielddefs)
            self.typestore.register({name: known[name] for name in missing})


class BagError(ValueError):
    """A bag that cannot be read, or that lacks what was asked for."""


@dataclass(frozen=True)
class Recorded:
    """One message as recorded.

    Attributes:
        time: when it was recorded, nanoseconds.
        message: its contents; None where they do not deserialise.
        error: why they do not.
    """

    time: int
    message: Any | None
    error: str = ""


class Bag:
    """An open bag. Use it in a `with` statement.

    What of a damaged bag stands before the damage is read; `notes` says what is missing.

    Attributes:
        path: the bag's folder or file.
        start: time of the earliest message of any topic, nanoseconds.
        end: time of the latest one.
        topics: topic name -> message type.
        notes: what was found damaged; complete once the messages have been read.
    """

    def __init__(self, path: str | Path) -> None:
        """Open a bag.

        Args:
            path: a rosbag2 folder; a .mcap or .db3 file, also with .zstd behind it; a ROS 1 .bag.

        Raises:
            FileNotFoundError: nothing is there.
            BagError: it is not a bag, or nothing of it is readable.
        """
        self.path = Path(path)
        self.notes: list[str] = []
        if not self.path.exists():
            raise FileNotFoundError(f"no bag at {self.path}")
        self._cleanup = ExitStack()
        try:
            self._reader = self._open()
        except BaseException:
            self._cleanup.close()
            raise
        if self._reader.message_count == 0:
            self._cleanup.close()
            raise BagError(f"bag {self.path} holds no readable message")
        self.start = self._reader.start_time
        self.end = self._reader.end_time - 1
        self.topics = {c.topic: c.msgtype for c in self._reader.connections if c.msgcount}

    def __enter__(self) -> Bag:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._cleanup.close()

    def seconds(self, time: int) -> float:
        """Seconds from the bag's start to `time` (nanoseconds)."""
        return (time - self.start) / 1e9

    def image_topic(self, name: str | None) -> str:
        """The topic `name` if it holds images; without a name, the only one that does.

        Raises:
            BagError: there is no such topic, or it holds no images, or there is a choice; the
                image topics are listed.
        """
        return self._topic(name, IMAGE_TYPES, "image", "--topic")

    def detection_topic(self, name: str) -> str:
        """The topic `name` if it holds vision_msgs/Detection2D.

        Raises:
            BagError: otherwise; the topics of that type are listed.
        """
        return self._topic(name, (DETECTION,), "Detection2D", "--ground-truth-topic")

    def count(self, topic: str) -> int:
        """Number of messages on the topic."""
        return sum(c.msgcount for c in self._connections(topic))

    def messages(self, topic: str) -> Iterator[Recorded]:
        """The messages of one topic in the order of their times.

        A message that does not deserialise is given with its error; where the file itself cannot
        be read any further the iteration ends, and `notes` says so.
        """
        records = self._reader.messages(connections=self._connections(topic))
        while True:
            try:
                connection, time, data = next(records)
            except StopIteration:
                return
            except Exception as error:  # on corrupt bytes the parsers raise whatever they meet
                self.notes.append(f"{self.path.name}: {topic} cannot be read further: {error}")
                return
            yield self._deserialize(connection, time, data)

    def _deserialize(self, connection: Connection, time: int, data: bytes) -> Recorded:
        try:
            # The files of a bag compressed by message do not say so; CDR data never begins like
            # this.
            raw = zstd.decompress(data) if data[:4] == ZSTD_MAGIC else data
            return Recorded(time, self._reader.deserialize(raw, connection.msgtype))
        except Exception as error:  # as above
            return Recorded(
                time, None, f"not a {connection.msgtype}: {error or type(error).__name__}"
            )

    def _connections(self, topic: str) -> list[Connection]:
        return [c for c in self._reader.connections if c.topic == topic]

    def _topic(self, name: str | None, types: tuple[str, ...], kind: str, option: str) -> str:
        fitting = {topic: msgtype for topic, msgtype in self.topics.items() if msgtype in types}
        listing = ", ".join(f"{topic} ({msgtype})" for topic, msgtype in sorted(fitting.items()))
        there_are = f"its {kind} topics are: {listing}" if fitting else f"it has no {kind} topic"
        if name is None:
            if len(fitting) == 1:
                return next(iter(fitting))
            raise BagError(f"name a topic of {self.path} with {option}; {there_are}")
        # Recorders differ in the leading slash.
        alike = [topic for topic in self.topics if topic.strip("/") == name.strip("/")]
        name = name if name in alike or not alike else alike[0]
        if name in fitting:
            return name
        if name in self.topics:
            raise BagError(f"topic {name} of {self.path} holds {self.topics[name]}; {there_are}")
        raise BagError(f"{self.path} has no topic {name}; {there_are}")

    def _open(self) -> AnyReader:
        path = self.path
        if path.is_file() and path.suffix not in (*_STORAGE, ".bag", ".zstd"):
            raise BagError(f"{path} is no bag: expected a folder, or a .mcap, .db3 or .bag file")
        if path.suffix != ".zstd":
            try:
                reader = self._enter([path])
                by_message = any(
                    getattr(r, "compression_mode", None) == "message" for r in reader.readers
                )
                if not by_message and not self._hidden(reader):
                    return reader
                # rosbags ends at the first message that does not decompress. Read from the files,
                # they come as they are and are decompressed one by one.
                self._cleanup.pop_all().close()
            except Exception as error:  # as in messages()
                if path.suffix == ".bag":
                    raise BagError(
                        f"ROS 1 bag {path} cannot be read: {error}; `rosbag reindex` mends one "
                        "that was cut off"
                    ) from error
                self.notes.append(
                    f"{path.name} cannot be opened as it is ({error}); what is readable is used"
                )
        return self._enter_files()

    def _hidden(self, reader: AnyReader) -> bool:
        """Whether messages of ours are counted and not given.

        rosbags takes a topic for another one where the QoS in metadata.yaml was edited, as is done
        to play a bag in another ROS distribution.
        """
        ours = [c for c in reader.connections if c.msgtype in _OURS and c.msgcount]
        for each in ours:
            if next(reader.messages(connections=[each]), None) is None:
                self.notes.append(f"{self.path.name}: its metadata does not fit its files")
                return True
        return False

    def _enter(self, paths: list[Path]) -> AnyReader:
        return self._cleanup.enter_context(_Reader(paths, default_typestore=typestore()))

    def _enter_files(self) -> AnyReader:
        """Open the storage files alone, each decompressed and mended where it needs to be."""
        folder = Path(
            self._cleanup.enter_context(tempfile.TemporaryDirectory(prefix="siamcar_bag_"))
        )
        files = sorted(self.path.iterdir()) if self.path.is_dir() else [self.path]
        files = [
            f
            for f in files
            if f.suffix in _STORAGE or (f.suffix == ".zstd" and Path(f.stem).suffix in _STORAGE)
        ]
        if not files:
            raise BagError(f"{self.path} is no bag: it has neither metadata.yaml nor .mcap or .db3")
        mended = [readable for f in files if (readable := self._mend(f, folder)) is not None]
        if not mended:
            raise BagError(f"nothing of bag {self.path} is readable: " + "; ".join(self.notes))
        return self._enter(mended)

    def _mend(self, file: Path, folder: Path) -> Path | None:
        """`file` if it opens as it is, else its salvaged copy in `folder`; None if all is lost."""
        if file.suffix == ".zstd":
            unpacked = folder / file.stem
            if not decompress_file(file, unpacked):
                self.notes.append(f"{file.name} is cut off; what is readable is used")
            file = unpacked
        copy = folder / f"salvaged_{file.name}"
        try:
            with _Reader([file], default_typestore=typestore()):
                return file
        except Exception:  # as in messages(): now to the salvage, which says what it meets
            try:
                salvage(file, copy)
                with _Reader([copy], default_typestore=typestore()):
                    return copy
            except Exception as error:
                self.notes.append(f"nothing of {file.name} is readable: {error}")
                return None
