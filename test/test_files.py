"""Folders and files that a failure or a killed process does not spoil."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from siamcar_ros.files import reason, replacing, scratch_folder


def test_what_killed_processes_left_is_removed_after_a_day(tmp_path: Path) -> None:
    abandoned, used = tmp_path / ".new-abandoned", tmp_path / ".new-used"
    for folder in (abandoned, used):
        folder.mkdir()
        (folder / "part").write_bytes(b"part")
    yesterday = time.time() - 25 * 3600
    os.utime(abandoned, (yesterday, yesterday))
    with scratch_folder(tmp_path, ".new-") as folder:
        assert folder.is_dir()
        assert set(tmp_path.iterdir()) == {folder, used}
    assert list(tmp_path.iterdir()) == [used]


def test_what_an_error_says_to_users(tmp_path: Path) -> None:
    missing = tmp_path / "missing.txt"
    with pytest.raises(OSError, match="Errno") as refused:
        missing.read_text()
    assert reason(refused.value) == f"{missing}: No such file or directory"
    assert reason(OSError("there is no folder x")) == "there is no folder x"
    assert reason(ValueError("rate must be positive")) == "rate must be positive"


def test_devices_are_written_to_not_replaced() -> None:
    leader, follower = os.openpty()
    with replacing(os.ttyname(follower)) as path:
        path.write_text("{}")
    assert os.read(leader, 2) == b"{}"
