"""Writing files so that a failure never costs the old one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a path to write to in place of `path`, and move the result there at the end.

    The new file lies beside the old one, as `.NAME.partial.SUFFIX`, so that the move is atomic. If
    the block raises, the new file is removed and `path` stays as it was. What a killed process left
    behind is overwritten by the next one.

    Raises:
        FileNotFoundError: the folder of `path` does not exist.
    """
    path = Path(path)
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.absolute().parent}")
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        yield partial
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
