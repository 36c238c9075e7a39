"""Repaired copies of bag files that readers refuse: truncated, compressed, or with an open log.

Only what a crashed recorder leaves behind is repaired. For other damage there are `mcap recover`,
`sqlite3 FILE .recover` and `ros2 bag reindex`.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import struct
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"

_MCAP_MAGIC = b"\x89MCAP0\r\n"
_LOGS = ("-wal", "-journal")
_NOTHING, _FOOTER, _DATA_END = 0x00, 0x02, 0x0F
# A footer that points to no summary: readers then scan the file.
_MCAP_END = struct.pack("<BQQQI", _FOOTER, 20, 0, 0, 0) + _MCAP_MAGIC


def decompress_file(source: Path, target: Path) -> bool:
    """Decompress a zstd file as far as possible; return False if it is truncated."""
    with source.open("rb") as packed, target.open("wb") as out:
        try:
            with zstd.open(packed, "rb") as stream:
                shutil.copyfileobj(stream, out)
        except (EOFError, zstd.ZstdError):
            return False
    return True


def has_log(source: Path) -> bool:
    """Whether an SQLite file has a log beside it with messages not yet merged, as after a crash."""
    logs = (source.with_name(source.name + suffix) for suffix in _LOGS)
    return source.suffix == ".db3" and any(log.exists() and log.stat().st_size for log in logs)


def completed_copies(source: Path, target: Path) -> Iterator[str]:
    """Write one candidate for a repaired copy to `target` per iteration, the most complete first.

    Yields:
        What the copy lacks, for the user; empty if nothing.

    Raises:
        ValueError: the file is not what its name says.
    """
    if source.suffix == ".db3":
        _complete_sqlite(source, target)
        yield ""
    elif source.suffix == ".mcap":
        with source.open("rb") as file:
            ends = _record_ends(file)
            # The last record may be a chunk that was only partly written.
            for end in ends[:-3:-1]:
                _copy_mcap(file, end, target)
                yield "is cut off; it is read up to there"


def _complete_sqlite(source: Path, target: Path) -> None:
    """Copy an SQLite file, merge its log, and drop definitions that readers do not know."""
    for suffix in ("", *_LOGS):
        part = source.with_name(source.name + suffix)
        if part.exists():
            shutil.copyfile(part, target.with_name(target.name + suffix))
    try:
        with closing(sqlite3.connect(target)) as base:
            base.execute("PRAGMA journal_mode=DELETE")
            if base.execute("PRAGMA table_info(message_definitions)").fetchall():
                # rosbag2 writes "unknown" for a type whose package is not installed.
                base.execute("DELETE FROM message_definitions WHERE encoding NOT LIKE 'ros2%'")
            base.commit()
    except sqlite3.Error as error:
        raise ValueError(str(error)) from error


def _copy_mcap(file: BinaryIO, end: int, target: Path) -> None:
    file.seek(0)
    with target.open("wb") as out:
        while block := file.read(min(1 << 20, end - file.tell())):
            out.write(block)
        out.write(_MCAP_END)


def _record_ends(file: BinaryIO) -> list[int]:
    """The end of each whole record of an mcap file, up to its summary."""
    ends: list[int] = []
    size = os.fstat(file.fileno()).st_size
    position = len(_MCAP_MAGIC)
    if file.read(position) != _MCAP_MAGIC:
        raise ValueError("it is not an mcap file")
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
