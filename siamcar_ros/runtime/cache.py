"""Where files that are made once and used often are kept, and how they are found whole again."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

logger = logging.getLogger(__name__)

_NEW = ".new-"
_ABANDONED = 3600.0  # seconds; nothing takes nearly as long to write


def cache_folder(kind: str) -> Path:
    """``$XDG_CACHE_HOME/siamcar_ros/KIND`` (``~/.cache`` without it), created where missing.

    Where that cannot be written, the user's own folder among the temporary files, with a warning.

    Raises:
        OSError: that cannot be written either.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    folder = (Path(base) if base else Path.home() / ".cache") / "siamcar_ros" / kind
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        fallback = _temporary_folder() / kind
        logger.warning("the cache %s cannot be used (%s): using %s", folder, error, fallback)
    fallback.mkdir(parents=True, exist_ok=True)
    return fallback


def _temporary_folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"siamcar_ros-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise PermissionError(f"{folder} belongs to someone else, or others may write to it")
    return folder


def cached_files(
    folder: Path, names: Sequence[str], make: Callable[[Path], None], *, anew: bool = False
) -> list[Path]:
    """Files of a cache folder, made where they are missing or not as they were written.

    Args:
        folder: of these files alone.
        names: of the files.
        make: writes the files into the folder that it is given.
        anew: make them even if they are there.
    """
    files = [folder / name for name in names]
    if not anew and all(map(is_intact, files)):
        return files
    if any(file.exists() for file in files):
        logger.warning("the cached files in %s are damaged: they are made again", folder)
    with new_folder(folder) as scratch:
        make(scratch)
        for file in files:
            digest = scratch / f"{file.name}.sha256"
            digest.write_text(_digest(scratch / file.name))
            # The old digest goes first, so that a file never stands beside another's.
            (folder / digest.name).unlink(missing_ok=True)
            put_in_place(scratch / file.name, file)
            put_in_place(digest, folder / digest.name)
    return files


def is_intact(file: Path) -> bool:
    """Whether a file of :func:`cached_files` is as it was written."""
    try:
        return _digest(file) == file.with_name(f"{file.name}.sha256").read_text()
    except (OSError, UnicodeDecodeError):
        return False


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def put_in_place(file: Path, place: Path) -> None:
    """Move a finished file to where readers look for it, its content on the disk first."""
    with file.open("rb") as written:
        os.fsync(written.fileno())
    file.replace(place)


@contextmanager
def new_folder(beside: Path) -> Iterator[Path]:
    """A folder inside `beside` to write files in and move them out of; it is removed at the end.

    Those that killed processes left there are removed, too.
    """
    beside.mkdir(parents=True, exist_ok=True)
    for old in beside.glob(f"{_NEW}*"):
        try:
            if time.time() - old.stat().st_mtime > _ABANDONED:
                shutil.rmtree(old)
        except OSError:
            continue  # another process was quicker, or it is not ours
    with tempfile.TemporaryDirectory(dir=beside, prefix=_NEW) as folder:
        yield Path(folder)
