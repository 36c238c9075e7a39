"""Copies of bag files that readers refuse: compressed ones, and those of a crashed recorder.

For other damage there are `mcap recover`, `sqlite3 FILE .recover` and `ros2 bag reindex`.
"""

from __future__ import annotations

import shutil
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"

_MCAP_MAGIC = b"\x89MCAP0\r\n"
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


def completed_copies(source: Path, target: Path) -> Iterator[Path]:
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
