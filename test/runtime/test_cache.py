"""Files that are made once: found whole, made again where they are not, and left nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from siamcar_ros.runtime.cache import cache_folder, cached_files

CONTENT = bytes(range(256)) * 16


def make(folder: Path) -> None:
    (folder / "graph").write_bytes(CONTENT)
    (folder / "other").write_bytes(b"other")


def refuse(folder: Path) -> None:
    raise AssertionError("it was there already")


@pytest.mark.parametrize("damage", ["empty", "zeros in the middle", "missing", "no checksum"])
def test_damaged_files_are_made_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    """Zeros in the middle of a graph's weights load without an error, and ruin the tracking."""
    graph, other = cached_files(tmp_path / "folder", ["graph", "other"], make)
    assert caplog.text == ""
    assert cached_files(tmp_path / "folder", ["graph", "other"], refuse) == [graph, other]
    if damage == "missing":
        graph.unlink()
    elif damage == "no checksum":
        graph.with_name("sha256").unlink()
    else:
        zeros = CONTENT[:1000] + bytes(1000) + CONTENT[2000:]
        graph.write_bytes(b"" if damage == "empty" else zeros)
    assert cached_files(tmp_path / "folder", ["graph", "other"], make) == [graph, other]
    assert graph.read_bytes() == CONTENT
    assert f"the cached files in {tmp_path / 'folder'} are damaged" in caplog.text


def test_a_cache_that_cannot_be_written_is_refused_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/cache")
    with pytest.raises(OSError, match=r"cache /dev/null/cache/siamcar_ros/onnx cannot .* set XDG"):
        cache_folder("onnx")
