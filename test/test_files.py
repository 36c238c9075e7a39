"""Folders and files that a failure or a killed process does not spoil."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

from siamcar_ros.files import reason, scratch_folder


@pytest.mark.parametrize("removed", [True, False], ids=["removed", "about to be"])
def test_a_new_folder_that_another_process_clears_away_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, removed: bool
) -> None:
    """Between its making and its locking a folder looks like one that was left behind."""
    make, made, held = tempfile.mkdtemp, [], []

    def interfered(**where: Any) -> str:
        folder = make(**where)
        made.append(folder)
        if len(made) == 1 and removed:
            shutil.rmtree(folder)
        elif len(made) == 1:
            held.append(os.open(folder, os.O_RDONLY))
            fcntl.flock(held[0], fcntl.LOCK_EX)
        return folder

    monkeypatch.setattr(tempfile, "mkdtemp", interfered)
    with scratch_folder(tmp_path, ".new-") as folder:
        assert [str(folder)] == made[1:]
        assert folder.is_dir()
    for handle in held:
        os.close(handle)
    assert not folder.exists()


def test_what_an_error_says_to_users(tmp_path: Path) -> None:
    missing = tmp_path / "missing.txt"
    with pytest.raises(OSError, match="Errno") as refused:
        missing.read_text()
    assert reason(refused.value) == f"{missing}: No such file or directory"
    assert reason(OSError("there is no folder x")) == "there is no folder x"
    assert reason(ValueError("rate must be positive")) == "rate must be positive"
