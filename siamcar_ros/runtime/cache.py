"""The user's cache: files that are made once, and made again where they are damaged."""

from __future__ import annotations

import logging
import os
import stat
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from siamcar_ros.files import move_into_place, scratch_folder, sha256

logger = logging.getLogger(__name__)


def cache_folder(kind: str) -> Path:
    """``$XDG_CACHE_HOME/siamcar_ros/KIND`` (``~/.cache`` without it), created where missing.

    If it cannot be written, a folder of the user's among the temporary files, with a warning.
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


def cached_files(folder: Path, names: Sequence[str], make: Callable[[Path], None]) -> list[Path]:
    """Files of a cache folder of their own, made if one is missing or damaged.

    `make` writes them into the folder that it is given.
    """
    files = [folder / name for name in names]
    if all(map(is_intact, files)):
        return files
    if any(file.exists() for file in files):
        logger.warning("the cached files in %s are damaged: they are made again", folder)
    folder.mkdir(parents=True, exist_ok=True)
    with scratch_folder(folder, ".new-") as scratch:
        make(scratch)
        for file in files:
            digest = scratch / f"{file.name}.sha256"
            digest.write_text(sha256(scratch / file.name))
            # The old digest goes first, so that no file lies beside the digest of another.
            (folder / digest.name).unlink(missing_ok=True)
            move_into_place(scratch / file.name, file)
            move_into_place(digest, folder / digest.name)
    return files


def is_intact(file: Path) -> bool:
    """Whether a file of :func:`cached_files` is as it was written."""
    try:
        return sha256(file) == file.with_name(f"{file.name}.sha256").read_text()
    except (OSError, UnicodeDecodeError):
        return False
