"""Files that ship with the package, in config/, models/ and so on, and YAML."""

from __future__ import annotations

import difflib
import os
import reprlib
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

_PACKAGE = Path(__file__).resolve().parent

# The variables in which Fast DDS looks for its profile: before version 3, and from then on.
FASTDDS_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
# Bytes that must be free for the shared-memory profile: a few processes' segments.
_SHARED_MEMORY = 1 << 29


def _roots() -> list[Path]:
    """Folders that may hold the files, in the order in which they are searched."""
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
    return roots


def resource_path(name: str | os.PathLike[str]) -> Path:
    """Return the path of a shipped file or folder, e.g. "config/networks/compact.yaml".

    The same name works in a source checkout, in a colcon install and after `pip install`.

    Raises:
        ValueError: `name` is absolute or points outside the package.
        FileNotFoundError: no such file ships; the message lists the folders searched.
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


def given_or_shipped(name: str) -> Path:
    """The file at that path or, if there is none, the shipped file of that name."""
    path = Path(name).expanduser()
    if not path.is_file():
        with suppress(FileNotFoundError, ValueError):
            return resource_path(name)
    return path


def shipped_names(folder: str) -> tuple[str, ...]:
    """The names of the YAML files in a shipped folder, sorted, without their suffix."""
    return tuple(sorted(file.stem for file in resource_path(folder).glob("*.yaml")))


def network_names() -> tuple[str, ...]:
    """The networks that ship, sorted."""
    return shipped_names("config/networks")


def network_file(network: str | os.PathLike[str]) -> Path:
    """The configuration of a shipped network's name, or a YAML file's path, with `~` expanded.

    Raises:
        ValueError: there is no network of that name; the message lists those there are.
        FileNotFoundError: no such file.
    """
    path = Path(network).expanduser()
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise FileNotFoundError(f"the network configuration {path} does not exist")
        return path
    names = network_names()
    if os.fspath(network) not in names:
        raise ValueError(
            f"no network configuration is called {shortened(os.fspath(network))}: there are "
            f"{', '.join(names)}; or give the path of a YAML file"
        )
    return resource_path(f"config/networks/{network}.yaml")


def fastdds_profile() -> Path | None:
    """The shipped shared-memory profile for Fast DDS; None where /dev/shm is too small for it.

    A container's default /dev/shm is, and Fast DDS then works better with its own settings.
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


def read_yaml(path: str | os.PathLike[str]) -> Any:
    """The content of a YAML file; see :func:`parse_yaml`; OSError if it cannot be read."""
    return parse_yaml(Path(path).read_bytes(), os.fspath(path))


def parse_yaml(text: str | bytes, source: str) -> Any:
    """Parse YAML of plain types.

    Raises:
        ValueError: it is not YAML; `source` says in the message where it comes from.
    """
    import yaml

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: date 2024-99-99
        raise ValueError(f"{source} is not valid YAML: {shortened(error, 300)}") from error


def shortened(value: object, length: int = 80) -> str:
    """A value as it is shown in a message: its `repr`, or the text of an exception, cut short."""
    if isinstance(value, BaseException):
        text = " ".join(str(value).split())
    else:
        brief = reprlib.Repr()
        brief.maxstring = brief.maxother = length
        text = brief.repr(value)
    return text if len(text) <= length else f"{text[: length - 3]}..."


def refuse_unknown(given: Iterable[object], known: Iterable[str], what: str) -> None:
    """Raise ValueError if a given name is unknown; the message has the nearest and all known names.

    `what` is what the message calls a name: "option", or "FILE: key".
    """
    names = list(known)
    for name in map(str, given):
        if name not in names:
            nearest = difflib.get_close_matches(name, names, 1, 0.5)
            guess = f"did you mean {nearest[0]!r}? There" if nearest else "there"
            shown = shortened(name).strip("'\"")
            raise ValueError(f"{what} {shown} is unknown; {guess} are {', '.join(names)}")
