"""Where files that are made once and used often are kept."""

from __future__ import annotations

import atexit
import functools
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from siamcar_ros.model import SiamCAR

logger = logging.getLogger(__name__)


def cache_folder(kind: str) -> Path:
    """``$XDG_CACHE_HOME/siamcar_ros/KIND`` (``~/.cache`` without it), made where it is missing.

    Where it cannot be written in, a folder that lasts as long as this process, which is logged.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    folder = (Path(base) if base else Path.home() / ".cache") / "siamcar_ros" / kind
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        logger.warning("nothing is kept for the next start, %s cannot be used: %s", folder, error)
    own = _own_folder() / kind
    own.mkdir(exist_ok=True)
    return own


@functools.cache
def _own_folder() -> Path:
    folder = tempfile.mkdtemp(prefix="siamcar_ros_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def is_whole(*files: Path) -> bool:
    """Whether the files are there; a loss of power may have left them empty."""
    return all(file.is_file() and file.stat().st_size > 0 for file in files)


def put_in_place(file: Path, place: Path) -> None:
    """Move a file that has been written to where readers look for it, its contents first."""
    with file.open("rb") as written:
        os.fsync(written.fileno())
    file.replace(place)


@contextmanager
def new_folder(beside: Path) -> Iterator[Path]:
    """A folder inside `beside` to write files in and move them out whole; then it is removed."""
    beside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=beside, prefix=".new-") as folder:
        yield Path(folder)


def fingerprint(model: SiamCAR) -> str:
    """Of a network and its weights: equal for equal tensors, whatever file they came from."""
    digest = hashlib.sha256(model.name.encode())
    for key, value in sorted(model.state_dict().items()):
        if key.endswith("num_batches_tracked"):
            continue
        digest.update(f"{key} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
