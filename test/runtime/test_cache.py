"""Files that are made once: found whole, made again where they are not, and left nowhere else."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from siamcar_ros.runtime.cache import cache_folder, cached_files, is_intact

CONTENT = bytes(range(256)) * 16


def make(folder: Path) -> None:
    (folder / "graph").write_bytes(CONTENT)
    (folder / "other").write_bytes(b"other")


def refuse(folder: Path) -> None:
    raise AssertionError("it was there already")


@pytest.mark.parametrize("damage", ["empty", "zeros in the middle", "missing", "no digest"])
def test_damaged_files_are_made_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    """Zeros in the middle of a graph's weights load without an error, and ruin the tracking."""
    graph, other = cached_files(tmp_path / "folder", ["graph", "other"], make)
    assert caplog.text == ""
    assert cached_files(tmp_path / "folder", ["graph", "other"], refuse) == [graph, other]
    if damage == "missing":
        graph.unlink()
    elif damage == "no digest":
        graph.with_name("graph.sha256").unlink()
    else:
        zeros = CONTENT[:1000] + bytes(1000) + CONTENT[2000:]
        graph.write_bytes(b"" if damage == "empty" else zeros)
    assert not is_intact(graph)
    assert cached_files(tmp_path / "folder", ["graph", "other"], make) == [graph, other]
    assert graph.read_bytes() == CONTENT
    assert f"the cached files in {tmp_path / 'folder'} are damaged" in caplog.text


def test_a_cache_that_cannot_be_written_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/cache")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = cache_folder("onnx")
    assert folder.is_relative_to(tmp_path)
    assert "the cache /dev/null/cache/siamcar_ros/onnx cannot be used" in caplog.text
    assert cache_folder("onnx") == folder
    (tmp_path / f"siamcar_ros-{os.getuid()}").chmod(0o777)
    with pytest.raises(PermissionError, match="others may write to it"):
        cache_folder("onnx")
