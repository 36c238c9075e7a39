"""Writing files without risking the old ones, checksums, and messages of errors."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_ABANDONED = 24 * 3600.0  # seconds without a change until a scratch folder counts as abandoned


def reason(error: Exception) -> str:
    """Return an error's message for users; that of a file is `FILE: No such file or directory`."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def check_folder(path: Path) -> None:
    """Check that a file can be made at `path`.

    Raises:
        FileNotFoundError: its folder does not exist.
        IsADirectoryError: it is a folder itself.
    """
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.absolute().parent}")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: name a file in it")


def move_into_place(file: Path, place: Path) -> None:
    """Move a finished file to where readers look for it, once its content is on the disk."""
    with file.open("rb") as written:
        os.fsync(written.fileno())
    file.replace(place)


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a path to write to in place of `path`, and move the result there at the end.

    The new file lies beside the old one, as `.NAME.partial.SUFFIX`, so that the move is atomic. If
    the block raises, the new file is removed and `path` stays as it was. What a killed process left
    behind is overwritten by the next one. A device or a pipe is written to directly.

    Raises:
        FileNotFoundError: the folder of `path` does not exist.
    """
    path = Path(path)
    check_folder(path)
    if path.exists() and not path.is_file():
        yield path
        return
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        yield partial
        move_into_place(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def sha256(*files: Path) -> str:
    """The SHA-256 of the contents of files, one after another, in hexadecimal."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


@contextmanager
def scratch_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Make a folder `PREFIX...` in `parent` that is removed when the block ends.

    Those that killed processes left there are removed once they are a day old.
    """
    for old in parent.glob(f"{prefix}*"):
        with suppress(OSError):
            if time.time() - old.stat().st_mtime > _ABANDONED:
                shutil.rmtree(old)
    with tempfile.TemporaryDirectory(
        dir=parent, prefix=prefix, ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder)
