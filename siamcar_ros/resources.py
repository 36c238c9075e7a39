"""Finds the files that ship with the package: config/, films/, models/ and launch/."""

from __future__ import annotations

import os
import shutil
from pathlib import Path, PurePosixPath

_PACKAGE = Path(__file__).resolve().parent

# The variables in which Fast DDS looks for its profile: before version 3, and from then on.
FASTDDS_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
# Bytes that must be free for the shared-memory profile: a few processes' segments.
_SHARED_MEMORY = 1 << 29


def _roots() -> list[Path]:
    """Folders that may hold the files, in the order in which they are looked at."""
    checkout = _PACKAGE.parent
    roots = [_PACKAGE / "_data"]
    if (checkout / "package.xml").is_file():
        roots.append(checkout)
    # colcon: PREFIX/lib/pythonX.Y/site-packages/siamcar_ros (or dist-packages, or local/lib/...)
    # with the files in PREFIX/share/siamcar_ros.
    roots += [
        parent / "share" / "siamcar_ros"
        for parent in _PACKAGE.parents
        if (parent / "share" / "siamcar_ros" / "package.xml").is_file()
    ]
    for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep):
        share = Path(prefix) / "share" / "siamcar_ros"
        if prefix and share.is_dir() and share not in roots:
            roots.append(share)
    return roots


def resource_path(name: str | os.PathLike[str]) -> Path:
    """Return the path of a shipped file or folder, e.g. "config/networks/compact.yaml".

    The same name works in a source checkout, in a colcon install and after `pip install`.

    Raises:
        ValueError: `name` is absolute or climbs out of the package.
        FileNotFoundError: no such file ships; the message names where it was looked for.
    """
    relative = PurePosixPath(os.fspath(name))
    if relative.is_absolute() or ".." in relative.parts:
        raise ValueError(f"a shipped file is named relative to the package, not {str(name)!r}")
    roots = _roots()
    for root in roots:
        candidate = root / relative
        if candidate.exists():
            return candidate
    looked = ", ".join(str(root) for root in roots)
    raise FileNotFoundError(f"no shipped file {str(relative)!r}; looked in {looked}")


def fastdds_profile() -> Path | None:
    """The shipped shared-memory profile for Fast DDS, where /dev/shm has room for it.

    Where it has not, as in a container by default, Fast DDS does better with its own settings.
    """
    try:
        free = shutil.disk_usage("/dev/shm").free
    except OSError:
        return None
    return resource_path("config/fastdds/shared_memory.xml") if free >= _SHARED_MEMORY else None


def use_fastdds_profile() -> None:
    """Set the shipped Fast DDS profile in this process's environment, unless it names another.

    Takes effect if called before the middleware is loaded, and in child processes.
    """
    named = [os.environ[name] for name in FASTDDS_VARIABLES if name in os.environ]
    profile = named[0] if named else fastdds_profile()
    if profile is not None:
        for name in FASTDDS_VARIABLES:
            os.environ.setdefault(name, str(profile))
