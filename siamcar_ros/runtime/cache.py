"""The user's cache: files that are made once, and made again where they are damaged."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from siamcar_ros.files import move_into_place, scratch_folder, sha256

logger = logging.getLogger(__name__)


def cache_folder(kind: str) -> Path:
    """``$XDG_CACHE_HOME/siamcar_ros/KIND`` (``~/.cache`` without it), created where missing.

    Raises:
        OSError: it cannot be written.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    folder = (Path(base) if base else Path.home() / ".cache") / "siamcar_ros" / kind
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise OSError(
            f"the cache {folder} cannot be written ({error}): set XDG_CACHE_HOME to a folder that "
            "can be"
        ) from error


def cached_files(folder: Path, names: Sequence[str], make: Callable[[Path], None]) -> list[Path]:
    """Files of a cache folder, made if one is missing or damaged.

    Args:
        folder: holds these files, and a checksum of them.
        names: of the files.
        make: writes the files into the folder that it is given.
    """
    files, checksum = [folder / name for name in names], folder / "sha256"
    try:
        if checksum.read_text() == sha256(*files):
            return files
    except (OSError, UnicodeDecodeError):
        pass
    if any(file.exists() for file in files):
        logger.warning("the cached files in %s are damaged: they are made again", folder)
    folder.mkdir(parents=True, exist_ok=True)
    with scratch_folder(folder, ".new-") as scratch:
        make(scratch)
        written = [scratch / name for name in names]
        (scratch / checksum.name).write_text(sha256(*written))
        # Without a checksum until all files are in place.
        checksum.unlink(missing_ok=True)
        for file in (*written, scratch / checksum.name):
            move_into_place(file, folder / file.name)
    return files
