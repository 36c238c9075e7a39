"""Where files that are made once and used often are kept."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from siamcar_ros.model import SiamCAR


def cache_folder(kind: str) -> Path:
    """``$XDG_CACHE_HOME/siamcar_ros/KIND`` (``~/.cache`` without it), made where it is missing."""
    base = os.environ.get("XDG_CACHE_HOME")
    folder = (Path(base) if base else Path.home() / ".cache") / "siamcar_ros" / kind
    folder.mkdir(parents=True, exist_ok=True)
    return folder


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
