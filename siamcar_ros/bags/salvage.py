"""Makes a damaged bag file readable: what stands before the damage is written to a new file.

A recorder that was killed, or a disk that was full, leaves an mcap file without its index and
footer, or an SQLite file shorter than its header says; readers refuse both as a whole.
"""

from __future__ import annotations

import io
import shutil
import sqlite3
import struct
import sys
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

from lz4.frame import LZ4FrameDecompressor

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_MCAP_MAGIC = b"\x89MCAP0\r\n"
_NOTHING, _FOOTER, _CHUNK, _DATA_END = 0x00, 0x02, 0x06, 0x0F
# An mcap footer that points to no summary: readers then scan the file.
_PLAIN_FOOTER = struct.pack("<BQQQI", _FOOTER, 20, 0, 0, 0)
_DAMAGE = (EOFError, OSError, RuntimeError, ValueError, struct.error, zstd.ZstdError)


def decompress_file(source: Path, target: Path) -> bool:
    """Write the contents of a zstd file, as far as they go; False when they end too early."""
    with source.open("rb") as packed, target.open("wb") as out:
        try:
            with zstd.open(packed, "rb") as stream:
                shutil.copyfileobj(stream, out)
        except (EOFError, zstd.ZstdError):
            return False
    return True


def salvage(source: Path, target: Path) -> None:
    """Write to `target` the messages of the bag file `source` that stand before its damage.

    Raises:
        ValueError: nothing of the file is readable, or it is neither .mcap nor .db3.
    """
    if source.suffix == ".mcap":
        _salvage_mcap(source, target)
    elif source.suffix == ".db3":
        _salvage_sqlite(source, target)
    else:
        raise ValueError(f"{source} is no bag file: neither .mcap nor .db3")


def _salvage_mcap(source: Path, target: Path) -> None:
    with source.open("rb") as file, target.open("wb") as out:
        if file.read(len(_MCAP_MAGIC)) != _MCAP_MAGIC:
            raise ValueError(f"{source} is no mcap file: it does not begin with mcap's signature")
        end = len(_MCAP_MAGIC)
        torn = -1  # bytes of the record at `end`, all that follows if negative
        for kind, record_end in _whole_records(file):
            # What was never written reads as zeros, and a chunk may end in them.
            if kind in (_NOTHING, _DATA_END, _FOOTER):
                break
            file.seek(end)
            if kind == _CHUNK and not _is_whole_chunk(file.read(record_end - end)):
                torn = record_end - end
                break
            end = record_end
        file.seek(0)
        for block in iter(lambda: file.read(min(1 << 20, end - file.tell())), b""):
            out.write(block)
        rest = file.read(torn)
        out.write(_torn_chunk(rest if torn < 0 else rest.rstrip(b"\0")))
        out.write(_PLAIN_FOOTER + _MCAP_MAGIC)


def _whole_records(stream: BinaryIO) -> Iterator[tuple[int, int]]:
    """Kind and end of each record from the stream's position on that is there as a whole."""
    position = stream.tell()
    size = stream.seek(0, io.SEEK_END)
    while position + 9 <= size:
        stream.seek(position)
        kind, length = struct.unpack("<BQ", stream.read(9))
        position += 9 + length
        if position > size:
            return
        yield kind, position


def _is_whole_chunk(record: bytes) -> bool:
    """Whether a chunk's contents are all there: their length, and their CRC where it is given."""
    try:
        _, _, _, _, size, crc, name_length = struct.unpack_from("<BQQQQII", record)
        content = _decompress(record[41 : 41 + name_length], record[41 + name_length + 8 :])
    except _DAMAGE:
        return False
    return len(content) == size and crc in (0, zlib.crc32(content))


def _torn_chunk(data: bytes) -> bytes:
    """The whole records inside a chunk that is cut off; empty where there are none."""
    try:
        kind, _, _, _, _, _, name_length = struct.unpack_from("<BQQQQII", data)
        if kind != _CHUNK:
            return b""
        start = 41 + name_length + 8
        content = _decompress(data[41 : 41 + name_length], data[start:])
    except _DAMAGE:
        return b""
    ends = [end for _, end in _whole_records(io.BytesIO(content))]
    return content[: ends[-1]] if ends else b""


def _decompress(compression: bytes, data: bytes) -> bytes:
    if compression == b"zstd":
        return zstd.ZstdDecompressor().decompress(data)
    if compression == b"lz4":
        return bytes(LZ4FrameDecompressor().decompress(data))
    return data


def _salvage_sqlite(source: Path, target: Path) -> None:
    uri = f"{source.resolve().as_uri()}?immutable=1"
    with closing(sqlite3.connect(uri, uri=True)) as old, closing(sqlite3.connect(target)) as new:
        try:
            # SQLite opens a file shorter than its header says only in this mode.
            old.execute("PRAGMA writable_schema=ON")
            tables = old.execute(
                "SELECT name, sql FROM sqlite_master WHERE type='table' AND sql IS NOT NULL"
            ).fetchall()
        except sqlite3.DatabaseError as error:
            raise ValueError(f"{source} cannot be read as an SQLite bag: {error}") from error
        names = {name for name, _ in tables}
        if not {"topics", "messages"} <= names:
            raise ValueError(f"{source} cannot be read as a bag: its tables are missing")
        for name, sql in tables:
            new.execute(sql)
            _copy_rows(old, new, name)
        new.commit()


def _copy_rows(old: sqlite3.Connection, new: sqlite3.Connection, table: str) -> None:
    """Copy a table's rows in the order of their ids, up to the first that cannot be read."""
    try:
        where = ""
        if table == "message_definitions":  # readers refuse those that the recorder did not find
            where = " WHERE encoding IN ('ros2msg', 'ros2idl')"
        for row in old.execute(f'SELECT * FROM "{table}"{where}'):
            new.execute(f'INSERT INTO "{table}" VALUES ({", ".join("?" * len(row))})', row)
    except sqlite3.DatabaseError:
        return
